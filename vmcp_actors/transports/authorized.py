"""HTTP requests with credentials that may be rejected, and renewed (mission S9)."""

from __future__ import annotations

import logging
from typing import Final

import trio

from ..errors import BackendUnauthorized, CredentialsUnavailable
from ..model import Authorizer, Credential
from .headers import Headers, with_headers
from .http1 import Response
from .pool import HttpPool, PoolStatistics

logger = logging.getLogger(__name__)

DELAYS: Final = (0.1, 0.2, 0.4)
"""Seconds before each new try with new credentials."""


class AuthorizedPool:
    """A pool whose requests carry the credentials of an `Authorizer`.

    A request that is rejected with 401 or 403 was not run. If the authorizer has other credentials then, it is sent
    again with them, at most three times; otherwise the rejection is the response.
    """

    def __init__(self, pool: HttpPool, backend: str, authorizer: Authorizer) -> None:
        self._pool = pool
        self._backend = backend
        self._authorizer = authorizer

    async def request(self, method: str, target: str, headers: Headers, body: bytes | None = None) -> Response:
        """As `HttpPool.request`. Raises `BackendUnauthorized` when there are no credentials; nothing was sent then."""
        for delay in DELAYS:
            credential = await self._credential()
            response = await self._send(credential, method, target, headers, body)
            if response.status not in (401, 403) or not await self._renewed(credential, response):
                return response
            response.close()
            await trio.sleep(delay)
        return await self._send(await self._credential(), method, target, headers, body)

    async def _credential(self) -> Credential:
        try:
            return await self._authorizer.authorize()
        except CredentialsUnavailable as error:
            raise BackendUnauthorized(self._backend, f"no credentials: {error.message}") from error

    async def _send(
        self, credential: Credential, method: str, target: str, headers: Headers, body: bytes | None
    ) -> Response:
        revealed = {name: value.reveal() for name, value in credential.headers.items()}
        return await self._pool.request(method, target, with_headers(headers, revealed), body)

    async def _renewed(self, rejected: Credential, response: Response) -> bool:
        """Whether there is another credential now. The response is closed if this is cancelled."""
        try:
            return await self._authorizer.renew(rejected)
        except CredentialsUnavailable as error:
            logger.warning("backend %s: its credentials cannot be renewed: %s", self._backend, error)
            return False
        except BaseException:
            response.close()
            raise

    def statistics(self) -> PoolStatistics:
        """Those of the pool."""
        return self._pool.statistics()

    def __repr__(self) -> str:
        return f"<AuthorizedPool {self._pool!r}>"
