"""The configuration file: ToolHive's schema for static backends and ours, and the files of MCP clients.

`docs/reference/configuration.md` lists every key. In here: `documents` (text to plain values), `clients` (the files of
MCP clients), `toolhive` (keys of ToolHive's that nothing reads), `environment` (`${NAME}`), `schema`, `values` and
`converter` (plain values to classes), `checks` (between keys), `problems` (the lines that people read), and `load`.
"""

from .clients import import_client_config
from .documents import to_yaml
from .load import Config, backends_only, load_config, parse_config

__all__ = ["Config", "backends_only", "import_client_config", "load_config", "parse_config", "to_yaml"]
