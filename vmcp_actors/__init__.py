"""A Virtual MCP server on trio: one MCP endpoint, and a task per client session that owns its backend connections.

General layout
--------------
Higher layers may import lower ones, never the other way round; modules on one line do not import each other.
import-linter checks this in `make test` (the contract is in pyproject.toml):

    cli · asgi                           the programs
    collecting · serving · reloading     garbage collection; what hypercorn must be kept from; a changed config file
    gateway · testing                    the composition root; in-memory doubles for embedders' tests
    server · config                      the HTTP edge; the configuration file
    sessions                             Session, SessionFactory, SessionSupervisor, BackendConnection
    health                               how the backends are; the circuit breaker
    transports · auth · store · routing  towards the backends; credentials; session metadata; the routing table (pure)
    actors · wire · settings             actors on trio (no MCP in them); JSON-RPC and SSE framing; settings classes
    model · errors                       the words of the domain; the one tree of errors

`demo` stands apart: its modules are backends of their own, run as child processes.

What travels upwards travels through protocols and plain callbacks that the upper layer passes in. `docs/explain`
has the reasons: architecture.md (the tree), runtime-semantics.md (what actors promise), decisions.md.
"""

__version__ = "0.1.0"
