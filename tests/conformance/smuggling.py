r"""Requests whose end two readers could see in two places, as data: name, bytes, and what may come of it.

Each hides `GET /smuggled` where a reader of another opinion would find a second request; its token is good, so nothing
but the reading keeps it out. `%(host)s` in the bytes stands for Host and Authorization.

What may come of an entry:

- REFUSED: an error answer or none, the end of the connection, and no whole request at the upstream;
- a body: exactly one request at the upstream, with exactly this body, and the connection goes on in step or ends;
- WAITS: the front waits for more, and nothing whole has reached the upstream.

A second request at the upstream is never among it. An empty body
behind an early answer stands for one that nobody read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Sentinel:
    word: str


REFUSED: Final = Sentinel("refused")
WAITS: Final = Sentinel("waits")

Outcome = Sentinel | bytes


@dataclass(frozen=True)
class Case:
    name: str
    data: bytes
    allowed: tuple[Outcome, ...]
    target: str = "/case"
    framed: bool = False
    """Whether its end is plain to everybody: then the connection may go on behind a refusal. So where a body is
    among what is allowed."""

    def __str__(self) -> str:
        return self.name


HOST: Final = b"%(host)s"
SMUGGLED: Final = b"GET /smuggled HTTP/1.1\r\n" + HOST + b"\r\n"
HELLO: Final = b"5\r\nhello\r\n0\r\n\r\n"


def _head(first: bytes, *lines: bytes) -> bytes:
    return first + b"\r\n" + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def _post(*lines: bytes, body: bytes = b"") -> bytes:
    return _head(b"POST /case HTTP/1.1", *lines) + body


def _get(*lines: bytes, body: bytes = b"") -> bytes:
    return _head(b"GET /case HTTP/1.1", *lines) + body


def _length(body: bytes) -> bytes:
    # The placeholder is longer or shorter than what stands in for it: the corpus is filled in before it is measured.
    return b"Content-Length: %%(length:%s)s" % body.hex().encode()


def fill(data: bytes, host: bytes) -> bytes:
    """The bytes to send. `host` are the lines that take the placeholder's place."""
    data = data.replace(HOST, host)
    while (start := data.find(b"%(length:")) >= 0:
        end = data.index(b")s", start)
        measured = bytes.fromhex(data[start + 9 : end].decode()).replace(HOST, host)
        data = data[:start] + str(len(measured)).encode() + data[end + 2 :]
    return data


CHUNKED: Final = b"Transfer-Encoding: chunked"
HIDDEN: Final = b"0\r\n\r\n" + SMUGGLED


def _two_framings() -> Iterator[Case]:
    for name, lines in {
        "CL.TE": (_length(HIDDEN), CHUNKED),
        "TE.CL": (CHUNKED, _length(HIDDEN)),
        "CL 0 and TE": (b"Content-Length: 0", CHUNKED),
        "TE and CL 5": (CHUNKED, b"Content-Length: 5"),
        "CL.TE, names in odd case": (b"cONTENT-lENGTH: 4", b"tRANSFER-eNCODING: cHUNKED"),
        "CL.TE, TE on a line after others": (_length(HIDDEN), b"X: y", b"Accept: */*", CHUNKED),
        "CL CL TE": (_length(HIDDEN), _length(HIDDEN), CHUNKED),
        "TE, Connection names it": (b"Connection: Transfer-Encoding", CHUNKED, _length(HIDDEN)),
    }.items():
        yield Case(name, _post(*lines, body=HIDDEN), (REFUSED,))
    yield Case("TE.CL, the second in a chunk", _post(CHUNKED, b"Content-Length: 4", body=HELLO + SMUGGLED), (REFUSED,))


