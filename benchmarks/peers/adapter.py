"""Reads the TOML files that describe gateways; see README.md for what is in them."""

from __future__ import annotations

import shlex
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

import msgspec

FOLDER: Final = Path(__file__).parent
ROOT: Final = FOLDER.parent.parent
INSTALLED: Final = ROOT / ".tools" / "peers"

Mode = Literal["legacy", "auto"]


class BadAdapter(Exception):
    """A file that does not describe a gateway; the text names the file and the key."""


class Install(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What has to be installed, with versions: by pip into a virtual environment, or by npm into a folder."""

    pip: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()


class Peer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Another gateway.

    Attributes:
        tool: the name that the backend's tool `echo` has there.
        backend: what it is in front of: an HTTP backend, or a child process.
        modes: the clients that it is measured with.
        note: what it does for a call, in a sentence.
    """

    name: str
    version: str
    command: tuple[str, ...]
    tool: str = "echo"
    backend: Literal["http", "stdio"] = "http"
    modes: tuple[Mode, ...] = ("legacy",)
    url: str = "http://127.0.0.1:{port}/mcp"
    note: str = ""
    install: Install = Install()
    environment: dict[str, str] = {}

    @property
    def home(self) -> Path:
        """Where it is installed."""
        return INSTALLED / self.name

    def arguments(self, *, port: int, backend_url: str) -> list[str]:
        """The command, for a port and a backend."""
        values = self._values(port, backend_url)
        return [part.format_map(values) for part in self.command]

    def address(self, port: int) -> str:
        """The URL of its endpoint."""
        return self.url.format(port=port)

    def _values(self, port: int, backend_url: str) -> Mapping[str, str]:
        own = self.home / "bin" / "python"
        return {
            "port": str(port),
            "backend_url": backend_url,
            "folder": str(FOLDER),
            "python": str(own) if self.install.pip else sys.executable,
            "bin": str(self.home / ("bin" if self.install.pip else "node_modules/.bin")),
            "our_python": sys.executable,
            "stdio_backend": shlex.join([sys.executable, "-m", "benchmarks.stdio_backend"]),
        }


def load_peers(folder: Path = FOLDER) -> list[Peer]:
    """All gateways that a folder describes, by the names of their files. Raises `BadAdapter`."""
    return [_load(path) for path in sorted(folder.glob("*.toml"))]


def _load(path: Path) -> Peer:
    try:
        peer = msgspec.convert(tomllib.loads(path.read_text()), Peer)
        peer.arguments(port=1, backend_url="")
        peer.address(1)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BadAdapter(f"{path.name}: {error}") from error
    except KeyError as error:
        raise BadAdapter(f"{path.name}: command or url has {{{error.args[0]}}}, which stands for nothing") from error
    return peer
