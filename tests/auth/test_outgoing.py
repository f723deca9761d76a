"""Credentials towards backends: fetched once however many ask, renewed before they end and when they are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from vmcp_actors.auth import HeadersFrom, HeaderSource, RenewingAuthorizer
from vmcp_actors.errors import BackendUnauthorized, CredentialsUnavailable
from vmcp_actors.model import Credential, Secret
from vmcp_actors.transports.authorized import AuthorizedPool
from vmcp_actors.transports.origin import Origin
from vmcp_actors.transports.pool import HttpPool


class Issuer:
    """Gives a new token each time, good for so long; or fails."""

    def __init__(self, lifetime: float | None = None) -> None:
        self.lifetime = lifetime
        self.given = 0
        self.good: set[str] = set()
        self.broken = False

    async def __call__(self) -> Credential:
        await trio.sleep(1)
        if self.broken:
            raise CredentialsUnavailable("the issuer is down")
        self.given += 1
        self.good = {f"token-{self.given}"}
        expires = trio.current_time() + self.lifetime if self.lifetime is not None else None
        return Credential({"Authorization": Secret(f"token-{self.given}")}, expires)


def token(credential: Credential) -> str:
    return credential.headers["Authorization"].reveal()


async def test_many_that_need_a_credential_cause_one_fetch(autojump_clock: MockClock) -> None:
    issuer = Issuer()
    authorizer = RenewingAuthorizer(issuer)
    found: list[str] = []

    async def ask() -> None:
        found.append(token(await authorizer.authorize()))

    for _ in range(2):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(ask)
    assert found == ["token-1"] * 40
    assert issuer.given == 1


async def test_many_that_are_refused_cause_one_renewal(autojump_clock: MockClock) -> None:
    """Also those that hear of it only after the renewal."""
    issuer = Issuer()
    authorizer = RenewingAuthorizer(issuer)
    first = await authorizer.authorize()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(authorizer.renew, first)
    assert await authorizer.renew(first)
    assert issuer.given == 2
    assert token(await authorizer.authorize()) == "token-2"


async def test_a_credential_is_renewed_before_it_ends(autojump_clock: MockClock) -> None:
    authorizer = RenewingAuthorizer(Issuer(lifetime=100.0))
    assert token(await authorizer.authorize()) == "token-1"
    await trio.sleep(69)
    assert token(await authorizer.authorize()) == "token-1"
    await trio.sleep(2)
    assert token(await authorizer.authorize()) == "token-2"


async def test_who_is_cancelled_while_fetching_leaves_it_to_the_others(autojump_clock: MockClock) -> None:
    authorizer = RenewingAuthorizer(Issuer())
    found: list[str] = []

    async def ask(scope: trio.CancelScope) -> None:
        with scope:
            found.append(token(await authorizer.authorize()))

    async with trio.open_nursery() as nursery:
        first = trio.CancelScope()
        nursery.start_soon(ask, first)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(ask, trio.CancelScope())
        await trio.sleep(0.5)
        first.cancel()
    assert found == ["token-1"]


async def test_a_fetch_that_fails_is_tried_again_by_the_next(autojump_clock: MockClock) -> None:
    issuer = Issuer()
    authorizer = RenewingAuthorizer(issuer)
    issuer.broken = True
    for _ in range(2):
        with pytest.raises(CredentialsUnavailable, match="the issuer is down"):
            await authorizer.authorize()
    issuer.broken = False
    assert token(await authorizer.authorize()) == "token-1"


async def test_headers_come_from_files_and_variables_as_they_are_now(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "token"
    path.write_text(" one\n")
    monkeypatch.setenv("SOME_KEY", "k")
    authorizer = RenewingAuthorizer(HeadersFrom({"A": HeaderSource(file=str(path)), "B": HeaderSource("SOME_KEY")}))
    first = await authorizer.authorize()
    assert {name: value.reveal() for name, value in first.headers.items()} == {"A": "one", "B": "k"}
    assert not await authorizer.renew(first)
    path.write_text("two")
    assert await authorizer.renew(await authorizer.authorize())
    assert (await authorizer.authorize()).headers["A"].reveal() == "two"
    assert "two" not in repr(await authorizer.authorize())


@pytest.mark.parametrize("content", [None, b"", b" \n", b"a\nb", b"\xff", "ü".encode()])
async def test_a_file_that_holds_no_header_is_named(
    autojump_clock: MockClock, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CredentialsUnavailable, match=str(path)):
        await HeadersFrom({"A": HeaderSource(file=str(path))})()


# --- over HTTP --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def guarded(issuer: Issuer) -> AsyncIterator[tuple[AuthorizedPool, list[str]]]:
    """A pool to a server that takes what the issuer calls good, and the tokens that it has seen."""
    seen: list[str] = []
    async with trio.open_nursery() as nursery:

        async def serve(stream: Any) -> None:
            while request := await stream.receive_some():
                given = request.decode().lower().partition("authorization: ")[2].partition("\r\n")[0]
                seen.append(given)
                status = 200 if given in issuer.good else 401
                await stream.send_all(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n".encode())

        async def connect() -> trio.abc.Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            nursery.start_soon(serve, theirs)
            return ours

        async with HttpPool(Origin("http", "b.test", 80), connect=connect) as pool:
            yield AuthorizedPool(pool, "b", RenewingAuthorizer(issuer)), seen
        nursery.cancel_scope.cancel()


async def status_of(pool: AuthorizedPool) -> int:
    response = await pool.request("POST", "/mcp", [], b"{}")
    await response.read(100)
    return response.status


async def test_a_refused_request_is_sent_again_with_new_credentials(autojump_clock: MockClock) -> None:
    issuer = Issuer()
    async with guarded(issuer) as (pool, seen):
        assert await status_of(pool) == 200
        issuer.good = set()
        assert await status_of(pool) == 200
        assert seen == ["token-1", "token-1", "token-2"]
        assert pool.statistics().active == 0


async def test_after_three_new_tries_the_refusal_is_the_answer(autojump_clock: MockClock) -> None:
    class Refused(Issuer):
        async def __call__(self) -> Credential:
            credential = await super().__call__()
            self.good = set()
            return credential

    issuer = Refused()
    async with guarded(issuer) as (pool, seen):
        began = trio.current_time()
        assert await status_of(pool) == 401
        assert seen == ["token-1", "token-2", "token-3", "token-4"]
        assert trio.current_time() - began == pytest.approx(4 + 0.1 + 0.2 + 0.4)


async def test_without_other_credentials_it_is_not_tried_again(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "wrong")
    issuer = Issuer()
    async with guarded(issuer) as (pool, seen):
        fixed = AuthorizedPool(
            pool._pool, "b", RenewingAuthorizer(HeadersFrom({"Authorization": HeaderSource("SOME_KEY")}))
        )
        assert await status_of(fixed) == 401
        assert seen == ["wrong"]


async def test_without_any_credentials_nothing_is_sent(autojump_clock: MockClock) -> None:
    issuer = Issuer()
    issuer.broken = True
    async with guarded(issuer) as (pool, seen):
        with pytest.raises(BackendUnauthorized, match="backend b: no credentials: the issuer is down"):
            await status_of(pool)
        assert seen == []
