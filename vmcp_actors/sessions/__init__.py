"""Sessions: the domain object, the actors behind it, the factory that makes it and the supervisor that owns it."""

from .backend import REINITIALIZED, BackendConnection
from .factory import NOT_RELAYED, SessionFactory, new_session_id
from .parking import InteractiveCall
from .router import LOG_LEVELS
from .session import Session, SessionStatistics
from .status import ConnectionState, ConnectionStatistics
from .supervisor import SessionSupervisor, SupervisorStatistics, open_supervisor

__all__ = [
    "LOG_LEVELS",
    "NOT_RELAYED",
    "REINITIALIZED",
    "BackendConnection",
    "ConnectionState",
    "ConnectionStatistics",
    "InteractiveCall",
    "Session",
    "SessionFactory",
    "SessionStatistics",
    "SessionSupervisor",
    "SupervisorStatistics",
    "new_session_id",
    "open_supervisor",
]
