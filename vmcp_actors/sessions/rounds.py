"""A backend of the stateless revision that needs input, for a client of a stateful one: asked, and sent again.

MCP 2026-07-28, basic/patterns §Multi round-trip requests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import trio

from ..errors import BackendProtocolError, VmcpError
from ..model import AskClient, JsonObject
from ..wire.stateless import needs_input
from .backchannel import CLIENT_CAPABILITY, wait_or_give_up

MAX_ROUNDS: Final = 10
"""How often a backend may need more input for one request."""
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 0.25


class InputRounds:
    """Fulfils what a backend needs by asking the client, round by round, until the request has its result.

    Args:
        send: sends the request with these params to the same backend, and returns what it says.
        ask: asks the client.
        capabilities: what the client declared; it is asked nothing else.
        patience: seconds that the client has for the answers of one round.
    """

    def __init__(
        self,
        backend: str,
        *,
        send: Callable[[JsonObject], Awaitable[JsonObject]],
        ask: AskClient,
        capabilities: JsonObject,
        patience: float,
    ) -> None:
        self._backend = backend
        self._send = send
        self._ask = ask
        self._capabilities = capabilities
        self._patience = patience

    async def run(self, params: JsonObject, result: JsonObject) -> JsonObject:
        """The final result of the request with these params, of which `result` is the first.

        Each round sends the backend's own `requestState` back, exactly, under a new request id. Cancelling it gives up
        the questions that are still with the client.

        Raises:
            BackendProtocolError: it asks for something else than clients can be asked, or too often.
            ClientReplied, ClientUnreachable: the client refused, or cannot be asked.
            VmcpError: as `send`.
        """
        pause = _FIRST_PAUSE
        for _ in range(MAX_ROUNDS):
            if not needs_input(result):
                return result
            questions = self._questions(result)
            answers = await self._answers(questions)
            if questions:
                pause = _FIRST_PAUSE
            else:
                await trio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            result = await self._send(_next_round(params, answers, result))
        if needs_input(result):
            raise BackendProtocolError(self._backend, f"needed input more than {MAX_ROUNDS} times for one request")
        return result

    def _questions(self, result: JsonObject) -> dict[str, tuple[str, JsonObject]]:
        requests = result.get("inputRequests") or {}
        if not isinstance(requests, dict) or not (requests or "requestState" in result):
            raise BackendProtocolError(self._backend, "needs input, and does not say which")
        questions: dict[str, tuple[str, JsonObject]] = {}
        for key, request in requests.items():
            method = request.get("method") if isinstance(request, dict) else None
            params = request.get("params", {}) if isinstance(request, dict) else None
            if not isinstance(method, str) or method not in CLIENT_CAPABILITY or not isinstance(params, dict):
                raise BackendProtocolError(self._backend, f"needs {method!r}, which clients cannot be asked")
            if CLIENT_CAPABILITY[method] not in self._capabilities:
                raise BackendProtocolError(self._backend, f"needs {method}, which the client did not declare")
            questions[key] = (method, params)
        return questions

    async def _answers(self, questions: Mapping[str, tuple[str, JsonObject]]) -> JsonObject:
        """The client's answers to all of these, asked at the same time; its first error ends the others."""
        answers: JsonObject = {}
        failure: VmcpError | None = None

        async def ask(key: str, method: str, params: JsonObject) -> None:
            nonlocal failure
            try:
                answers[key] = await wait_or_give_up(self._ask(method, params))
            except VmcpError as error:
                failure = failure or error
                nursery.cancel_scope.cancel("the client gave no answer")

        with trio.move_on_after(self._patience) as patience:
            async with trio.open_nursery() as nursery:
                for key, (method, params) in questions.items():
                    nursery.start_soon(ask, key, method, params)
        if failure is not None:
            raise failure
        if patience.cancelled_caught:
            raise BackendProtocolError(self._backend, "needed input, which the client did not give in time")
        return answers


def _next_round(params: JsonObject, answers: JsonObject, result: Mapping[str, Any]) -> JsonObject:
    """The params of the next round: the first ones, with the answers, and with the state exactly as it came."""
    again = {key: value for key, value in params.items() if key not in ("inputResponses", "requestState")}
    if answers:
        again["inputResponses"] = answers
    if "requestState" in result:
        again["requestState"] = result["requestState"]
    return again
