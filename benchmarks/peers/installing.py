"""Installs other gateways, each into a folder of its own below `.tools/peers`, in the versions that its file names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

from .adapter import ROOT, Peer, load_peers

NODE: Final = ROOT / ".tools" / "node" / "bin"
INSTALL_WITHIN: Final = 600.0
STAMP: Final = "installed.json"


def available() -> list[Peer]:
    """Those that can be started."""
    return [peer for peer in load_peers() if _why_not(peer) is None]


def missing() -> dict[str, str]:
    """Why the others cannot, by name."""
    reasons = {peer.name: _why_not(peer) for peer in load_peers()}
    return {name: reason for name, reason in reasons.items() if reason is not None}


def install_all() -> None:
    """Install what is not installed yet, and print a line for each. One that fails does not stop the others."""
    for peer in load_peers():
        try:
            print(f"{peer.name} {peer.version}: {_install(peer)}", flush=True)
        except (OSError, subprocess.SubprocessError) as error:
            output = getattr(error, "stderr", None) or str(error)
            print(f"{peer.name} {peer.version}: not installed: {output.strip()[-300:]}", file=sys.stderr, flush=True)


def environment(peer: Peer) -> dict[str, str]:
    """The environment in which it is installed and started: our own Node.js comes first, where there is one."""
    return {**os.environ, "PATH": os.pathsep.join([str(NODE), os.environ.get("PATH", "")]), **peer.environment}


def _why_not(peer: Peer) -> str | None:
    if not peer.install.pip and not peer.install.npm:
        return None
    if peer.install.npm and shutil.which("node", path=environment(peer)["PATH"]) is None:
        return "there is no Node.js"
    return None if _is_installed(peer) else "not installed: python -m benchmarks --install-peers"


def _is_installed(peer: Peer) -> bool:
    stamp = peer.home / STAMP
    return stamp.exists() and json.loads(stamp.read_text()) == _stamp(peer)


def _stamp(peer: Peer) -> list[list[str]]:
    return [list(peer.install.pip), list(peer.install.npm)]


def _install(peer: Peer) -> str:
    if not peer.install.pip and not peer.install.npm:
        return "needs no installation"
    if _is_installed(peer):
        return "is installed"
    shutil.rmtree(peer.home, ignore_errors=True)
    peer.home.mkdir(parents=True)
    if peer.install.pip:
        venv.create(peer.home, with_pip=True)
        _run(peer, [str(peer.home / "bin" / "python"), "-m", "pip", "install", "--quiet", *peer.install.pip])
    if peer.install.npm:
        npm = shutil.which("npm", path=environment(peer)["PATH"])
        if npm is None:
            raise FileNotFoundError("there is no npm")
        options = ["--no-save", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        _run(peer, [npm, "install", "--prefix", str(peer.home), *options, *peer.install.npm])
    Path(peer.home / STAMP).write_text(json.dumps(_stamp(peer)))
    return "installed"


def _run(peer: Peer, command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, env=environment(peer), timeout=INSTALL_WITHIN)
