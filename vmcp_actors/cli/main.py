"""The commands, and what they share."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn

import attrs
import click
import trio
from rich.console import Console
from rich.logging import RichHandler

from .. import __version__
from ..config import Config, import_client_config, load_config
from ..errors import ConfigError, VmcpError
from ..gateway import demo_config
from ..transports.base import single_cause
from . import show
from .serve import serve_gateway
from .status import fetch_status
from .tools import print_tools

EXIT_FAILED = 1
UNWRAPPED = 10_000
CONFIG_TEMPLATE = """\
# A first configuration for vmcp-actors. `vmcp-actors validate --config vmcp.yaml` checks it.
name: my-vmcp
backends:
  # A child process: started for each session, ended with it.
  - name: time
    transport: stdio
    command: mcp-server-time
    args: []
  # An MCP server over HTTP:
  # - name: docs
  #   transport: streamable-http
  #   url: https://example.com/mcp
aggregation:
  conflictResolution: prefix
"""

out = Console()
err = Console(stderr=True)

config_option = click.option(
    "--config", "config_path", type=click.Path(path_type=Path), envvar="VMCP_CONFIG", help="The configuration file."
)


def _not_empty(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """An empty host would mean all addresses of the machine, which nobody means by an unset shell variable."""
    if value is not None and not value.strip():
        raise click.BadParameter("must not be empty")
    return value


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vmcp-actors")
@click.option("-v", "--verbose", count=True, help="Say more: -v what happens, -vv everything.")
def main(verbose: int) -> None:
    """One MCP endpoint in front of many MCP servers, with a session of its own for every client."""
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if err.is_terminal:
        handler = RichHandler(console=err, show_path=False, omit_repeated_times=False)
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", handlers=[handler])


@main.command()
@config_option
@click.option("--host", callback=_not_empty, help="Where to listen, instead of what the configuration says.")
@click.option("--port", type=click.IntRange(0, 65535), help="The port, instead of what the configuration says.")
@click.option("--http", type=click.Choice(["fast", "hypercorn"]), help="The HTTP server, likewise.")
def serve(
    config_path: Path | None, host: str | None, port: int | None, http: Literal["fast", "hypercorn"] | None
) -> None:
    """Serve the gateway until Ctrl-C or SIGTERM. Without a configuration: the demo backends.

    The configuration is read again when its file changes, and on SIGHUP.
    """

    def adjust(config: Config) -> Config:
        server = attrs.evolve(
            config.server,
            host=host if host is not None else config.server.host,
            port=port if port is not None else config.server.port,
            http=http if http is not None else config.server.http,
        )
        return attrs.evolve(config, server=server)

    config = _load(config_path) if config_path is not None else demo_config()
    _run(serve_gateway, adjust(config), err, path=config_path, adjust=adjust)


@main.command()
@click.option("--config", "config_path", type=click.Path(path_type=Path), required=True, envvar="VMCP_CONFIG")
def validate(config_path: Path) -> None:
    """Check a configuration file, and list all its problems. Exit 0 when there are none, else 1."""
    config = _load(config_path)
    for warning in config.warnings:
        err.print(f"warning: {warning}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    count = len(config.backends)
    text = f"{config_path} is valid: {count} backend{'s' if count != 1 else ''}"
    out.print(text, markup=False, highlight=False, soft_wrap=True)


@main.command()
@click.option("--from", "source", type=click.Path(path_type=Path), help="An mcpServers file to take the backends from.")
@click.option("--output", type=click.Path(path_type=Path), default=Path("vmcp.yaml"), show_default=True)
def init(source: Path | None, output: Path) -> None:
    """Write a first configuration. Never overwrites a file."""
    try:
        text = CONFIG_TEMPLATE
        if source is not None:
            text = import_client_config(source.read_text(encoding="utf-8-sig"), source.name)
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        _fail(f"{output} exists already; name another file with --output")
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}")
    except UnicodeDecodeError:
        _fail(f"{source}: not a text file")
    except ConfigError as error:
        _fail(*error.problems)
    out.print(f"wrote {output}", markup=False, highlight=False, soft_wrap=True)


@main.command()
@config_option
def tools(config_path: Path | None) -> None:
    """Connect to the backends and print their tools as clients see them. Exit 1 when a backend does not come up."""
    config = _load(config_path) if config_path is not None else demo_config()
    if not _run(print_tools, config, out, err):
        sys.exit(EXIT_FAILED)


@main.command()
@click.option("--url", default="http://127.0.0.1:4483", show_default=True, help="The gateway's address.")
def status(url: str) -> None:
    """Print the live tree of a running gateway: its sessions and their backend connections."""
    try:
        tree = show.status_tree(fetch_status(url))
    except (OSError, ValueError) as error:
        _fail(f"no status from {url}: {error}")
    console = out if out.is_terminal else Console(file=out.file, width=UNWRAPPED)
    console.print(tree)


def _load(path: Path) -> Config:
    try:
        return load_config(path)
    except ConfigError as error:
        _fail(*error.problems)


def _fail(*lines: str) -> NoReturn:
    for line in lines:
        err.print(f"error: {line}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(EXIT_FAILED)


def _run(main_function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Run a trio program; errors that a person can mend are printed without a traceback."""

    async def program() -> Any:
        return await main_function(*args, **options)

    try:
        return trio.run(program)
    except KeyboardInterrupt:
        sys.exit(130)
    except BaseException as error:
        cause = single_cause(error)
        if isinstance(cause, KeyboardInterrupt):
            sys.exit(130)
        if isinstance(cause, VmcpError | OSError):
            _fail(str(cause))
        raise
