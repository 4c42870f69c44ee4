"""Passing an admitted request on to the upstream, and its answer back, as streams both ways.

The upstream gets the request as it came, except: hop-by-hop headers, the token (unless the policy forwards it) and
everything that pretends to come from this server are taken off; `Host` is the upstream's own authority; who calls is
told in the headers of `identity`, and whence in `X-Forwarded-For`, `-Host` and `-Proto`. The path and query are the
bytes that were matched.

An ASGI application cannot pass on trailers, 1xx answers and protocol upgrades. A WebSocket handshake is answered 501;
any other upgrade is an offer that is not taken.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Final

import aiohttp
from aiohappyeyeballs import AddrInfoType
from multidict import CIMultiDict
from yarl import URL

from .asgi import CLOSE, FACTS, Receive, Scope, Send, respond
from .bearer import Header, error
from .decision import Facts
from .identity import Identity, plain
from .policy import Upstream, refused_address
from .trust import Trust

logger = logging.getLogger(__name__)

BODY_SILENCE: Final = 60.0
"""Seconds that a caller may pause within its request (then 408), or while it reads the answer."""

LARGEST_HEADER: Final = 64 * 1024
"""Bytes of one header line in an upstream's answer; Content-Security-Policy goes beyond aiohttp's own 8 KiB."""

HOP_BY_HOP: Final = frozenset(
    {  # RFC 9110 section 7.6.1, and what older programs used
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-authentication-info",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

# aiohttp would add these where the caller sent none.
_NOT_ADDED: Final = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")

Observe = Callable[[str, float], None]


class Forward:
    """The ASGI application behind the gate when there is an upstream. `close` it at the end.

    Raises:
        TrustError: on construction, when the policy's caFile cannot be used.
    """

    def __init__(self, upstream: Upstream, identity: Identity, observe: Observe) -> None:
        self._upstream = upstream
        self._identity = identity
        self._trust = Trust(Path(upstream.ca_file) if upstream.ca_file else None)
        self._observe = observe
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections to the upstream."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if wants_websocket(scope["headers"]):
            answer = error(501, "not_implemented", "WebSocket is not supported here")
            await respond(scope, send, answer)
            return
        try:
            headers = request_headers(scope, self._identity)
        except UnicodeDecodeError:
            await respond(scope, send, error(400, "invalid_request", "A header is not UTF-8"))
            return
        exchange = _Exchange(scope, receive, send, self._upstream.timeout)
        relay = asyncio.create_task(self._relay(exchange, headers))
        watch = asyncio.create_task(exchange.gone())
        try:
            # Who goes away must free the upstream at once: an event stream would run for ever otherwise.
            await asyncio.wait({relay, watch}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            relay.cancel()
            watch.cancel()
            outcome = (await asyncio.gather(relay, watch, return_exceptions=True))[0]
        if isinstance(outcome, Exception):
            raise outcome

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = self._upstream.timeout
            self._session = aiohttp.ClientSession(
                # No limit: each request is one connection at most, and those are bounded at the front.
                connector=aiohttp.TCPConnector(limit=0, socket_factory=self._socket),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None, connect=timeout, sock_connect=timeout, sock_read=timeout),
                max_line_size=LARGEST_HEADER,
                max_field_size=LARGEST_HEADER,
            )
        return self._session

    def _socket(self, address: AddrInfoType) -> socket.socket:
        """A socket for one resolved address, checked at each connect: what a name means can change at any time.

        Raises:
            OSError: no connection may be made there.
        """
        family, kind, protocol, _, place = address
        refusal = refused_address(ipaddress.ip_address(str(place[0])), allow_loopback=self._upstream.allow_loopback)
        if refusal is not None:
            raise OSError(f"{place[0]} {refusal}")
        return socket.socket(family, kind, protocol)

    async def _relay(self, exchange: _Exchange, headers: CIMultiDict[str]) -> None:
        scope = exchange.scope
        began = time.monotonic()
        try:
            async with (
                asyncio.timeout(None) as patience,
                self._connected().request(
                    scope["method"],
                    _url(self._upstream, scope),
                    headers=headers,
                    data=exchange.body(patience) if exchange.has_body else None,
                    allow_redirects=False,
                    skip_auto_headers=_NOT_ADDED,
                    ssl=self._trust.context(),
                    server_hostname=self._upstream.server_name,
                ) as response,
            ):
                self._observe(f"{response.status // 100}xx", time.monotonic() - began)
                await exchange.answer(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as failure:
            await self._failed(exchange, failure, time.monotonic() - began)

    async def _failed(self, exchange: _Exchange, failure: Exception, seconds: float) -> None:
        """Answer for a failure; when the answer has begun, leave it unfinished: the server then cuts the connection."""
        if exchange.left:
            return
        if exchange.stalled:
            answer = error(408, "request_timeout", "The request body stopped coming", CLOSE)
        elif isinstance(failure, TimeoutError):
            answer = error(504, "upstream_timeout", "The upstream did not answer in time")
        else:
            answer = error(502, "upstream_unreachable", "The upstream cannot be reached, or its answer cannot be read")
        if not exchange.stalled:
            self._observe("slow" if answer.status == 504 else "unreachable", seconds)
            # The type says enough; texts of client libraries may quote what they were sent.
            logger.warning(
                "The upstream failed",
                extra={"upstream": self._upstream.url, "cause": type(failure).__name__, "begun": exchange.begun},
            )
        if not exchange.begun:
            await respond(exchange.scope, exchange.send, answer)


_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""What must stand in no header value (RFC 9110 section 5.5)."""


