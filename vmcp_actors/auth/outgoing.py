"""Credentials towards backends (mission S9, X3): one copy for all sessions, renewed by one at a time."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import trio
from attrs import frozen

from ..errors import CredentialsUnavailable
from ..model import Credential, Secret

SKEW: Final = 30.0
"""Seconds before its end from which on a credential is renewed."""

Fetch = Callable[[], Awaitable[Credential]]
"""Gets a credential from where it comes from. Raises `CredentialsUnavailable`."""


class RenewingAuthorizer:
    """The `Authorizer` for anything that can be fetched: kept until it is about to expire, or is rejected.

    However many requests need a new credential at the same time, it is fetched once.
    """

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._credential: Credential | None = None
        self._fetching: trio.Event | None = None
        self._fetches = 0

    def __eq__(self, other: object) -> bool:
        """Whether both get their credentials from the same place, so that a configuration read again is the same."""
        return isinstance(other, RenewingAuthorizer) and self._fetch == other._fetch

    __hash__ = None  # type: ignore[assignment]

    async def authorize(self) -> Credential:
        """The credential for a request now. Raises `CredentialsUnavailable`.

        Cancelling it does not hurt others that wait for the same fetch: one of them takes it over.
        """
        credential = self._credential
        if credential is not None and (
            credential.expires_at is None or credential.expires_at - SKEW > trio.current_time()
        ):
            return credential
        return await self._renewed(credential)

    async def renew(self, rejected: Credential) -> bool:
        """A backend has rejected this credential. Returns whether there is another one now.

        Raises `CredentialsUnavailable` when a new one cannot be had.
        """
        return (await self._renewed(rejected)).headers != rejected.headers

    async def _renewed(self, old: Credential | None) -> Credential:
        while self._credential is old or self._credential is None:
            if self._fetching is not None:
                await self._fetching.wait()
                continue
            self._fetching = trio.Event()
            try:
                self._fetches += 1
                self._credential = await self._fetch()
                return self._credential
            finally:
                self._fetching.set()
                self._fetching = None
        return self._credential

    def __repr__(self) -> str:
        return f"<RenewingAuthorizer: {'has' if self._credential else 'has no'} credential, {self._fetches} fetches>"


@frozen
class HeaderSource:
    """Where the value of a header is: in an environment variable, or in a file, as mounted secrets are."""

    variable: str | None = None
    file: str | None = None

    async def read(self) -> str:
        """The value as it is now; white space around it does not count. Raises `CredentialsUnavailable`."""
        if self.file is not None:
            try:
                value = (await trio.Path(self.file).read_text()).strip()
            except (OSError, UnicodeError) as error:
                raise CredentialsUnavailable(
                    f"{self.file} cannot be read: {getattr(error, 'strerror', None) or error}"
                ) from error
        else:
            value = os.environ.get(self.variable or "", "").strip()
        if not value or not (value.isascii() and value.isprintable()):
            raise CredentialsUnavailable(f"{self.file or self.variable} does not hold one line of ASCII text")
        return value


@frozen
class HeadersFrom:
    """Fetches headers whose values may change while the gateway runs."""

    sources: Mapping[str, HeaderSource]

    async def __call__(self) -> Credential:
        """The headers as they are now. Raises `CredentialsUnavailable`."""
        return Credential({name: Secret(await source.read()) for name, source in self.sources.items()})
