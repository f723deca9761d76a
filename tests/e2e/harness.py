"""Real gateways as processes, and what is left of them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio
from attrs import define, field

ROOT = Path(__file__).parent.parent.parent
TOOLS = ROOT / ".tools"
BIN = Path(sys.executable).parent
HTTP = os.environ.get("VMCP_TEST_HTTP", "fast")
"""The HTTP server in front, where a test does not choose one: `make test-all` runs all of them over both."""
URL = re.compile(r"(https?://[\d.\[\]:a-f]+)(/\w+)?")


@define
class GatewayProcess:
    """A gateway under a real server."""

    process: trio.Process
    origin: str = ""
    log: list[str] = field(factory=list)

    @property
    def url(self) -> str:
        return f"{self.origin}/mcp"

    @property
    def port(self) -> int:
        return int(self.origin.rpartition(":")[2])

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def wait(self, seconds: float) -> int:
        """The exit status; fails the test when it does not come in time."""
        with trio.fail_after(seconds):
            return await self.process.wait()

    async def stop(self) -> int:
        """End it as an operator would."""
        self.signal(signal.SIGTERM)
        return await self.wait(30)


def hypercorn_command() -> list[str]:
    """How a user runs it under hypercorn."""
    return [str(BIN / "hypercorn"), "-k", "trio", "--bind", "127.0.0.1:0", "vmcp_actors.asgi:app"]


@asynccontextmanager
async def gateway(
    config: Path | None = None,
    *arguments: str,
    command: list[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[GatewayProcess]:
    """Serve a configuration, on a free port; at the end nothing of it may be left."""
    env = {**os.environ, **(environment or {})}
    if command is None:
        command = [str(BIN / "vmcp-actors"), "-v", "serve", "--port", "0", "--http", HTTP, *arguments]
        if config is not None:
            command += ["--config", str(config)]
    elif config is not None:
        env["VMCP_CONFIG"] = str(config)
    process = await trio.lowlevel.open_process(command, stderr=subprocess.PIPE, env=env, start_new_session=True)
    served = GatewayProcess(process)
    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(30):
                served.origin = await nursery.start(_read_log, served)
            yield served
            if process.returncode is None:
                await served.stop()
            nursery.cancel_scope.cancel()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            with trio.CancelScope(shield=True):
                await process.wait()


async def _read_log(served: GatewayProcess, *, task_status: trio.TaskStatus[str]) -> None:
    assert served.process.stderr is not None
    rest = ""
    async for chunk in served.process.stderr:
        *lines, rest = (rest + chunk.decode(errors="replace")).split("\n")
        for line in lines:
            served.log.append(line)
            match = URL.search(line)
            if match and not served.origin and (" at http" in line or "Running on" in line):
                served.origin = match[1]
                task_status.started(served.origin)


# --- what is left -----------------------------------------------------------------------------------------------------


def descendants(pid: int) -> dict[int, str]:
    """The living descendants of a process, with their command lines; zombies are not alive."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields is not None and fields[0] != "Z":
                parents[int(entry.name)] = int(fields[1])
    found: dict[int, str] = {}
    pending = [pid]
    while pending:
        parent = pending.pop()
        for child, its_parent in parents.items():
            if its_parent == parent:
                found[child] = _command_line(child)
                pending.append(child)
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    fields = _stat(pid)
    return fields is not None and fields[0] != "Z"


def processes_matching(text: str) -> dict[int, str]:
    """Living processes with this text in their command line, ours left out."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            fields, command = _stat(int(entry.name)), _command_line(int(entry.name))
            if fields is not None and fields[0] != "Z" and text in command:
                found[int(entry.name)] = command
    return found


def open_files(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def all_open_files(pid: int) -> int:
    """How many descriptors a process and its descendants have open: hypercorn serves in a worker."""
    total = open_files(pid)
    for child in descendants(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            total += open_files(child)
    return total


def resident_bytes(pid: int) -> int:
    """The resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


def _stat(pid: int) -> list[str] | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


async def until(condition: Any, seconds: float = 10.0) -> None:
    """Wait for something real to happen; fails the test when it does not."""
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.02)


def write_config(folder: Path, text: str) -> Path:
    """A configuration file."""
    path = folder / "vmcp.yaml"
    path.write_text(text)
    return path


def texts(result: Any) -> list[str]:
    """The texts of a tool result of the SDK's client."""
    return [part.text for part in result.content if part.type == "text"]


def lines_of(text: str) -> Iterator[str]:
    """The lines of a text that say something."""
    return (line for line in text.splitlines() if line.strip())