_CODINGS: Final = {
    "xchunked": b"xchunked",
    "chunked twice": b"chunked, chunked",
    "chunked, identity": b"chunked, identity",
    "identity, chunked": b"identity, chunked",
    "identity": b"identity",
    "gzip, chunked": b"gzip, chunked",
    "a parameter": b"chunked;q=1",
    "quoted": b'"chunked"',
    "in brackets": b"[chunked]",
    "cow": b"cow",
    "a comma after": b"chunked,",
    "a comma before": b",chunked",
    "a vertical tab before": b"\x0bchunked",
    "a vertical tab after": b"chunked\x0b",
    "a form feed before": b"\x0cchunked",
    "a NUL after": b"chunked\x00",
    "a NUL within": b"chun\x00ked",
    "a no-break space before": b"\xa0chunked",
    "a byte order mark": b"\xef\xbb\xbfchunked",
    "a backspace after": b"chunked\x08",
    "a long s": b"chun\xc5\xbfed",
    "a Kelvin sign": b"chun\xe2\x84\xaaed",
    "a space within": b"chun ked",
    "two words": b"chunked chunked",
    "nothing": b"",
}
_LINES: Final = {
    "a space before the colon": b"Transfer-Encoding : chunked",
    "a tab before the colon": b"Transfer-Encoding\t: chunked",
    "a space before the name": b" Transfer-Encoding: chunked",
    "a tab before the name": b"\tTransfer-Encoding: chunked",
    "folded": b"Transfer-Encoding:\r\n chunked",
    "folded with a tab": b"Transfer-Encoding:\r\n\tchunked",
    "folded within": b"Transfer-Encoding: chun\r\n ked",
    "behind a bare LF": b"X: y\nTransfer-Encoding: chunked",
    "behind a bare CR": b"X: y\rTransfer-Encoding: chunked",
    "behind LF CR": b"X: y\n\rTransfer-Encoding: chunked",
    "a NUL in the name": b"Transfer\x00-Encoding: chunked",
    "a NUL after the name": b"Transfer-Encoding\x00: chunked",
    "a control character before the name": b"\x0bTransfer-Encoding: chunked",
    "two colons": b"Transfer-Encoding:: chunked",
    "no colon": b"Transfer-Encoding chunked",
    "an empty name before": b": y\r\nTransfer-Encoding: chunked",
    "two lines, chunked and identity": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "two lines, identity and chunked": b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "two lines, chunked and cow": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow",
    "two lines, both chunked": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
}
_ALSO_GOOD: Final = {
    "capitals": b"Transfer-Encoding: CHUNKED",
    "odd case": b"TRANSFER-encoding: cHuNkEd",
    "a tab before the value": b"Transfer-Encoding:\tchunked",
    "no space before the value": b"Transfer-Encoding:chunked",
    "spaces around the value": b"Transfer-Encoding:   chunked \t ",
}
_OTHER_FIELDS: Final = {
    "an underscore in the name": b"Transfer_Encoding: chunked",
    "a letter too many": b"XTransfer-Encoding: chunked",
    "the coding of the content": b"Content-Encoding: chunked",
    "TE": b"TE: chunked",
}


def _obfuscated_codings() -> Iterator[Case]:
    lines = {name: b"Transfer-Encoding: " + value for name, value in _CODINGS.items()} | _LINES
    for name, line in lines.items():
        # With a length that a reader of another opinion would use, and without.
        yield Case(f"TE.TE with CL, {name}", _post(_length(HIDDEN), line, body=HIDDEN), (REFUSED,))
        yield Case(f"TE.TE, {name}", _post(line, body=HELLO + SMUGGLED), (REFUSED,))
    for name, line in _ALSO_GOOD.items():
        yield Case(f"TE.TE with CL, {name}", _post(_length(HIDDEN), line, body=HIDDEN), (REFUSED,))
        allowed = (REFUSED, b"hello") if "spaces" in name else (b"hello",)
        yield Case(f"TE, {name}", _post(line, body=HELLO), allowed)
    for name, line in _OTHER_FIELDS.items():
        yield Case(
            f"TE.TE with CL, {name}", _post(b"Content-Length: 5", line, body=b"0\r\n\r\n"), (REFUSED, b"0\r\n\r\n")
        )


