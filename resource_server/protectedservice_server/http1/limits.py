"""What one caller may cost. Every number has its reason."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Final

MOST_CONNECTIONS: Final = 4096
"""Open connections; beyond it 503. Each costs a few KiB, and two file descriptors when forwarded."""

RESERVED_FILES: Final = 128
"""File descriptors for everything that is no caller: introspection, health checks, the policy and the credentials."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one server; seconds and bytes."""

    connections: int = MOST_CONNECTIONS
    headers: int = 100
    head_bytes: int = 64 * 1024
    """Request line and headers; trailers too. A token of 16 KiB, cookies and a long path fit."""
    handshakes: int = 512
    """Of TLS at a time, within `connections`: each takes some 50 KiB, twice what it leaves. Thousands a second pass."""
    handshake_seconds: float = 10.0
    """From connecting to the end of TLS's handshake, which takes two turns and two or three packets."""
    head_seconds: float = 20.0
    """From the first byte of a head to its last (then 408), and from connecting to that first byte."""
    idle_seconds: float = 75.0
    """How long an idle connection is kept. Above the 60 s of most load balancers, so that they close first."""
    body_seconds: float = 60.0
    """The longest pause within a request's body; then 408."""
    stall_seconds: float = 60.0
    """How long a caller may leave what was sent to it unread, before the connection is dropped with what is in it."""
    tunnel_seconds: float = 3600.0
    """The longest silence, both ways, behind a protocol upgrade. WebSockets ping far more often."""
    unwanted_bytes: int = 64 * 1024
    """Of a body that nobody wants (its request was refused): read and dropped, to keep the connection."""
    linger_bytes: int = 1024 * 1024
    """Of what is dropped behind a last answer; who sends more than a request's rest is cut off."""
    backlog_bytes: int = 32 * 1024 * 1024
    """Of requests that nobody has let in yet, of all connections together: beginnings of heads, heads whose token is
    being asked about, and what came behind them. Beyond it 503. An eighth of the 256 MiB that a pod has by default."""
    backlog_share: int = 8 * 1024
    """What each connection may keep even so: a small request is not refused for what others keep. Not below
    `heads.LONGEST`, whose heads are not counted while nothing else is kept."""
    linger_seconds: float = 2.0
    """How long a caller has to read a last answer, while what it still sends is dropped (RFC 9112 section 9.6)."""


def most_connections() -> int:
    """How many connections can be served: MOST_CONNECTIONS, or fewer where file descriptors are short.

    Raises the soft limit of open files to the hard one first.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(1, min(MOST_CONNECTIONS, (hard - RESERVED_FILES) // 2))
