"""Whatever clients send: one proper answer each, no exception, nothing left, and others are not disturbed."""

from __future__ import annotations

import json
import logging
import random
from collections import Counter
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from tests.server.harness import Client, Exchange, Served, served
from tests.sessions.harness import backend
from vmcp_actors.model import Era
from vmcp_actors.settings import ServerSettings, StatelessSettings

from .messages import body, headers, with_envelope_headers

CASES = 1500
MANY_CASES = 6000
BATCH = 250
ALLOWED = {200, 202, 204, 400, 403, 404, 405, 406, 413, 415, 421, 503}
METHODS = ["POST"] * 40 + ["GET", "DELETE", "PUT", "OPTIONS"]


class Errors(logging.Handler):
    """What the gateway logs as its own mistake."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage() + str(record.exc_info))


def check(exchange: Exchange, data: bytes) -> None:
    """One complete response, with a status that is documented; if it is an error, a proper one with the right id."""
    assert exchange.status in ALLOWED, (exchange.status, exchange.body)
    kind = exchange.headers.get("content-type", "")
    if exchange.status in (202, 204):
        assert exchange.body == b""
    elif kind == "text/event-stream":
        assert exchange.status == 200
        for message in exchange.messages:
            assert message["jsonrpc"] == "2.0"
    elif kind == "application/json":
        answer = exchange.json
        assert answer["jsonrpc"] == "2.0"
        assert ("result" in answer) != ("error" in answer)
        if "error" in answer:
            assert isinstance(answer["error"]["code"], int)
            assert isinstance(answer["error"]["message"], str)
            assert answer["error"]["message"]
        assert answer["id"] in (None, id_of(data))
    else:
        raise AssertionError(f"{exchange.status} with {kind!r}: {exchange.body!r}")


def id_of(data: bytes) -> Any:
    """The id of a request, as far as it can be read."""
    try:
        found = json.loads(data.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    return found.get("id") if isinstance(found, dict) else None


async def batch(seed: int, statuses: Counter[int]) -> None:
    rng = random.Random(seed)
    a = backend("a", eras=tuple(Era), resources=({"uri": "x://1", "name": "one"},), prompts=({"name": "p"},))
    a.capabilities |= {"resources": {"subscribe": True}, "prompts": {}, "completions": {}}
    mode = rng.choice(("auto", "lease", "off"))
    limits = {"max_sessions": 60, "max_per_client": 50}
    server = ServerSettings(max_body_bytes=200_000)
    async with served([a], server=server, stateless=StatelessSettings(mode), **limits) as gateway:
        healthy, victim = gateway.client(), gateway.client()
        await healthy.initialize()
        await victim.initialize(capabilities={"roots": {}})
        for _ in range(BATCH):
            method, data = rng.choice(METHODS), body(rng)
            chosen = with_envelope_headers(data, rng) | headers(rng, victim.session)
            await one(gateway, method, data, chosen, statuses, f"seed {seed}: {method} {data[:300]!r} {chosen}")
            if not any(session == victim.session for session in gateway.supervisor._live):
                await victim.initialize(capabilities={"roots": {}})
            if rng.random() < 0.05:
                assert (await healthy.tool("a_echo", text="still"))["content"][0]["text"] == "still"
        await trio.sleep(1)
        assert all(session.running_calls == 0 for session in gateway.supervisor.sessions())
        assert (await healthy.tool("a_count"))["content"][0]["text"] == "1"
        assert gateway.supervisor.statistics().crashes == 0
        await gateway.supervisor.drain(drain=0.0)
        assert gateway.supervisor.statistics().sessions == 0
        assert not a.sessions


async def one(
    gateway: Served, method: str, data: bytes, chosen: dict[str, str | None], statuses: Counter[int], case: str
) -> None:
    client = Client(gateway.app, gateway.nursery)
    fields = {name.replace("-", "_"): value for name, value in chosen.items()}
    exchange = client.begin(method, data, **fields)
    try:
        with trio.fail_after(200):
            while not exchange.finished:
                await trio.sleep(0.01)
                if exchange.headers.get("content-type") == "text/event-stream" and (
                    method == "GET" or not exchange.finished
                ):
                    await trio.sleep(20)
                    exchange.hang_up.set()
                    break
        check(exchange, data)
    except BaseException as error:
        error.add_note(case)
        raise
    statuses[exchange.status] += 1


def run(seeds: range) -> Counter[int]:
    errors = Errors()
    logger = logging.getLogger("vmcp_actors")
    logger.addHandler(errors)
    statuses: Counter[int] = Counter()
    try:
        for seed in seeds:
            trio.run(batch, seed, statuses, clock=MockClock(autojump_threshold=0))
            assert errors.messages == [], f"seed {seed}"
    finally:
        logger.removeHandler(errors)
    return statuses


def test_every_message_gets_one_proper_answer() -> None:
    statuses = run(range(CASES // BATCH))
    assert statuses.total() == CASES
    assert {200, 202, 400, 404, 405, 406, 415} <= statuses.keys(), "the fuzzer does not get far enough"


@pytest.mark.slow
def test_every_one_of_many_messages_gets_one_proper_answer() -> None:
    assert run(range(1000, 1000 + MANY_CASES // BATCH)).total() == MANY_CASES