def _lengths() -> Iterator[Case]:
    bad = {
        "signed": b"+5",
        "negative": b"-5",
        "negative zero": b"-0",
        "hexadecimal": b"0x5",
        "hexadecimal digits": b"a",
        "a space within": b"5 5",
        "a list that differs": b"5, 6",
        "a list with nothing": b"5,",
        "nothing": b"",
        "a word": b"five",
        "digits of another script": "٥".encode(),
        "a point": b"5.0",
        "an exponent": b"5e0",
        "an underscore": b"5_0",
        "a semicolon": b"5;",
        "quoted": b'"5"',
        "2 to the 64 and 5": b"18446744073709551621",
        "2 to the 32 and 5 in 100 digits": b"4294967301".rjust(100, b"9"),
        "a vertical tab after": b"5\x0b",
        "a NUL after": b"5\x00",
        "a no-break space after": b"5\xa0",
        "a line feed within": b"5\n5",
    }
    for name, value in bad.items():
        yield Case(f"CL, {name}", _post(b"Content-Length: " + value, body=b"hello" + SMUGGLED), (REFUSED,))
    good = {"a tab before": b"\t5", "spaces around": b"   5  ", "a tab after": b"5\t"}
    for name, value in good.items():
        yield Case(f"CL, {name}", _post(b"Content-Length:" + value, body=b"hello"), (REFUSED, b"hello"))
    either = {"a leading zero": b"05", "many leading zeros": b"0" * 40 + b"5", "a list of the same": b"5, 5"}
    for name, value in either.items():
        yield Case(f"CL, {name}", _post(b"Content-Length: " + value, body=b"hello"), (REFUSED, b"hello"))
    two = {
        "two that differ": (b"Content-Length: 5", b"Content-Length: 6"),
        "two that differ, the first 0": (b"Content-Length: 0", b"Content-Length: 5"),
        "two that differ, other case": (b"Content-Length: 5", b"content-LENGTH: 0"),
        "a second with a space before the colon": (b"Content-Length: 0", b"Content-Length : 5"),
        "a second behind a bare LF": (b"Content-Length: 0", b"X: y\nContent-Length: 5"),
        "a second behind a bare CR": (b"Content-Length: 0", b"X: y\rContent-Length: 5"),
        "folded": (b"Content-Length:\r\n 5",),
        "a space before the name": (b" Content-Length: 5",),
    }
    for name, lines in two.items():
        yield Case(f"CL, {name}", _post(*lines, body=b"hello" + SMUGGLED), (REFUSED,))
    same = (b"Content-Length: 5", b"Content-Length: 5")
    yield Case("CL, two that are the same", _post(*same, body=b"hello"), (REFUSED, b"hello"))
    under = (b"Content_Length: 3", b"Content-Length: 5")
    yield Case("CL, another with an underscore", _post(*under, body=b"hello"), (REFUSED, b"hello"))
    named = (b"Connection: Content-Length", b"Content-Length: 5")
    yield Case("CL, Connection names it", _post(*named, body=b"hello"), (REFUSED, b"hello"))


