"""What goes over the wires, without I/O: JSON-RPC messages, SSE framing, revision tables."""
