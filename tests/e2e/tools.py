"""Where the programs are that `scripts/install-e2e.sh` installs, and what to do when they are not there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from .harness import TOOLS

PACKAGES = TOOLS / "e2e" / "node_modules"


def node() -> str:
    """Node.js, the project's own if it has one."""
    own = TOOLS / "node" / "bin" / "node"
    return need(str(own) if own.exists() else shutil.which("node"), "Node.js")


def package(path: str) -> str:
    """A file of an npm package."""
    return need(str(PACKAGES / path), path)


def chromium() -> str:
    """The browser."""
    return need(shutil.which("chromium"), "Chromium")


def need(path: str | None, what: str) -> str:
    """The path of something that is there. Without it the test is skipped, but on CI it fails."""
    if path is not None and Path(path).exists():
        return path
    message = f"{what} is not installed; scripts/install-e2e.sh installs it"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
