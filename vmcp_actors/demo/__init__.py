"""Two backends to try the gateway with: MCP servers over stdio, each a program of its own.

`python -m vmcp_actors.demo.notes` keeps notes with a transaction; `python -m vmcp_actors.demo.clock` tells the time and
takes its time. They know nothing of the gateway and nothing of the gateway knows them: it runs them as child processes.
"""
