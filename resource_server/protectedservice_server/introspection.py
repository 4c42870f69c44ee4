"""Asking the authorization server about a token (RFC 7662).

Everything that is not a clear answer is `Unavailable`: an outage is never an answer about a token.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote_plus, urlsplit

import msgspec

from . import credentials
from .bearer import Header
from .credentials import Credentials, CredentialsError
from .decision import INACTIVE, Facts
from .http1.client import Failure
from .http1.pool import CallFailed, Origin, Pool, TooLarge, fetch
from .http1.ticker import Ticker
from .policy import ClientAuthentication, Policy
from .trust import Trust
from .verifier import Learnt, RefusedUs, Unavailable

logger = logging.getLogger(__name__)

LARGEST_ANSWER: Final = 64 * 1024
"""Bytes. Real answers are below 4 KiB."""

LONGEST_RETRY_AFTER: Final = 300.0
"""Seconds that are passed on to callers at most."""

PAUSE: Final = 0.05
"""Seconds before a failed connection is tried again, times the attempt: a restarting server needs a moment."""

# An answer that grows as it is unpacked has no bound: it is asked for as it is.
_HEAD: Final = (
    "POST {target} HTTP/1.1\r\nhost: {host}\r\nuser-agent: protectedservice-server\r\naccept: application/json\r\n"
    "accept-encoding: identity\r\ncontent-type: application/x-www-form-urlencoded\r\n"
)
_DIGITS: Final = re.compile(rb"[0-9]{1,9}")

# RFC 7009 and 6750 name them; oidc-provider answers the first to anything that looks like a JWT it did not make.
_BLAMES_TOKEN: Final = frozenset({"unsupported_token_type", "invalid_token"})


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
        self._retries = policy.validation.retries
        self._credentials = held
        self._reread = reread
        # The time is the verifier's to keep, and so is the number of calls under way.
        self._pool = Pool(origin, Ticker(), policy.validation.timeout, context=self._trust.context)

    async def close(self) -> None:
        """Close the connections."""
        await self._pool.close()

    async def __call__(self, token: str) -> Learnt:
        """What the server says about `token`.

        Raises:
            Unavailable: nothing that can be trusted; RefusedUs where this server's own credentials are the cause.
        """
        used = self._credentials
        try:
            return await self._ask(token, used)
        except RefusedUs:
            if self._fresh() == used:
                raise  # the same credentials would be refused again
        return await self._ask(token, self._credentials)

    def _fresh(self) -> Credentials:
        """The credentials as their files have them now; the old ones while the files cannot be used."""
        try:
            found = self._reread()
        except CredentialsError as error:
            for fault in error.faults:
                logger.warning("The credentials cannot be read again: %s", fault)
        else:
            if found != self._credentials:
                logger.info("Read changed credentials after the authorization server refused the old ones")
            self._credentials = found
        return self._credentials

    async def _ask(self, token: str, held: Credentials) -> Learnt:
        request = self._request(token, held)
        for attempt in range(self._retries + 1):
            try:
                status, headers, body = await fetch(self._pool, request, LARGEST_ANSWER)
            except TooLarge:
                raise Unavailable("too_large") from None
            except CallFailed as failed:
                if failed.failure is not Failure.CONNECTION or attempt == self._retries:
                    kind = "protocol" if failed.failure is Failure.SLOW else failed.failure.value
                    raise Unavailable(kind) from None
                await asyncio.sleep(PAUSE * (attempt + 1))
            else:
                return _learnt(status, _retry_after(headers), body)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _request(self, token: str, held: Credentials) -> bytes:
        """The whole question as bytes (RFC 7662 section 2.1)."""
        form = f"token={quote_plus(token)}&token_type_hint=access_token"
        authorization = ""
        match self._authentication:
            case ClientAuthentication.BASIC:
                authorization = f"authorization: {held.basic()}\r\n"
            case ClientAuthentication.POST:
                form += f"&client_id={quote_plus(held.client_id)}&client_secret={quote_plus(held.client_secret)}"
        return f"{self._head}{authorization}content-length: {len(form)}\r\n\r\n{form}".encode("ascii")


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


def _retry_after(headers: Sequence[Header]) -> float | None:
    """Seconds; None for a date too: clocks differ, and the breaker has waits of its own."""
    values = [value.strip() for name, value in headers if name == b"retry-after"]
    if len(values) != 1 or not _DIGITS.fullmatch(values[0]):
        return None
    return min(float(values[0]), LONGEST_RETRY_AFTER)


def _learnt(status: int, retry_after: float | None, body: bytes) -> Learnt:
    """What an answer means. Pure.

    Raises:
        Unavailable: nothing about the token.
    """
    if status == 200:
        return Learnt(facts_of(body))
    if status in (401, 403):  # django-oauth-toolkit has 403 for what others call 401
        raise RefusedUs
    if status == 400:
        code, description = _oauth_error(body)
        if code in _BLAMES_TOKEN or (code == "invalid_request" and _blames_token(description)):
            return Learnt(INACTIVE, blames_token=True)
        if code in ("invalid_client", "unauthorized_client"):
            raise RefusedUs
        if code:
            # Our question is always well-formed: whatever is wrong came with the token, which anybody may send.
            raise Unavailable("status_4xx", retry_after, counts=False)
    raise Unavailable(f"status_{status // 100}xx", retry_after)


def _blames_token(description: str) -> bool:
    """Whether an `invalid_request` speaks of the token that was sent, not of a parameter that was not found."""
    words = set(re.findall(r"[a-z]+", description.lower()))
    return "token" in words and not words & {"missing", "required", "client"}


def _oauth_error(body: bytes) -> tuple[str, str]:
    document = _json(body)
    if not isinstance(document, dict):
        return "", ""
    code, description = document.get("error"), document.get("error_description")
    return (code if isinstance(code, str) else ""), (description if isinstance(description, str) else "")


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def facts_of(body: bytes) -> Facts:
    """The facts in the body of a 200 answer. Pure.

    Raises:
        Unavailable: no JSON object, `active` absent or not a boolean, or a member of a wrong type.
    """
    document = _json(body)
    if not isinstance(document, dict):
        raise Unavailable("not_json")
    active = document.get("active")
    if not isinstance(active, bool):
        raise Unavailable("active_absent")
    if not active:
        return INACTIVE
    scope, scopes = _scopes(_text(document, "scope") or "")
    return Facts(
        active=True,
        scope=scope,
        scopes=scopes,
        client_id=_shared(_text(document, "client_id")),
        sub=_text(document, "sub"),
        username=_text(document, "username"),
        aud=_shared_audiences(_audiences(document)),
        iss=_shared(_text(document, "iss")),
        exp=_seconds(document, "exp"),
        nbf=_seconds(document, "nbf"),
    )


@lru_cache(maxsize=1024)
def _shared(text: str | None) -> str | None:
    """The same text as one object: thousands of remembered tokens have few different clients and issuers."""
    return text


@lru_cache(maxsize=1024)
def _scopes(text: str) -> tuple[str, frozenset[str]]:
    """The scopes in order, and as a set. Shared: thousands of remembered tokens have few different ones."""
    words = [word for word in text.split(" ") if word]
    return " ".join(words), frozenset(words)


@lru_cache(maxsize=1024)
def _shared_audiences(audiences: tuple[str, ...]) -> tuple[str, ...]:
    return audiences


def _text(document: dict[str, Any], name: str) -> str | None:
    value = document.get(name)
    if value is not None and not isinstance(value, str):
        raise Unavailable("malformed", counts=False)  # about this token alone
    return value


def _audiences(document: dict[str, Any]) -> tuple[str, ...]:
    value = document.get("aud")
    if value is None:
        return ()
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise Unavailable("malformed", counts=False)  # about this token alone
    return tuple(values)


def _seconds(document: dict[str, Any], name: str) -> float | None:
    value = document.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unavailable("malformed", counts=False)  # about this token alone
    try:
        return float(value)
    except OverflowError:
        raise Unavailable("malformed", counts=False) from None