def _chunks() -> Iterator[Case]:
    bad_sizes = {
        "hexadecimal prefix": b"0x5",
        "signed": b"+5",
        "negative": b"-5",
        "a space before": b" 5",
        "a tab before": b"\t5",
        "an underscore": b"0_5",
        "no digit": b"g",
        "nothing": b"",
        "a full-width digit": "５".encode(),
        "2 to the 64 and 5": b"10000000000000005",
        "2 to the 72 and 5": b"1000000000000000005",
        "a NUL after": b"5\x00",
        "an extension": b"5;a=b",
        "an extension without a value": b"5;a",
        "an extension with a quoted end": b'5;a="\r\n"',
        "an extension with a line feed": b"5;a\n",
        "an extension without a name": b"5;",
        "a comma": b"5,5",
        "a bare CR after": b"5\r",
    }
    for name, size in bad_sizes.items():
        yield Case(f"chunk size, {name}", _post(CHUNKED, body=size + b"\r\nhello\r\n0\r\n\r\n" + SMUGGLED), (REFUSED,))
    for name, size in {"a space after": b"5 ", "a tab after": b"5\t", "spaces and an extension": b"5 ; a=b"}.items():
        yield Case(f"chunk size, {name}", _post(CHUNKED, body=size + b"\r\nhello\r\n0\r\n\r\n"), (REFUSED,))
    for name, size in {"a leading zero": b"05", "many leading zeros": b"0" * 30 + b"5"}.items():
        yield Case(f"chunk size, {name}", _post(CHUNKED, body=size + b"\r\nhello\r\n0\r\n\r\n"), (REFUSED, b"hello"))
    yield Case("chunk size, capitals", _post(CHUNKED, body=b"A\r\n0123456789\r\n0\r\n\r\n"), (b"0123456789",))
    yield Case("chunk size, 2 to the 63 less 1", _post(CHUNKED, body=b"7fffffffffffffff\r\nhello"), (REFUSED, WAITS))
    yield Case("chunk size, a line without an end", _post(CHUNKED, body=b"0" * 300), (REFUSED, WAITS))
    bad_ends = {
        "the size ends with a bare LF": b"5\nhello\r\n0\r\n\r\n",
        "the data ends with a bare LF": b"5\r\nhello\n0\r\n\r\n",
        "the data has no end": b"5\r\nhello0\r\n\r\n",
        "the data is longer than its size": b"5\r\nhelloX\r\n0\r\n\r\n",
        "the data is shorter than its size": b"6\r\nhello\r\n0\r\n\r\n",
        "the data ends with CR alone": b"5\r\nhello\r0\r\n\r\n",
        "the data ends with two bytes that are no end": b"5\r\nhelloXX0\r\n\r\n",
        "the last size ends with a bare LF": b"5\r\nhello\r\n0\n\r\n",
        "all ends are bare LF": b"5\nhello\n0\n\n",
        "the last chunk has an extension": b"5\r\nhello\r\n0;a=b\r\n\r\n",
        "the last chunk is negative": b"5\r\nhello\r\n-0\r\n\r\n",
        "no end after the last chunk": b"5\r\nhello\r\n0\r\n",
        "a trailer with a space before the colon": b"0\r\nX : y\r\n\r\n",
        "a trailer without a name": b"0\r\n: y\r\n\r\n",
        "a folded trailer": b"0\r\nX: y\r\n z\r\n\r\n",
        "a trailer that ends with a bare LF": b"0\r\nX: y\n\r\n",
        "a trailer with a NUL": b"0\r\nX: y\x00\r\n\r\n",
    }
    for name, body in bad_ends.items():
        yield Case(f"chunk end, {name}", _post(CHUNKED, body=body + SMUGGLED), (REFUSED,))
    yield Case(
        "chunk end, last chunk of many zeros", _post(CHUNKED, body=b"5\r\nhello\r\n00000\r\n\r\n"), (REFUSED, b"hello")
    )
    trailers = b"5\r\nhello\r\n0\r\nContent-Length: 70\r\nTransfer-Encoding: identity\r\nHost: other\r\n\r\n"
    yield Case("trailers with framing", _post(CHUNKED, body=trailers), (REFUSED, b"hello"))
    yield Case("chunks of one byte", _post(CHUNKED, body=b"1\r\nx\r\n" * 500 + b"0\r\n\r\n"), (b"x" * 500,))
    yield Case("no chunk at all", _post(CHUNKED, body=b"0\r\n\r\n"), (b"",))


def _lines_of_the_head() -> Iterator[Case]:
    token = HOST
    bad = {
        "obs-fold": _get(b"X: y", b" z"),
        "obs-fold with a tab": _get(b"X: y", b"\tz"),
        "obs-fold of nothing": _get(b"X: y", b" "),
        "a first line that begins with a space": b"GET /case HTTP/1.1\r\n X: y\r\n" + token + b"\r\n",
        "only bare LF": _get().replace(b"\r\n", b"\n"),
        "one bare LF": b"GET /case HTTP/1.1\r\nX: y\n" + token + b"\r\n",
        "a bare LF after the request line": b"GET /case HTTP/1.1\n" + token + b"\r\n",
        "a bare LF at the end": b"GET /case HTTP/1.1\r\n" + token + b"\n",
        "a bare LF and a request at the end": b"GET /case HTTP/1.1\r\n" + token + b"\n" + SMUGGLED,
        "a bare CR in a value": _get(b"X: y\rz"),
        "bare CR as the ends of lines": b"GET /case HTTP/1.1\rHost: svc\r\r",
        "CR CR LF": b"GET /case HTTP/1.1\r\r\n" + token + b"\r\n",
        "a NUL in a value": _get(b"X: y\x00z"),
        "a NUL in a name": _get(b"X\x00: y"),
        "a NUL in the target": _head(b"GET /case\x00 HTTP/1.1"),
        "a NUL in the method": _head(b"G\x00ET /case HTTP/1.1"),
        "a byte of UTF-8 in a name": _get("Xä: y".encode()),
        "a byte of UTF-8 in the target": _head("GET /cäse HTTP/1.1".encode()),
        "a space before a colon": _get(b"X : y"),
        "a tab before a colon": _get(b"X\t: y"),
        "an empty name": _get(b": y"),
        "no colon": _get(b"X"),
        "a bracket in a name": _get(b"X(y): z"),
        "a quote in a name": _get(b'"X": z'),
        "a space in a name": _get(b"X y: z"),
        "a comma in a name": _get(b"X,y: z"),
        "an escape character in a value": _get(b"X: \x1b[31m"),
        "a backspace in a value": _get(b"X: y\x08"),
        "a vertical tab in a value": _get(b"X: \x0by"),
        "a DEL in a value": _get(b"X: y\x7f"),
    }
    for name, data in bad.items():
        yield Case(f"head, {name}", data, (REFUSED,))
    yield Case("head, bytes of Latin-1 in a value", _get(b"X: \xe9\xff"), (REFUSED, b""))
    yield Case("head, UTF-8 in a value", _get("X: ä".encode()), (REFUSED, b""))
    yield Case("head, an empty value", _get(b"X:"), (b"",))
    yield Case("head, 50 fields", _get(*[b"X-%d: y" % number for number in range(50)]), (b"",))
    yield Case("head, 1000 fields", _get(*[b"X-%d: y" % number for number in range(1000)]), (REFUSED,))
    yield Case("head, one field of 300 KB", _get(b"X: " + b"y" * 300_000), (REFUSED,))
    yield Case("head, a name of 300 KB", _get(b"y" * 300_000 + b": x"), (REFUSED,))
    yield Case(
        "head, 64 fields of 8 KB", _get(*[b"X-%d: %b" % (number, b"y" * 8000) for number in range(64)]), (REFUSED,)
    )
    yield Case("head, a target of 300 KB", _head(b"GET /case?" + b"y" * 300_000 + b" HTTP/1.1"), (REFUSED,))
    yield Case("head, a method of 300 KB", _head(b"Y" * 300_000 + b" /case HTTP/1.1"), (REFUSED,))


