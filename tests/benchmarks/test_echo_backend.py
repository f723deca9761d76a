"""The echo backends answer in both kinds of revisions, and count what they were asked."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from benchmarks.echo_answers import answer, decode
from benchmarks.generator import LoadFailed, load
from benchmarks.proc import cpu_seconds, family_of, peak_bytes, resident_bytes
from benchmarks.processes import Running, backend, counts, reset_counts, server


@asynccontextmanager
async def echo(*options: str) -> AsyncIterator[Running]:
    async with server(backend(*options)) as running:
        yield running


def asked(method: str, params: dict[str, Any] | None = None, *, stateless: bool = False) -> dict[str, Any]:
    message = {"jsonrpc": "2.0", "id": "seven", "method": method, "params": params or {}}
    answered = json.loads(answer(decode(json.dumps(message).encode()), size=10, stateless=stateless))
    assert answered["id"] == "seven"
    return dict(answered)


def test_a_stateful_backend_is_initialized_and_does_not_know_the_other_kind() -> None:
    assert asked("initialize")["result"]["protocolVersion"] == "2025-11-25"
    assert asked("server/discover")["error"]["code"] == -32601


def test_a_stateless_backend_is_discovered_and_refuses_to_initialize() -> None:
    assert asked("server/discover", stateless=True)["result"]["supportedVersions"] == ["2026-07-28"]
    assert asked("initialize", stateless=True)["error"]["code"] == -32022


@pytest.mark.parametrize("method", ["tools/list", "tools/call", "server/discover"])
def test_results_of_a_stateless_backend_say_that_they_are_complete(method: str) -> None:
    assert asked(method, stateless=True)["result"]["resultType"] == "complete"


def test_a_call_may_say_how_large_its_result_is() -> None:
    params = {"name": "echo", "arguments": {"bytes": 1234}}

    assert len(asked("tools/call", params)["result"]["content"][0]["text"]) == 1234
    assert len(asked("tools/call", {"name": "echo"})["result"]["content"][0]["text"]) == 10


@pytest.mark.parametrize(
    ("options", "mode", "handshake"),
    [
        ((), "legacy", "initialize"),
        (("--sse",), "legacy", "initialize"),
        ((), "auto", "initialize"),
        (("--stateless",), "auto", "server/discover"),
        (("--stateless", "--sse"), "auto", "server/discover"),
    ],
)
async def test_the_load_generator_and_the_backend_understand_each_other(
    options: tuple[str, ...], mode: str, handshake: str
) -> None:
    async with echo(*options) as running, load(running, mode=mode, sessions=2) as generator:
        await generator.start()
        outcome = await generator.call(10, watch=running)
        await generator.end()
        counted = await counts(running)

    assert len(outcome.latencies) == 10
    assert outcome.cpu > 0
    assert counted["tools/call"] == 10
    assert counted[handshake] == 2
    assert counted.get("HTTP DELETE", 0) == (2 if handshake == "initialize" else 0)


async def test_counts_begin_anew_when_they_are_reset() -> None:
    async with echo() as running, load(running) as generator:
        await generator.start()
        await reset_counts(running)
        await generator.call(3)
        counted = await counts(running)

    assert counted == {"HTTP POST": 3, "tools/call": 3, "connections": 1}


async def test_a_delayed_backend_takes_its_time() -> None:
    async with echo("--delay", "0.05") as running, load(running) as generator:
        started = await generator.start()
        called = await generator.call(1)

    assert min(*started.latencies, *called.latencies) >= 0.05


async def test_a_flood_ends_with_its_answer() -> None:
    async with echo() as running, load(running, tool="flood", arguments={"seconds": 0.05}) as generator:
        await generator.start()
        outcome = await generator.call(1)

    assert outcome.latencies[0] >= 0.05


async def test_a_client_that_is_not_answered_rightly_fails_loudly() -> None:
    async with echo("--stateless") as running, load(running, mode="legacy") as generator:
        with pytest.raises(LoadFailed, match="-32022"):
            await generator.start()


async def test_calls_without_end_are_ended_by_the_next_step() -> None:
    async with echo() as running, load(running) as generator:
        await generator.start()
        await generator.begin_calling(pause=0.001)
        outcome = await generator.stop_calling()
        again = await generator.call(2)

    assert outcome.errors == 0
    assert len(again.latencies) == 2


async def test_nothing_of_a_server_is_left_when_its_body_has_ended() -> None:
    async with echo() as running:
        assert list(family_of(running.pid)) == [running.pid]
        assert 0 < resident_bytes(running.pid) <= peak_bytes(running.pid)

    assert cpu_seconds(running.pid) == 0.0


def test_the_stdio_backend_answers_requests_and_no_notifications() -> None:
    messages = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "echo", "arguments": {"bytes": 5}}},
    ]
    lines = "\n".join(json.dumps(message) for message in messages).encode()

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.stdio_backend"], input=lines, capture_output=True, check=True, timeout=30
    )

    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answered["id"] for answered in answers] == [1, 2]
    assert answers[1]["result"]["content"][0]["text"] == "xxxxx"
