"""What decorators see: requests and results with all that is in them, however they travel otherwise."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve, frozen

from ..model import Decorator, Handler, JsonObject, McpRequest
from ..wire.folding import unfolded


def decorated(handler: Handler, decorators: Sequence[Decorator]) -> Handler:
    """The handler inside these decorators, the last one outermost. Without any, payload is not even decoded."""
    if not decorators:
        return handler
    handler = UnfoldedResults(handler)
    for decorate in decorators:
        handler = decorate(handler)
    return UnfoldedRequests(handler)


@frozen
class UnfoldedRequests:
    """Hands on requests with all of their params decoded."""

    handler: Handler

    async def handle(self, request: McpRequest) -> JsonObject:
        """As the handler inside."""
        return await self.handler.handle(evolve(request, params=unfolded(request.params)))


@frozen
class UnfoldedResults:
    """Returns results with all that is in them decoded."""

    handler: Handler

    async def handle(self, request: McpRequest) -> JsonObject:
        """As the handler inside."""
        return unfolded(await self.handler.handle(request))
