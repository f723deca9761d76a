"""Other gateways are described by files, and leave nothing when they end."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.request import urlopen

import pytest

from benchmarks.candidates import open_world
from benchmarks.peers import BadAdapter, available, load_peers, missing

GOOD = 'name = "one"\nversion = "1"\ncommand = ["one", "{port}"]\n'


def test_the_files_that_come_with_it_describe_gateways() -> None:
    peers = {peer.name: peer for peer in load_peers()}
    assert {"client-per-call", "fastmcp-proxy", "fastmcp-stateful", "mcp-proxy", "supergateway"} <= set(peers)
    assert all("==" in package for peer in peers.values() for package in peer.install.pip)
    assert peers["supergateway"].address(7) == "http://127.0.0.1:7/mcp"


def test_what_is_not_installed_is_missing_with_a_reason(tmp_path: Path) -> None:
    names = {peer.name for peer in available()}
    assert names.isdisjoint(missing())
    assert names | set(missing()) == {peer.name for peer in load_peers()}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + 'colour = "red"', "colour"),
        (GOOD.replace("1", "{1}", 0) + "modes = ['modern']", r"modes\[\.\.\.\]|modes"),
        ('name = "one"\nversion = "1"', "command"),
        (GOOD.replace("{port}", "{prot}"), r"\{prot\}, which stands for nothing"),
        (GOOD + "[install]\nconda = ['x']", "conda"),
        ("name = ", "Invalid value"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_the_key(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(BadAdapter, match=f"^bad.toml: .*({message})"):
        load_peers(tmp_path)


async def test_a_client_per_call_means_a_session_per_call() -> None:
    (peer,) = (peer for peer in available() if peer.name == "client-per-call")
    async with open_world() as world:
        echo = await world.backend()
        running = await world.peer(peer, echo.url)
        generator = await world.generator(running, tool=peer.tool)
        before = _initialized(echo.url)
        await generator.call(10)
        assert _initialized(echo.url) - before == 10
    assert not Path(f"/proc/{running.pid}").exists()


def _initialized(url: str) -> int:
    with urlopen(url.replace("/mcp", "/counts")) as response:
        counts = json.loads(response.read())
    return int(counts.get("initialize", 0))