class _Exchange:
    """One request with its answer, and who reads from the caller at the moment: the body first, the watch after it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, patience: float) -> None:
        self.scope = scope
        self.send = send
        self._patience = patience
        self._receive = receive
        self.begun = False
        self.stalled = False
        sized = [value for name, value in scope["headers"] if name == b"content-length" and value.strip() != b"0"]
        self._length = int(sized[0]) if sized else None
        self.has_body = bool(sized) or any(name == b"transfer-encoding" for name, _ in scope["headers"])
        self._body_read = asyncio.Event()
        if not self.has_body:
            self._body_read.set()
        self._left = asyncio.Event()

    @property
    def left(self) -> bool:
        """Whether the caller went away within its request."""
        return self._left.is_set()

    async def body(self, patience: asyncio.Timeout) -> AsyncIterator[bytes]:
        """The request's body as it comes; `patience` runs while the upstream does not take what is there.

        Raises:
            ConnectionError, TimeoutError: it will not come.
        """
        loop = asyncio.get_running_loop()
        more, read = True, 0
        while more:
            try:
                async with asyncio.timeout(BODY_SILENCE):
                    message = await self._receive()
            except TimeoutError:
                self.stalled = True
                raise
            if message["type"] == "http.disconnect":
                self._left.set()
                raise ConnectionAbortedError("the caller went away within its request")
            more = message.get("more_body", False)
            if chunk := message.get("body", b""):
                read += len(chunk)
                patience.reschedule(loop.time() + self._patience)
                yield chunk
                if not patience.expired():
                    patience.reschedule(None)
        if self._length is not None and read != self._length:
            # The upstream was told another length: what is missing would be taken from the next request on its
            # connection.
            raise ConnectionAbortedError("the body is not as long as it was announced")
        self._body_read.set()

    async def gone(self) -> None:
        """Return when the caller has gone away."""
        reading = asyncio.create_task(self._after_body())
        left = asyncio.create_task(self._left.wait())
        try:
            await asyncio.wait({reading, left}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reading.cancel()
            left.cancel()

    async def _after_body(self) -> None:
        await self._body_read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def answer(self, response: aiohttp.ClientResponse) -> None:
        """Pass on the upstream's answer.

        Raises:
            aiohttp.ClientError, TimeoutError: it broke off.
        """
        if not 200 <= response.status <= 599:
            raise aiohttp.ClientPayloadError("the upstream's status cannot be passed on")
        headers = response_headers(response.raw_headers, response.status)
        if any(name.lower() == b"upgrade" for name, _ in self.scope["headers"]):
            # The parser of this front cannot go on after an offered upgrade.
            headers.append(CLOSE)
        self.begun = True
        await self.send({"type": "http.response.start", "status": response.status, "headers": headers})
        async for chunk in response.content.iter_any():
            try:
                async with asyncio.timeout(BODY_SILENCE):
                    await self.send({"type": "http.response.body", "body": chunk, "more_body": True})
            except TimeoutError:
                self.stalled = True
                raise
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})


def _url(upstream: Upstream, scope: Scope) -> URL:
    """The same path and query, byte by byte: `encoded` keeps yarl from normalising them."""
    target = (scope.get("raw_path") or scope["path"].encode()).decode("ascii")
    query = scope.get("query_string", b"").decode("ascii")
    return URL(f"{upstream.url}{target}{'?' + query if query else ''}", encoded=True)


def _named_in_connection(headers: Iterable[Header]) -> set[str]:
    return {
        plain(word.strip())
        for name, value in headers
        if name.lower() == b"connection"
        for word in value.decode("latin-1").split(",")
    }


def wants_websocket(headers: Iterable[Header]) -> bool:
    """Whether the request asks to become a WebSocket."""
    return any(name.lower() == b"upgrade" and b"websocket" in value.lower() for name, value in headers)


def request_headers(scope: Scope, identity: Identity) -> CIMultiDict[str]:
    """What the upstream gets to see.

    Raises:
        UnicodeDecodeError: a value that cannot be passed on byte by byte, because the client library writes UTF-8.
    """
    inbound: list[Header] = scope["headers"]
    dropped = HOP_BY_HOP | _named_in_connection(inbound)
    # The length says where the body ends; a caller cannot name it away.
    dropped -= {"content-length"}
    facts: Facts | None = scope.get(FACTS)
    headers: CIMultiDict[str] = CIMultiDict()
    host = ""
    for raw_name, raw_value in inbound:
        name = raw_name.decode("ascii")
        known = plain(name)
        if known == "content-length" and name.lower() != known:
            continue  # Content_Length: one variable with the real one, to a CGI
        if known == "host":
            host = raw_value.decode("ascii", "ignore")
        if known not in dropped and not identity.drops(known, facts):
            headers.add(name, raw_value.decode("utf-8"))
    client = scope.get("client")
    if client:
        headers["x-forwarded-for"] = _address(str(client[0]))
    if host:
        headers["x-forwarded-host"] = host
    headers["x-forwarded-proto"] = scope.get("scheme", "http")
    headers.extend(identity.told(facts))
    return headers


def _address(text: str) -> str:
    """IPv4 as such, although a socket for both families shows it as ::ffff:192.0.2.1."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def response_headers(raw: Iterable[Header], status: int) -> list[Header]:
    """What the caller gets to see of the upstream's headers: all but hop-by-hop."""
    raw = list(raw)
    if any(_CONTROL.search(value) for _, value in raw):
        raise aiohttp.ClientPayloadError("a header of the upstream's answer holds a control character")
    dropped = HOP_BY_HOP | (_named_in_connection(raw) - {"content-length"})
    if status in (204, 304):
        dropped |= {"content-length"}  # there is no body to measure, and the server below insists on one
    return [(name.lower(), value) for name, value in raw if plain(name.decode("latin-1")) not in dropped]