def _request_lines() -> Iterator[Case]:
    bad = {
        "HTTP/0.9 with fields": _head(b"GET /case"),
        "HTTP/0.9 by its number": _head(b"GET /case HTTP/0.9"),
        "HTTP/1.2": _head(b"GET /case HTTP/1.2"),
        "HTTP/1.10": _head(b"GET /case HTTP/1.10"),
        "HTTP/01.1": _head(b"GET /case HTTP/01.1"),
        "HTTP/1,1": _head(b"GET /case HTTP/1,1"),
        "HTTP/2": _head(b"GET /case HTTP/2"),
        "HTTP/2.0": _head(b"GET /case HTTP/2.0"),
        "HTTP/3.0": _head(b"GET /case HTTP/3.0"),
        "HTTP/9.9": _head(b"GET /case HTTP/9.9"),
        "the version in small letters": _head(b"GET /case http/1.1"),
        "a space in the version": _head(b"GET /case HTTP/ 1.1"),
        "another protocol": _head(b"GET /case RTSP/1.0"),
        "ICE": _head(b"SOURCE /case ICE/1.0"),
        "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
        "a TLS handshake": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(range(64)) + b"\r\n\r\n",
        "a tab": _head(b"GET\t/case\tHTTP/1.1"),
        "a vertical tab": _head(b"GET\x0b/case HTTP/1.1"),
        "a space at the beginning": _head(b" GET /case HTTP/1.1"),
        "words after the version": _head(b"GET /case HTTP/1.1 GET /smuggled HTTP/1.1"),
        "a space in the target": _head(b"GET /case /smuggled HTTP/1.1"),
        "no target": _head(b"GET HTTP/1.1"),
        "no method": _head(b"/case HTTP/1.1"),
        "a method with a bracket": _head(b"G[T /case HTTP/1.1"),
        "a method with a colon": _head(b"GET: /case HTTP/1.1"),
        "a relative target": _head(b"GET case HTTP/1.1"),
        "CONNECT": _head(b"CONNECT svc:80 HTTP/1.1"),
    }
    for name, data in bad.items():
        yield Case(f"request line, {name}", data, (REFUSED,))
    yield Case("request line, HTTP/0.9", b"GET /case\r\n", (REFUSED, WAITS))
    framed = {
        "a fragment": _head(b"GET /case#frag HTTP/1.1"),
        "CONNECT of a path": _head(b"CONNECT /case HTTP/1.1"),
        "an asterisk with GET": _head(b"GET * HTTP/1.1"),
    }
    for name, data in framed.items():
        yield Case(f"request line, {name}", data, (REFUSED,), framed=True)
    good = {
        "two spaces before the target": _head(b"GET  /case HTTP/1.1"),
        "two spaces before the version": _head(b"GET /case  HTTP/1.1"),
        "an empty line before it": b"\r\n" + _get(),
        "two empty lines before it": b"\r\n\r\n" + _get(),
        "a bare LF before it": b"\n" + _get(),
        "a space at its end": _head(b"GET /case HTTP/1.1 "),
        "the method in small letters": _head(b"get /case HTTP/1.1"),
        "an unknown method": _head(b"BREW /case HTTP/1.1"),
        "the absolute form": _head(b"GET http://svc/case HTTP/1.1"),
        "the absolute form of another host": _head(b"GET http://other/case HTTP/1.1"),
    }
    for name, data in good.items():
        yield Case(f"request line, {name}", data, (REFUSED, b""))


