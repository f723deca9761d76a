"""Backends for the end-to-end tests: scriptable MCP servers that count what they are asked."""
