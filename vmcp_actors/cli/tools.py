"""`vmcp-actors tools`: one session, for long enough to see what it offers."""

from __future__ import annotations

import attrs
import trio
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from ..config import Config
from ..gateway import open_gateway
from ..sessions import Session, SessionSupervisor
from .show import one_line


async def print_tools(config: Config, out: Console, err: Console) -> bool:
    """Connect to every backend, print the aggregated tools, and say what did not come up.

    Waits for the slowest backend, at most its own connect timeout. Returns whether every backend came up.
    """
    patience = max(spec.connect_timeout for spec in config.backends) + 1.0
    patient = attrs.evolve(config, sessions=attrs.evolve(config.sessions, ready_timeout=patience))
    async with open_gateway(patient) as gateway:
        session = await _start_with_progress(gateway.supervisor, config, err)
        _print(session, out)
        missing = [backend for backend in session.statistics().backends if backend.state != "ready"]
        for backend in missing:
            text = f"backend {backend.backend}: {backend.reason or 'not connected'}"
            err.print(one_line(text), style="red", markup=False, highlight=False, soft_wrap=True)
    return not missing


async def _start_with_progress(supervisor: SessionSupervisor, config: Config, err: Console) -> Session:
    names = ", ".join(spec.name for spec in config.backends)
    if not err.is_terminal:
        err.print(f"connecting {names}", highlight=False, markup=False, soft_wrap=True)
        return await supervisor.start_session()
    columns = (SpinnerColumn(), TextColumn("connecting {task.description}"))
    with Progress(*columns, console=err, transient=True, auto_refresh=False) as progress:
        progress.add_task(names, total=None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_refresh, progress)
            session = await supervisor.start_session()
            nursery.cancel_scope.cancel("connected")
    return session


async def _refresh(progress: Progress) -> None:
    while True:
        progress.refresh()
        await trio.sleep(0.1)


def _print(session: Session, out: Console) -> None:
    """A table for people; for programs a line for each tool: its name, a tab, the first line of its description."""
    rows = []
    for tool in session.tools:
        description = str(tool.get("description") or "").strip().partition("\n")[0]
        rows.append((one_line(str(tool["name"])), one_line(description)))
    if not out.is_terminal:
        out.file.writelines(f"{name}\t{description}\n" for name, description in rows)
        return
    table = Table("tool", "description")
    for name, description in rows:
        table.add_row(Text(name), Text(description))
    out.print(table)
