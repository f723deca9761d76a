"""Actors on trio. Knows no MCP: only trio, attrs and `vmcp_actors.errors`. See docs/explain/runtime-semantics.md."""

from .actor import Actor, ActorRef, ActorStatistics
from .mailbox import Call, Mailbox, MailboxStatistics, OnCallerExit, Reply
from .services import ServiceNursery, open_service_nursery
from .supervision import (
    Backoff,
    ChildSpec,
    ChildStatistics,
    Decision,
    ExitKind,
    ExitReason,
    Intensity,
    Restart,
    Supervisor,
    supervise,
)

__all__ = [
    "Actor",
    "ActorRef",
    "ActorStatistics",
    "Backoff",
    "Call",
    "ChildSpec",
    "ChildStatistics",
    "Decision",
    "ExitKind",
    "ExitReason",
    "Intensity",
    "Mailbox",
    "MailboxStatistics",
    "OnCallerExit",
    "Reply",
    "Restart",
    "ServiceNursery",
    "Supervisor",
    "open_service_nursery",
    "supervise",
]
