"""Who we are to the backends: credentials that are fetched, kept, and renewed."""

from __future__ import annotations

from .outgoing import HeadersFrom, HeaderSource, RenewingAuthorizer

__all__ = ["HeaderSource", "HeadersFrom", "RenewingAuthorizer"]
