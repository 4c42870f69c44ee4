"""Asking the authorization server about a token (RFC 7662).

Everything that is not a clear answer is `Unavailable`: an outage is never an answer about a token.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote_plus, urlsplit

from . import credentials
from .credentials import Credentials, CredentialsError
from .http1.client import Failure
from .http1.fetch import Fetch
from .http1.pool import Origin, Pool
from .http1.ticker import Ticker
from .introspection_response import learnt
from .policy import ClientAuthentication, Policy
from .question import Asker, Outcome, RefusedUs, Unavailable
from .trust import Trust

logger = logging.getLogger(__name__)

LARGEST_ANSWER: Final = 64 * 1024
"""Bytes. Real answers are below 4 KiB."""

PAUSE: Final = 0.05
"""Seconds before a failed connection is tried again, times the attempt: a restarting server needs a moment."""

_UNRESERVED: Final = re.compile(r"[A-Za-z0-9\-._~]*").fullmatch  # RFC 3986 section 2.3: they stand for themselves

# An answer that grows as it is unpacked has no bound: it is asked for as it is.
_HEAD: Final = (
    "POST {target} HTTP/1.1\r\nhost: {host}\r\nuser-agent: protectedservice-server\r\naccept: application/json\r\n"
    "accept-encoding: identity\r\ncontent-type: application/x-www-form-urlencoded\r\n"
)


class Introspection:
    """The client of one introspection endpoint. It connects at the first question; `close` it at the end.

    Credentials are read again at once when the server refuses them; if that brings others, the question is asked again.

    Raises:
        TrustError: on construction, when the policy's caFile cannot be used.
    """

    def __init__(self, policy: Policy, held: Credentials, reread: Callable[[], Credentials]) -> None:
        endpoint = policy.authorization_server.introspection_endpoint
        origin = Origin.of(endpoint)
        self._head = _HEAD.format(target=_target(endpoint), host=origin.authority.decode("ascii"))
        self._authentication = policy.authorization_server.client_authentication
        ca_file = policy.authorization_server.ca_file
        self._trust = Trust(Path(ca_file) if ca_file else None)
        self.retries = policy.validation.retries
        self._reread = reread
        self._origin = origin
        self._connect_seconds = policy.validation.timeout
        self._hold(held)
        self.restart()

    def restart(self) -> None:
        """Connect anew, without the connections of an event loop that has ended."""
        # The time is the verifier's to keep, and so is the number of calls under way.
        self.pool = Pool(self._origin, Ticker(), self._connect_seconds, context=self._trust.context)

    async def close(self) -> None:
        """Close the connections."""
        await self.pool.close()

    def __call__(self, token: str, asker: Asker) -> Asking:
        """Ask about `token`; `asker` is told what the server says (see `question.Introspect`)."""
        asking = Asking(self, token, asker)
        self.pool.begin(asking)
        return asking

    def fresh(self) -> Credentials:
        """The credentials as their files have them now; the old ones while the files cannot be used."""
        try:
            found = self._reread()
        except CredentialsError as error:
            for fault in error.faults:
                logger.warning("The credentials cannot be read again: %s", fault)
        else:
            if found != self.credentials:
                logger.info("Read changed credentials after the authorization server refused the old ones")
                self._hold(found)
        return self.credentials

    def _hold(self, held: Credentials) -> None:
        self.credentials = held
        authorization = ""
        self._rest = "&token_type_hint=access_token"
        match self._authentication:
            case ClientAuthentication.BASIC:
                authorization = f"authorization: {held.basic()}\r\n"
            case ClientAuthentication.POST:
                client_id, secret = quote_plus(held.client_id), quote_plus(held.client_secret)
                self._rest += f"&client_id={client_id}&client_secret={secret}"
        self._start = f"{self._head}{authorization}content-length: "

    def request(self, token: str) -> bytes:
        """The whole question as bytes (RFC 7662 section 2.1)."""
        form = f"token={token if _UNRESERVED(token) else quote_plus(token)}{self._rest}"
        return f"{self._start}{len(form)}\r\n\r\n{form}".encode("ascii")


class Asking(Fetch):
    """One question on its way: asked again after a lost connection, and with other credentials after a refusal."""

    largest = LARGEST_ANSWER
    _refused = False
    _attempts = 0
    _pause: asyncio.TimerHandle | None = None

    def __init__(self, introspection: Introspection, token: str, asker: Asker) -> None:
        self.head = introspection.request(token)
        self.pool = introspection.pool
        self._introspection = introspection
        self._token = token
        self._asker = asker
        self._used = introspection.credentials

    def give_up(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        super().give_up()

    def fetched(self) -> None:
        try:
            try:
                outcome: Outcome = learnt(self)
            except RefusedUs:
                if not self._use_others():
                    raise
                return
        except Unavailable as failure:
            # Its traceback knows this question; parted, both go without the garbage collector, and with them the token.
            outcome = failure.with_traceback(None)
        except Exception as bug:
            outcome = bug
        self._asker.told(outcome)

    def too_large(self) -> None:
        self._asker.told(Unavailable("too_large"))

    def failed(self, failure: Failure) -> None:
        if failure is Failure.CONNECTION and self._attempts < self._introspection.retries:
            self._attempts += 1
            self._pause = asyncio.get_running_loop().call_later(PAUSE * self._attempts, self._again)
            return
        self._asker.told(Unavailable("protocol" if failure is Failure.SLOW else failure.value))

    def _use_others(self) -> bool:
        """Ask once more where the credentials have changed; the same ones would be refused again."""
        introspection = self._introspection
        if self._refused or introspection.fresh() == self._used:
            return False
        self._refused, self._attempts = True, 0
        self.head = introspection.request(self._token)
        self.begin()
        return True

    def _again(self) -> None:
        self._pause = None
        try:
            self.begin()
        except Exception as bug:  # nobody above would tell it
            self._asker.told(bug)


def reader(policy: Policy, folder: Path) -> Introspection:
    """The introspection of `policy` with the credentials of `folder`.

    Raises:
        CredentialsError: the folder cannot be used now.
        TrustError: the policy's caFile cannot be used now.
    """
    return Introspection(policy, credentials.read(folder), lambda: credentials.read(folder))


def _target(endpoint: str) -> str:
    """Path and query of the endpoint, as they stand in the policy."""
    parts = urlsplit(endpoint)
    return f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
