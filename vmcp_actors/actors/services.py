"""A nursery whose tasks outlive the body that uses them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio


class ServiceNursery:
    """Starts services: tasks that are shielded from cancellation until the body of the nursery has ended."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._shields: set[trio.CancelScope] = set()
        self._released = False

    def start_soon(self, service: Callable[..., Awaitable[Any]], *args: object, name: object = None) -> None:
        """Run a service. If it raises, the body is cancelled, then the other services, then the nursery raises."""
        self._nursery.start_soon(self._shielded, service, args, name=name or service)

    async def start(self, service: Callable[..., Awaitable[Any]], *args: object, name: object = None) -> Any:
        """Run a service and wait until it calls `task_status.started()`; its value is returned.

        Until then the service is not shielded: cancelling the start cancels it.
        """
        return await self._nursery.start(self._shielded_when_started, service, args, name=name or service)

    async def _shielded(self, service: Callable[..., Awaitable[Any]], args: tuple[object, ...]) -> None:
        with trio.CancelScope(shield=not self._released) as shield:
            self._shields.add(shield)
            try:
                await service(*args)
            finally:
                self._shields.discard(shield)

    async def _shielded_when_started(
        self,
        service: Callable[..., Awaitable[Any]],
        args: tuple[object, ...],
        *,
        task_status: trio.TaskStatus[Any],
    ) -> None:
        with trio.CancelScope() as shield:
            try:
                await service(*args, task_status=_ShieldOnStart(self, shield, task_status))
            finally:
                self._shields.discard(shield)

    def _shield(self, scope: trio.CancelScope) -> None:
        scope.shield = not self._released
        self._shields.add(scope)

    def _release(self) -> None:
        self._released = True
        for shield in self._shields:
            shield.shield = False
        self._nursery.cancel_scope.cancel("the services are no longer needed")


class _ShieldOnStart:
    """A task status that shields the service from the moment it is started."""

    def __init__(self, services: ServiceNursery, scope: trio.CancelScope, inner: trio.TaskStatus[Any]) -> None:
        self._services = services
        self._scope = scope
        self._inner = inner

    def started(self, value: Any = None) -> None:
        # Of a start that is already cancelled trio keeps the service where it is: shielded there, nobody could end it.
        if trio.current_effective_deadline() > -math.inf:
            self._services._shield(self._scope)
        self._inner.started(value)


@asynccontextmanager
async def open_service_nursery() -> AsyncIterator[ServiceNursery]:
    """Open a nursery for services of the body: connections, pumps, writers.

    Ordering is the point: when the body ends, or is cancelled from above, the body ends first and the services are
    cancelled after it; in a plain nursery both end in random order.

    Exceptions: what the body or a service raises leaves as an exception group, as from any trio nursery. The first
    service that raises cancels the body.
    """
    async with trio.open_nursery() as nursery:
        services = ServiceNursery(nursery)
        try:
            yield services
        finally:
            services._release()
