"""Request targets: what passes means the same to two other decoders, and holds nothing that could be read twice."""

from __future__ import annotations

import posixpath
import re
from typing import Final
from urllib.parse import unquote, urlsplit

from protectedservice_server import request_target
from protectedservice_server.request_target import RefusedTarget

SEEDS: Final = (
    b"",
    b"/",
    b"/a/b.c/?q=%2F..",
    b"/a%20b",
    b"/%C3%A4",
    b"/a//b",
    b"/a;v=1,2/b:c@d",
    b"/a/%2e%2E/b",
    b"/a/..;x/b",
    b"/a%2fb",
    b"/a%252fb",
    b"/a%5cb",
    b"/a%00",
    b"/%c0%af",
    b"http://svc.example:80/a/b?c=d",
    b"HTTPS://[::1]/a",
    b"http://svc?x",
    b"*",
    b"http:///a",
)
WORDS: Final = (
    b"/", b"//", b"..", b".", b"%2e", b"%2E", b"%2f", b"%2F", b"%5c", b"\\", b"%25", b"%00", b"%0d%0a", b";", b"?",
    b"#", b"http://", b"https://", b"@", b"%c3%a4", b"%c0%ae", b"%", b"%3b", b"[::1]", b"*",
)  # fmt: skip

_ADDRESS: Final = re.compile(r"^(https?:)//\[[0-9A-Fa-f:.]+\](?=[:/?]|$)", re.IGNORECASE)
_HEX: Final = re.compile(r"%([0-9A-Fa-f]{2})")


def check(data: bytes) -> None:
    """`data` is the target of a request line."""
    try:
        path, query = request_target.split(data)
        matched = request_target.matched_path(path)
        request_target.check_query(query)
    except RefusedTarget:
        assert not _plainly_good(data), "a plain target was refused"
        return
    _check_parts(data, path, query)
    text = path.decode("ascii")
    assert matched == unquote(text, errors="strict") == _decoded_by_hand(text), "decoders differ"
    assert matched == unquote(matched), "decoding once more changes it"
    lowered = text.lower()
    assert "%2f" not in lowered
    assert "%5c" not in lowered
    assert "\\" not in text
    assert not any(letter < " " or letter == "\x7f" for letter in matched)
    assert matched.count("/") == text.count("/")
    plain = [segment.split(";")[0] for segment in matched.split("/")]
    assert not {".", ".."} & set(plain), "a dot segment passed"
    # Whoever normalizes what is forwarded finds nothing to do, but for empty segments.
    assert posixpath.normpath(matched).strip("/") == re.sub("/+", "/", matched).strip("/") or matched.strip("/") == ""


def _check_parts(target: bytes, path: bytes, query: bytes) -> None:
    assert path.startswith(b"/")
    assert b"?" not in path
    assert query == b"" or query.startswith(b"?")
    assert all(0x21 <= byte < 0x7F for byte in path + query), "not printable ASCII"
    assert b"#" not in path + query
    if target.startswith(b"/"):
        assert path + query == target
    else:
        # Whether an address is one does not matter to where the path begins, and urlsplit asks for that as well.
        url = urlsplit(_ADDRESS.sub(r"\1//svc", target.decode("ascii")))
        assert url.scheme in ("http", "https")
        assert (url.path or "/") == path.decode("ascii")
        assert url.query == query.removeprefix(b"?").decode("ascii")
        assert url.username is None, "whose name is before the @ is another's reading"


def _decoded_by_hand(text: str) -> str:
    pieces = _HEX.split(text)  # text, digits, text, ...
    raw = b"".join(bytes.fromhex(piece) if index % 2 else piece.encode("ascii") for index, piece in enumerate(pieces))
    return raw.decode("utf-8")


def _plainly_good(target: bytes) -> bool:
    return re.fullmatch(rb"(/[A-Za-z0-9_-]+)+/?(\?[A-Za-z0-9=&]*)?", target) is not None
