"""A stdio MCP server that starts in a moment: for many sessions. Standard library only."""

from __future__ import annotations

import json
import sys

ANSWERS = {
    "initialize": {
        "protocolVersion": "2025-11-25",
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "child", "version": "1"},
    },
    "tools/list": {"tools": [{"name": "notes", "inputSchema": {"type": "object"}}]},
    "tools/call": {"content": [{"type": "text", "text": "noted"}]},
    "ping": {},
}

for line in sys.stdin:
    message = json.loads(line)
    if "id" in message and "method" in message:
        answer = {"jsonrpc": "2.0", "id": message["id"], "result": ANSWERS[message["method"]]}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
