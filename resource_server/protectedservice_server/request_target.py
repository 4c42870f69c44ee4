"""The path of a request: looked at once, and refused where two readers could read it differently. Pure.

Matching and forwarding use the same bytes. What would have to be interpreted first (an encoded slash, a dot segment, a
backslash) is refused instead, because the server behind may interpret it in another way than the one in front.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

# What RFC 3986 allows in a path, and the few printable characters that clients send unencoded all the same.
_PATH: Final = re.compile(rb"/[\x21\x24-\x3b\x3d\x40-\x5a\x5b\x5d\x5f\x61-\x7a\x7c\x7e%]*")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# A name or an IPv6 address, and a port (RFC 3986 section 3.2): a bracket elsewhere makes other readers refuse it.
_ABSOLUTE: Final = re.compile(
    rb"https?://(?:[A-Za-z0-9._~%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?(?=[/?]|\Z)", re.IGNORECASE
)
_QUERY: Final = re.compile(rb"[\x21\x22\x24-\x7e]*")


class RefusedTarget(ValueError):
    """A request target that is answered 400; the message says why, and holds nothing of the target."""


def split(target: bytes) -> tuple[bytes, bytes]:
    """Path and query of a request target; the query with its question mark, as it was received.

    An absolute target stands for its path (RFC 9112 section 3.2.2): whom it names does not matter behind this server.

    Raises:
        RefusedTarget: it is of another form.
    """
    if not target.startswith(b"/"):
        absolute = _ABSOLUTE.match(target)
        if absolute is None:
            raise RefusedTarget("the target is neither a path nor an absolute http URL")
        rest = target[absolute.end() :]
        target = rest if rest.startswith(b"/") else b"/" + rest
    path, mark, query = target.partition(b"?")
    return path, mark + query


def matched_path(raw_path: bytes) -> str:
    """The path that rules are matched against: `raw_path` with its percent-encoding undone, once.

    Raises:
        RefusedTarget: the path is not plain enough to mean the same to everybody.
    """
    if b"\\" in raw_path:
        raise RefusedTarget("the path holds a backslash")
    if not _PATH.fullmatch(raw_path):
        raise RefusedTarget("the path is not an absolute path of printable ASCII characters")
    decoded = raw_path
    if b"%" in raw_path:
        if _BAD_ESCAPE.search(raw_path):
            raise RefusedTarget("the path holds an incomplete percent-encoding")
        decoded = unquote_to_bytes(raw_path)
        if decoded.count(b"/") != raw_path.count(b"/"):
            raise RefusedTarget("the path holds an encoded slash")
        if b"\\" in decoded:
            raise RefusedTarget("the path holds an encoded backslash")
        if b"%" in decoded:
            raise RefusedTarget("the path is encoded twice")
        if any(byte < 0x20 or byte == 0x7F for byte in decoded):
            raise RefusedTarget("the path holds an encoded control character")
    for segment in decoded.split(b"/"):
        # `..;a` counts: some servers drop what follows a semicolon before they look for dots.
        if segment.split(b";", 1)[0] in (b".", b".."):
            raise RefusedTarget("the path holds a dot segment")
    try:
        return decoded.decode()
    except UnicodeDecodeError:
        raise RefusedTarget("the path is not UTF-8") from None


def check_query(query: bytes) -> None:
    """Let a query pass that is forwarded as it is.

    Raises:
        RefusedTarget: it holds bytes that cannot be forwarded unchanged.
    """
    if not _QUERY.fullmatch(query):
        raise RefusedTarget("the query holds characters that must be percent-encoded")
