"""The one door to one authorization server: limits, breaker, deadline, size, and our own errors instead of httpx's.

No credential, no token and no body gets into an exception or a log line here: failures are told by their kind, and
the original exception is not chained, because some of them quote the header that they choke on.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import httpx

from .. import reasons
from ..errors import ServerUnavailable, foreign_text
from .breaker import Breaker
from .limits import Limits

CONNECT_TIMEOUT: Final = 3.0  # seconds
DEADLINE: Final = 10.0  # seconds for a whole call once it has its turn; the ledger's rules count on it
ANSWER_LIMIT: Final = 64 * 1024  # bytes; a client's metadata has about 1 KiB
USER_AGENT: Final = f"protectedservice-operator/{version('protectedservice')}"

# httpx logs every request at INFO, and httpcore every header of every answer at DEBUG: cookies may be among them.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class Observe(Protocol):
    """Takes one call's figures: `code` is the HTTP status or a word for what came instead of one."""

    def __call__(self, operation: str, code: str, seconds: float) -> None: ...


@dataclass(frozen=True)
class Answer:
    """What the server said: any 2xx or 4xx except 408, 425 and 429. `repr` shows neither headers nor body."""

    status: int
    headers: Mapping[str, str] = field(repr=False)  # keys in lower case
    json: Mapping[str, Any] | None = field(repr=False)  # None: the body is no JSON object
    items: Sequence[Mapping[str, Any]] | None = field(default=None, repr=False)  # of a JSON array of objects


@dataclass(frozen=True)
class _Failure:
    """Why there is no answer. `uncertain` as in ServerUnavailable."""

    code: str
    text: str
    uncertain: bool
    retry_after: float | None = None


class Remote:
    """One authorization server.

    Args:
        name: how messages call it, e.g. `AuthorizationServer protectedservice-system/default`.
        observe: receives the figures of each call that was tried.
        transport: instead of the network, in tests.
        verify: whom to trust with TLS; verification cannot be switched off.
        deadline: seconds for a whole call.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        name: str,
        *,
        limits: Limits | None = None,
        breaker: Breaker | None = None,
        observe: Observe | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        verify: ssl.SSLContext | None = None,
        deadline: float = DEADLINE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.limits = limits or Limits()
        self.breaker = breaker or Breaker()
        self._observe, self._deadline, self._clock = observe, deadline, clock
        self._closing, self._out, self._nobody_out = False, 0, asyncio.Event()
        self._nobody_out.set()
        self._client = httpx.AsyncClient(
            transport=transport,
            verify=verify or True,
            follow_redirects=False,
            # A proxy variable would show credentials to somebody whom no AuthorizationServer names.
            trust_env=False,
            timeout=httpx.Timeout(deadline, connect=min(CONNECT_TIMEOUT, deadline)),
            # No connection is used twice: a server that closes an idle one just then makes a POST uncertain, and each
            # uncertain registration may cost a leaked client. At these rates a handshake costs less.
            limits=httpx.Limits(max_connections=self.limits.concurrency, max_keepalive_connections=0),
            # Compressed answers could outgrow the limit while they are unpacked.
            headers={"User-Agent": USER_AGENT, "Accept": "application/json", "Accept-Encoding": "identity"},
        )

    async def aclose(self) -> None:
        """Wait for the calls that are out, at most the deadline, and close. Later calls are refused as not sent."""
        self._closing = True
        await self._nobody_out.wait()
        await self._client.aclose()

    async def request(
        self,
        operation: str,
        method: str,
        url: str,
        *,
        form: Mapping[str, str] | None = None,
        json: Mapping[str, Any] | None = None,
        authorization: str | None = None,
        headers: Mapping[str, str] | None = None,
        json_due: bool = True,
        items_due: bool = False,
        limit: int = ANSWER_LIMIT,
    ) -> Answer:
        """Ask once; never repeated here, never redirected.

        Args:
            operation: a verb for messages and metrics: `register`, `introspect`, ...
            json_due: a 2xx answer without a JSON object is no answer.
            items_due: a 2xx answer without a JSON array of objects is no answer.
            limit: bytes; a larger answer is no answer.

        Raises:
            ServerUnavailable: there is no answer to be trusted; `uncertain` tells whether the request was sent.
        """
        self._refuse_if_closing()
        self.breaker.check()
        async with self.limits.turn():
            with self._open(), self.breaker.attempt() as attempt:
                sent = {**(headers or {}), **({"Authorization": authorization} if authorization else {})}
                request = self._client.build_request(method, url, data=form, json=json, headers=sent)
                started = self._clock()
                result = await self._call(request, json_due=json_due, items_due=items_due, limit=limit)
                seconds = self._clock() - started
                if isinstance(result, _Failure):
                    attempt.failed(result.retry_after)
                else:
                    attempt.succeeded()
        if isinstance(result, Answer):
            self._note(operation, str(result.status), seconds)
            return result
        self._note(operation, result.code, seconds)
        raise ServerUnavailable(
            reasons.UNREACHABLE,
            f"{self.name}: {operation} at {origin(url)} got no usable answer: {result.text}; "
            "it is tried again by itself",
            retry_after=result.retry_after or self.breaker.retry_after,
            uncertain=result.uncertain,
        )

    def _refuse_if_closing(self) -> None:
        if self._closing:
            raise ServerUnavailable(
                reasons.UNREACHABLE,
                f"{self.name}: its configuration has just changed, so nothing was sent; it is tried again by itself",
                uncertain=False,
            )

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Be out, so that `aclose` waits; refused once it was called."""
        self._refuse_if_closing()
        self._out += 1
        self._nobody_out.clear()
        try:
            yield
        finally:
            self._out -= 1
            if self._out == 0:
                self._nobody_out.set()

    def _note(self, operation: str, code: str, seconds: float) -> None:
        if self._observe is not None:
            self._observe(operation, code, seconds)

    async def _call(self, request: httpx.Request, *, json_due: bool, items_due: bool, limit: int) -> Answer | _Failure:
        try:
            async with asyncio.timeout(self._deadline):
                response = await self._client.send(request, stream=True)
                try:
                    body = await _bounded(response, limit)
                finally:
                    await response.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            # Nothing has been sent, so the text can hold nothing of ours; it names the TLS or the name-service fault.
            text = foreign_text(error) or type(error).__name__
            return _Failure("connect", f"no connection ({text})", uncertain=False)
        except (TimeoutError, httpx.TimeoutException):
            return _Failure("timeout", f"nothing complete within {self._deadline:g} s", uncertain=True)
        except httpx.HTTPError as error:
            return _Failure("transport", f"the connection broke ({type(error).__name__})", uncertain=True)
        return _judge(response, body, json_due=json_due, items_due=items_due, limit=limit)


