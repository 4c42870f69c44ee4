"""Kept connections to one server: the last one used is used first, so that those beyond the need fall idle and end."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from .answers import WholeAnswers
from .client import Call, ClientConnection, Failure, Owner
from .ticker import Ticker

logger = logging.getLogger(__name__)

IDLE_SECONDS: Final = 4.0
"""How long a connection is kept unused. Below the 5 s after which Node and uvicorn close theirs: a request that meets a
closing connection is lost, and only some may be repeated."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a pool connects to."""

    host: str
    port: int
    secure: bool
    authority: bytes
    """For the Host header."""
    server_name: str
    """That a certificate must bear, and that it is asked by (SNI, RFC 6066 section 3)."""

    @classmethod
    def of(cls, url: str, *, server_name: str | None = None) -> Origin:
        """The origin of a checked http(s) URL; `server_name` where its certificate bears another name."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        port = parts.port if parts.port is not None else 443 if secure else 80
        host = parts.hostname or ""
        return cls(host, port, secure, parts.netloc.encode("ascii"), server_name or host)


@dataclass(eq=False)
class Pool(Owner):
    """`close` it at the end.

    `refused` says why no connection may be made to an address; None: it may. It is asked at each connect, because what
    a name means can change at any time. `context` is asked at each call: connections that were made under another one
    are not used again.
    """

    origin: Origin
    ticker: Ticker
    connect_seconds: float = 30.0
    refused: Callable[[Address], str | None] = lambda address: None
    context: Callable[[], ssl.SSLContext] = ssl.create_default_context
    answers: WholeAnswers = field(default_factory=WholeAnswers)
    _idle: list[ClientConnection] = field(default_factory=list)
    _all: set[ClientConnection] = field(default_factory=set)
    _dialling: dict[Call, asyncio.Task[None]] = field(default_factory=dict)
    _trusted: ssl.SSLContext | None = None
    _opened: bool = False

    def begin(self, call: Call) -> None:
        """Send `call`; how it goes on is told to the call itself."""
        if self.origin.secure:
            self._check_trust()
        idle, now = self._idle, self.ticker.now
        while idle:
            connection = idle.pop()
            if now - connection.idle_since <= IDLE_SECONDS and connection.begin(call, now):
                return
            connection.end()
        self.again(call)

    def give_up(self, call: Call) -> None:
        """Forget `call`: nobody waits for its answer any more."""
        call.given_up = True
        if call.connection is not None:
            call.connection.end()
        elif (dialling := self._dialling.pop(call, None)) is not None:
            dialling.cancel()

    async def reach(self) -> None:
        """Connect by TCP and part again; nothing is sent.

        Raises:
            OSError: nobody takes the connection.
        """
        (await self._connect(None)).end()

    async def close(self) -> None:
        """End all connections. Calls under way are forgotten."""
        self.ticker.remove(self.sweep)
        self._opened = False
        dialling = list(self._dialling.values())
        for task in dialling:
            task.cancel()
        await asyncio.gather(*dialling, return_exceptions=True)
        for connection in tuple(self._all):
            connection.end()
        self._all.clear()
        self._idle.clear()

    @property
    def open(self) -> int:
        """Connections there are."""
        return len(self._all)

    def sweep(self, now: float) -> None:
        """End what is idle or silent for too long."""
        while self._idle and now - self._idle[0].idle_since > IDLE_SECONDS:
            self._idle.pop(0).end()
        for connection in tuple(self._all):
            if connection.deadline is not None and now > connection.deadline:
                connection.fail(Failure.SLOW)

    # The connections' calls.

    def free(self, connection: ClientConnection) -> None:
        if connection.trusted is not self._trusted:
            connection.end()  # it was busy when the trust changed
            return
        connection.idle_since = self.ticker.now
        self._idle.append(connection)

    def lost(self, connection: ClientConnection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def again(self, call: Call) -> None:
        if not self._opened:
            self._opened = True
            self.ticker.add(self.sweep)
        self._dialling[call] = asyncio.create_task(self._dial(call))

    def _check_trust(self) -> None:
        context = self.context()
        if context is not self._trusted:
            self._trusted = context
            while self._idle:
                self._idle.pop().end()

    async def _dial(self, call: Call) -> None:
        try:
            async with asyncio.timeout(self.connect_seconds):
                connection = await self._connect(self._trusted if self.origin.secure else None)
        except TimeoutError:
            failure = Failure.SLOW
        except ssl.SSLError:
            failure = Failure.TLS
        except OSError as error:
            failure = Failure.TLS if isinstance(error, ssl.CertificateError) else Failure.CONNECTION
        else:
            del self._dialling[call]
            self._all.add(connection)
            if not connection.begin(call, self.ticker.now):
                self._all.discard(connection)  # it ended while it was being handed over, and will not say so again
                call.failed(Failure.CONNECTION)
            return
        del self._dialling[call]
        call.failed(failure)

    async def _connect(self, context: ssl.SSLContext | None) -> ClientConnection:
        """A connection to the first address that takes one, by TLS of this context where there is one.

        Raises:
            OSError: to none.
        """
        origin = self.origin
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        last: OSError = OSError("the name has no address")
        for index, (_, _, _, _, place) in enumerate(found):
            refusal = self.refused(ipaddress.ip_address(str(place[0]).partition("%")[0]))
            if refusal is not None:
                last = OSError(f"{place[0]} {refusal}")
                continue
            # An address that swallows packets must not use up the time of those behind it.
            patience = self.connect_seconds / (len(found) - index)
            try:
                async with asyncio.timeout(patience):
                    _, connection = await loop.create_connection(
                        lambda: ClientConnection(self),
                        str(place[0]),
                        int(place[1]),
                        ssl=context,
                        server_hostname=origin.server_name if context is not None else None,
                    )
            except ssl.SSLError:
                raise
            except TimeoutError:
                if index == len(found) - 1:
                    raise
            except OSError as error:
                last = error
            else:
                connection.trusted = context
                return connection
        raise last
