"""Sessions: the domain object, the actors behind it, the factory that makes it and the supervisor that owns it."""

from .backend import REINITIALIZED, BackendConnection, ConnectionState, ConnectionStatistics
from .factory import SessionFactory, new_session_id
from .session import Session, SessionStatistics
from .supervisor import SessionSupervisor, SupervisorStatistics, open_supervisor

__all__ = [
    "REINITIALIZED",
    "BackendConnection",
    "ConnectionState",
    "ConnectionStatistics",
    "Session",
    "SessionFactory",
    "SessionStatistics",
    "SessionSupervisor",
    "SupervisorStatistics",
    "new_session_id",
    "open_supervisor",
]
