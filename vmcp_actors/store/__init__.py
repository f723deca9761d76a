"""Where the serializable layer of sessions lives (mission S14). Connections and tables are the runtime layer."""

from .base import SessionStore
from .local import MemoryStore

__all__ = ["MemoryStore", "SessionStore"]
