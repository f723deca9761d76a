"""As `client_per_call`, with a client of the SDK for each call: `python -m benchmarks.peers.sdk_client_per_call`."""

from __future__ import annotations

import sys

import trio
from mcp.client import Client

from vmcp_actors.model import JsonObject
from vmcp_actors.wire.folding import unfolded

from .client_per_call import INITIALIZE, ClientPerCall, serve


class SdkClientPerCall(ClientPerCall):
    """Answers tool calls, which is all that is measured."""

    async def _ask(self, method: str, params: JsonObject) -> JsonObject:
        if method != "tools/call":
            return {**INITIALIZE, "capabilities": {"tools": {}}, "serverInfo": {"name": "sdk", "version": "1"}}
        async with Client(self.backend_url, mode="legacy") as client:
            wanted = unfolded(params)
            result = await client.call_tool(wanted["name"], wanted.get("arguments"))
        return result.model_dump(mode="json", by_alias=True, exclude_none=True)


if __name__ == "__main__":
    trio.run(serve, SdkClientPerCall(sys.argv[1]), int(sys.argv[2]))
