"""Other gateways that are measured beside ours. A TOML file of this folder says how each is installed and started."""

from __future__ import annotations

from .adapter import BadAdapter, Peer, load_peers
from .installing import available, install_all, missing
from .running import serving

__all__ = ["BadAdapter", "Peer", "available", "install_all", "load_peers", "missing", "serving"]