async def _bounded(response: httpx.Response, limit: int) -> bytes | None:
    """The body as it came, or None when it is larger than the limit."""
    chunks, size = [], 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > limit:
            return None
        chunks.append(chunk)
    return b"".join(chunks)


def _judge(
    response: httpx.Response, body: bytes | None, *, json_due: bool, items_due: bool, limit: int
) -> Answer | _Failure:
    """Tell an answer from what only looks like one."""
    status = response.status_code
    if status >= 500 or status in (408, 425, 429):
        # 425 and 429 say themselves that nothing was done (RFC 8470 section 5.2, RFC 6585 section 4).
        return _Failure(
            str(status), f"HTTP {status}", uncertain=status not in (425, 429), retry_after=_retry_after(response)
        )
    if not 200 <= status < 300 and status < 400:
        # 307 and 308 say that the request is still to be made, elsewhere; the others may follow a deed.
        return _Failure("redirect", f"a redirect (HTTP {status}), never followed", uncertain=status not in (307, 308))
    if body is None:
        return _Failure("too_large", f"more than {limit // 1024} KiB", uncertain=True)
    if response.headers.get("content-encoding", "identity") != "identity":
        return _Failure("encoded", "a compressed body, which was not asked for", uncertain=True)
    parsed = _json(body)
    whole = parsed if isinstance(parsed, dict) else None
    items = parsed if isinstance(parsed, list) and all(isinstance(item, dict) for item in parsed) else None
    if status < 300 and (items is None if items_due else whole is None and json_due):
        due = "array" if items_due else "object"
        return _Failure("not_json", f"HTTP {status} without a JSON {due}", uncertain=True)
    return Answer(status=status, headers=dict(response.headers), json=whole, items=items)


def _json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds from a Retry-After header (RFC 9110 section 10.2.3).

    A date is compared with the answer's own Date, so that a clock that is off does no harm.
    """
    value = response.headers.get("retry-after", "").strip()
    if value.isdecimal() and len(value) < 10:
        return float(value)
    try:
        at = email.utils.parsedate_to_datetime(value)
        seconds = (at - email.utils.parsedate_to_datetime(response.headers.get("date", ""))).total_seconds()
    except (ValueError, TypeError):
        return None
    return seconds if seconds > 0 else None


def origin(url: str) -> str:
    """Scheme, host and port of a URL, for messages and for comparison; without user information."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    default = {"http": 80, "https": 443}.get(parts.scheme) == port
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + ("" if default else f":{port}")
