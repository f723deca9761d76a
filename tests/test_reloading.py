"""Following a configuration file, in virtual time: what is read when, and that no file can end the gateway."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from vmcp_actors import reloading
from vmcp_actors.config import load_config
from vmcp_actors.gateway import Gateway, open_gateway
from vmcp_actors.reloading import POLL_INTERVAL, ConfigFollower, following

ONE = "backends: [{name: a, transport: stdio, command: a}]\n"
TWO = "backends: [{name: a, transport: stdio, command: a}, {name: b, transport: stdio, command: b}]\n"


@asynccontextmanager
async def followed(path: Path) -> AsyncIterator[tuple[Gateway, ConfigFollower]]:
    path.write_text(ONE)
    async with open_gateway(load_config(path)) as gateway:
        follower = ConfigFollower(gateway, path)
        async with following(follower):
            yield gateway, follower


def names(gateway: Gateway) -> list[str]:
    return [spec.name for spec in gateway.supervisor.backends]


async def test_a_changed_file_is_read_once_it_no_longer_changes(tmp_path: Path) -> None:
    """In real time, since files are looked at in a thread."""
    path = tmp_path / "vmcp.yaml"
    async with followed(path) as (gateway, _):
        with trio.fail_after(20):
            path.write_text(TWO)
            while names(gateway) == ["a"]:
                await trio.sleep(POLL_INTERVAL / 10)
        assert names(gateway) == ["a", "b"]
        assert [spec.name for spec in gateway.config.backends] == ["a", "b"]


@pytest.mark.parametrize("text", ["", "]", "backends: []", ONE + "x: y", "\xff", "- a"])
async def test_a_file_that_cannot_be_used_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    path = tmp_path / "vmcp.yaml"
    async with followed(path) as (gateway, follower):
        before = gateway.config
        path.write_bytes(text.encode("latin-1"))
        assert not await follower.reload()
        assert gateway.config is before
        assert "was not reloaded, the configuration of before goes on" in caplog.text
        path.write_text(TWO)
        assert await follower.reload()
        assert names(gateway) == ["a", "b"]


async def test_a_file_that_is_gone_and_a_bug_in_reading_end_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "vmcp.yaml"

    def fails(_: object) -> None:
        raise LookupError("a bug")

    async with followed(path) as (gateway, follower):
        os.unlink(path)
        assert not await follower.reload()
        assert "cannot be read" in caplog.text
        monkeypatch.setattr(reloading, "load_config", fails)
        assert not await follower.reload()
        assert "failed unexpectedly" in caplog.text
        assert names(gateway) == ["a"]
        assert repr(follower) == f"<ConfigFollower of {path}>"


async def test_a_file_that_stays_the_same_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    autojump_clock.autojump_threshold = 0.05  # threads need real time
    reads: list[object] = []
    async with followed(tmp_path / "vmcp.yaml"):
        monkeypatch.setattr(reloading, "load_config", reads.append)
        await trio.sleep(5 * POLL_INTERVAL)
    assert reads == []
