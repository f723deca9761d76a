"""Clients that do what clients do: well-behaved ones, impatient ones, some that vanish, some that do not read."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import trio

from vmcp_actors.transports.http1_messages import HttpError
from vmcp_actors.transports.origin import parse_url
from vmcp_actors.transports.pool import HttpPool
from vmcp_actors.wire.stateless import Envelope, mirrored_headers, stamped

HEADERS = [(b"content-type", b"application/json"), (b"accept", b"application/json, text/event-stream")]
_HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "soak", "version": "1"}}
INITIALIZE = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": _HELLO}).encode()
MAX_BYTES = 1 << 24
ANSWER_WITHIN = 60.0
"""Seconds within which everything must be answered, whatever the backends do."""
REFUSALS = frozenset({400, 404, 429, 503})
"""Statuses that the gateway may answer with while things go wrong; 500 would be a bug."""
CALLS = ("a_count", "a_sleep", "a_big", "b_count", "b_sleep", "b_fail", "n_notes", "nobody")
STATELESS = Envelope("2026-07-28", {}, {"name": "soak", "version": "1"}, None)


class Traffic:
    """Many workers, and what came of all that they did.

    Attributes:
        outcomes: how often what came of an operation.
        wrong: what should not have happened, in words.
    """

    def __init__(self, url: str, seed: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.stopping = False
        self._origin, self._target = parse_url(url)
        self._random = random.Random(seed)
        self._nonce = 0

    @property
    def operations(self) -> int:
        """How much was done so far."""
        return self.outcomes.total()

    async def run(self, workers: int) -> None:
        """Work until `stopping`; returns when the last worker is done with what it has begun."""
        kinds = (self._stateful, self._stateful, self._stateful, self._stateless, self._unread)
        async with trio.open_nursery() as nursery:
            for number in range(workers):
                nursery.start_soon(self._work, kinds[number % len(kinds)])

    async def _work(self, live: Any) -> None:
        while not self.stopping:
            async with HttpPool(self._origin, connect_timeout=30) as pool:
                try:
                    await live(pool)
                except HttpError as error:
                    self._is_wrong(f"the gateway broke a connection: {error!r}")
                    await trio.sleep(0.1)

    def _is_wrong(self, what: str) -> None:
        self.outcomes["wrong"] += 1
        self.wrong.append(what)

    # --- kinds of clients ---------------------------------------------------------------------------------------------

    async def _stateful(self, pool: HttpPool) -> None:
        """A session with some calls in it, perhaps a GET stream, and an orderly end, mostly."""
        response = await pool.request("POST", self._target, HEADERS, INITIALIZE)
        await response.read(MAX_BYTES)
        self.outcomes[f"initialize {response.status}"] += 1
        if response.status != 200:
            await trio.sleep(self._random.uniform(0.1, 0.5))
            return
        headers = [*HEADERS, (b"mcp-session-id", response.headers["mcp-session-id"].encode())]
        stream = await pool.request("GET", self._target, headers) if self._random.random() < 0.5 else None
        for _ in range(self._random.randint(1, 30)):
            if self.stopping:
                break
            await self._call(pool, headers, stateless=False)
        if stream is not None:
            stream.close()
        if self._random.random() < 0.8 or self.stopping:
            response = await pool.request("DELETE", self._target, headers)
            await response.read(MAX_BYTES)
            self.outcomes[f"delete {response.status}"] += 1
        else:
            self.outcomes["vanished"] += 1

    async def _stateless(self, pool: HttpPool) -> None:
        for _ in range(self._random.randint(1, 30)):
            if not self.stopping:
                await self._call(pool, HEADERS, stateless=True)

    async def _unread(self, _pool: HttpPool) -> None:
        """Asks for a lot and reads nothing of it."""
        host, port = self._origin.host, self._origin.port
        stream = await trio.open_tcp_stream(host, port)
        async with stream:
            head = f"POST {self._target} HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-length: {len(INITIALIZE)}\r\n"
            fields = "".join(f"{name.decode()}: {value.decode()}\r\n" for name, value in HEADERS)
            with trio.move_on_after(self._random.uniform(0.5, 3.0)):
                for _ in range(5):
                    await stream.send_all((head + fields + "\r\n").encode() + INITIALIZE)
                await trio.sleep_forever()
        self.outcomes["unread"] += 1

    # --- calls --------------------------------------------------------------------------------------------------------

    async def _call(self, pool: HttpPool, headers: list[tuple[bytes, bytes]], *, stateless: bool) -> None:
        self._nonce += 1
        nonce, name = self._nonce, self._random.choice(CALLS)
        arguments: dict[str, Any] = {"nonce": nonce, "seconds": self._random.choice((0.01, 0.1, 0.5))}
        params: dict[str, Any] = {"name": name, "arguments": arguments}
        if stateless:
            params = stamped(params, STATELESS)
            mirrored = mirrored_headers("tools/call", params).items()
            headers = [*headers, *((key.encode(), value.encode()) for key, value in mirrored)]
        body = json.dumps({"jsonrpc": "2.0", "id": nonce, "method": "tools/call", "params": params}).encode()
        patience = self._random.choice((ANSWER_WITHIN, ANSWER_WITHIN, ANSWER_WITHIN, 0.05))
        with trio.move_on_after(patience) as waiting:
            response = await pool.request("POST", self._target, headers, body)
            data = await response.read(MAX_BYTES)
        if waiting.cancelled_caught:
            if patience < ANSWER_WITHIN:
                self.outcomes["abandoned"] += 1
            else:
                self._is_wrong(f"{name} was not answered within {patience:g} s")
            return
        self._judge(name, nonce, response.status, response.headers.get("content-type", ""), data)

    def _judge(self, name: str, nonce: int, status: int, content_type: str, data: bytes) -> None:
        if status != 200:
            self.outcomes[f"{name} HTTP {status}"] += 1
            if status not in REFUSALS:
                self._is_wrong(f"{name} got HTTP {status}: {data[:200]!r}")
            return
        messages = _events(data) if content_type.startswith("text/event-stream") else [json.loads(data)]
        answers = [message for message in messages if message.get("id") == nonce]
        if len(answers) != 1:
            self._is_wrong(f"{name} got {len(answers)} answers: {data[:200]!r}")
        elif "error" in answers[0]:
            self.outcomes[f"{name} error {answers[0]['error']['code']}"] += 1
        else:
            self.outcomes[f"{name} ok"] += 1
            text = answers[0]["result"]["content"][0]["text"]
            if name.endswith(("_count", "_sleep")) and not text.startswith(f"{nonce} "):
                self._is_wrong(f"{name} got the result of another call: {text!r} for {nonce}")


def _events(data: bytes) -> list[dict[str, Any]]:
    lines = (line.removeprefix(b"data:").strip() for line in data.splitlines() if line.startswith(b"data:"))
    return [json.loads(line) for line in lines if line]
