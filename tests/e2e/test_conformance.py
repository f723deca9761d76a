"""The official conformance suite: what succeeds against a backend directly succeeds through us (mission P5)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from .harness import gateway, write_config
from .suite import client_leg, everything_over_http, everything_over_stdio, server_suite, without_prefix

pytestmark = pytest.mark.e2e

slow = pytest.mark.slow

STDIO_CANNOT: Final = {"server-sse-disconnect-resume"}
"""A backend on a pipe has no stream that it could break off, so nothing can be resumed."""


@pytest.mark.parametrize(("revision", "checks"), [("2025-11-25", 84), ("2026-07-28", 152)])
@pytest.mark.parametrize("transport", ["http", pytest.param("stdio", marks=slow)])
async def test_what_succeeds_direct_succeeds_through_the_gateway(
    revision: str, checks: int, transport: str, tmp_path: Path
) -> None:
    """Every check of the set for a revision, also those that are not scored."""
    async with everything_over_http() as url:
        direct = await server_suite(url, revision, tmp_path / "direct")
        backend = f"transport: streamable-http, url: '{url}'" if transport == "http" else everything_over_stdio()
        async with gateway(write_config(tmp_path, without_prefix(backend))) as served:
            through = await server_suite(served.url, revision, tmp_path / "through")

    assert direct.total() >= checks
    lost = sorted((direct - through).elements())
    impossible = STDIO_CANNOT if transport == "stdio" else set()
    assert [check for check in lost if check[1] not in impossible] == []


@pytest.mark.parametrize(
    ("scenario", "revision"),
    [
        pytest.param("initialize", "2025-11-25", marks=slow),
        pytest.param("tools_call", "2025-11-25", marks=slow),
        pytest.param("elicitation-sep1034-client-defaults", "2025-11-25", marks=slow),
        ("sse-retry", "2025-11-25"),
        pytest.param("json-schema-2020-12-preservation", "2025-11-25", marks=slow),
        pytest.param("tools_call", "2026-07-28", marks=slow),
        ("request-metadata", "2026-07-28"),
        ("sep-2322-client-request-state", "2026-07-28"),
        pytest.param("http-standard-headers", "2026-07-28", marks=slow),
        ("http-custom-headers", "2026-07-28"),
        pytest.param("http-invalid-tool-headers", "2026-07-28", marks=slow),
        pytest.param("json-schema-ref-no-deref", "2026-07-28", marks=slow),
        pytest.param("json-schema-2020-12-preservation", "2026-07-28", marks=slow),
    ],
)
async def test_the_gateway_is_as_good_a_client_as_the_sdk(scenario: str, revision: str, tmp_path: Path) -> None:
    """The suite's server is the backend, the SDK's client is the client: both sides are as without us."""
    direct = await client_leg(scenario, revision, tmp_path / "direct", through_gateway=False)
    through = await client_leg(scenario, revision, tmp_path / "through", through_gateway=True)
    assert direct.total() >= 1
    assert sorted(check[1] for check in (direct - through).elements()) == []