def _bodies_where_none_is_expected() -> Iterator[Case]:
    for method in (b"GET", b"DELETE", b"OPTIONS", b"PATCH", b"PROPFIND"):
        name = method.decode()
        first = method + b" /case HTTP/1.1"
        yield Case(f"{name} with a length", _head(first, _length(SMUGGLED)) + SMUGGLED, (REFUSED, SMUGGLED))
        yield Case(f"{name} with chunks", _head(first, CHUNKED) + HELLO, (REFUSED, b"hello"))
    for name, version in {"with chunks": b"1.0"}.items():
        first = b"POST /case HTTP/" + version
        yield Case(f"HTTP/1.0 {name}", _head(first, CHUNKED) + HELLO, (REFUSED, b"hello"))
        both = _head(first, _length(HIDDEN), CHUNKED) + HIDDEN
        yield Case(f"HTTP/1.0 {name} and a length", both, (REFUSED,))
    upgrade = (b"Connection: Upgrade", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")
    yield Case(
        "an offered upgrade with a length", _post(*upgrade, _length(SMUGGLED), body=SMUGGLED), (REFUSED, SMUGGLED)
    )
    yield Case("an offered upgrade with chunks", _post(*upgrade, CHUNKED, body=HELLO), (REFUSED, b"hello"))
    yield Case(
        "an offered upgrade without Connection",
        _post(b"Upgrade: h2c", b"Content-Length: 5", body=b"hello"),
        (REFUSED, b"hello"),
    )
    expect = (b"Expect: 100-continue", _length(SMUGGLED))
    yield Case("a body that did not wait for 100", _post(*expect, body=SMUGGLED), (REFUSED, SMUGGLED))
    other = (b"Expect: 200-ok", _length(SMUGGLED))
    yield Case("an expectation nobody knows", _post(*other, body=SMUGGLED), (REFUSED, SMUGGLED))
    yield Case("a body that looks like chunks", _post(_length(HIDDEN), body=HIDDEN), (HIDDEN,))
    yield Case(
        "a chunk that looks like a request",
        _post(CHUNKED, body=b"1a\r\nGET /smuggled HTTP/1.1\r\n\r\n\r\n0\r\n\r\n"),
        (b"GET /smuggled HTTP/1.1\r\n\r\n",),
    )
    yield Case("a body of all bytes", _post(b"Content-Length: 256", body=bytes(range(256))), (bytes(range(256)),))


def _early_answers() -> Iterator[Case]:
    first = b"POST /early HTTP/1.1"
    yield Case(
        "an early answer to a length", _head(first, _length(SMUGGLED)) + SMUGGLED, (REFUSED, SMUGGLED, b""), "/early"
    )
    chunk = b"1a\r\nGET /smuggled HTTP/1.1\r\n\r\n\r\n0\r\n\r\n"
    body = b"GET /smuggled HTTP/1.1\r\n\r\n"
    yield Case("an early answer to chunks", _head(first, CHUNKED) + chunk, (REFUSED, body, b""), "/early")


def _all(*groups: Iterable[Case]) -> tuple[Case, ...]:
    cases = tuple(case for group in groups for case in group)
    names = [case.name for case in cases]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"two entries of one name: {twice}")
    return cases


CORPUS: Final = _all(
    _two_framings(),
    _obfuscated_codings(),
    _lengths(),
    _chunks(),
    _lines_of_the_head(),
    _request_lines(),
    _bodies_where_none_is_expected(),
    _early_answers(),
)
