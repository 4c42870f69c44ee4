"""`POST /revoked`: somebody tells that a token was revoked, so that nobody need wait for the end of its bound.

The body is that of RFC 7009 (`token=...`, form-urlencoded); the caller shows a secret as bearer token. It is a hint,
not a verdict: what is known of the token is dropped, and the authorization server is asked anew. Whoever has the secret
can cost questions, but let nobody in and keep nobody out.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

from .bearer import LONGEST_TOKEN, Answer, Header, error, token_of
from .decision import Reason

logger = logging.getLogger(__name__)

PATH: Final = "/revoked"
LARGEST_BODY: Final = 2 * LONGEST_TOKEN
"""Bytes: the longest token that is looked at, with room for what a form adds."""

SHORTEST_SECRET: Final = 16
LONGEST_SECRET: Final = 4096
"""Bytes. What is shorter can be guessed; what is longer is the wrong file."""

_B64TOKEN: Final = re.compile(rb"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750 section 2.1
_MOST_FIELDS: Final = 8
_FORM: Final = b"application/x-www-form-urlencoded"


class SecretError(ValueError):
    """The file cannot be used; `faults` has one sentence a fault, each starting with the file. Never a content."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class Secret:
    """What the caller must show: one line of a file, read at each use, so that a changed one holds at once.

    While the file cannot be used, what was read before stays in force.

    Raises:
        SecretError: on construction, when the file cannot be used now.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._digest = _read(file)

    def is_shown_by(self, given: str) -> bool:
        """Whether this is the secret; takes as long for a near miss as for a far one."""
        try:
            self._digest = _read(self._file)
        except SecretError as unusable:
            for fault in unusable.faults:
                logger.warning("The secret of the revocation webhook cannot be read again: %s", fault)
        return hmac.compare_digest(sha256(given.encode()).digest(), self._digest)


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            content = opened.read(LONGEST_SECRET + 1)
    except OSError as failure:
        raise SecretError([f"{file}: cannot be read: {failure.strerror or type(failure).__name__}"]) from None
    value = content.removesuffix(b"\n").removesuffix(b"\r")
    if not SHORTEST_SECRET <= len(value) <= LONGEST_SECRET:
        raise SecretError(
            [f"{file}: must hold {SHORTEST_SECRET} to {LONGEST_SECRET} characters: is it the right file?"]
        )
    if not _B64TOKEN.fullmatch(value):
        raise SecretError([f"{file}: must be one line of letters, digits and -._~+/ (RFC 6750 section 2.1)"])
    return sha256(value).digest()


class RevocationWebhook:
    """Answers `POST /revoked`. `forget` is called with each token that was told, before the answer."""

    def __init__(self, secret: Secret, forget: Callable[[str], None]) -> None:
        self._secret = secret
        self._forget = forget

    def refusal(self, method: str, headers: Iterable[Header]) -> Answer | None:
        """The answer that needs no look at the body; None: read it, up to LARGEST_BODY, and call `answer`."""
        headers = [(name.lower(), value) for name, value in headers]
        given = token_of([value for name, value in headers if name == b"authorization"])
        if isinstance(given, Reason) or not self._secret.is_shown_by(given):
            challenge = (b"www-authenticate", b'Bearer realm="protectedservice"')
            return error(401, "unauthorized", "The webhook's secret is required as a bearer token", challenge)
        if method != "POST":
            return error(405, "method_not_allowed", "Use POST", (b"allow", b"POST"))
        kinds = [value.partition(b";")[0].strip().lower() for name, value in headers if name == b"content-type"]
        if kinds != [_FORM]:
            return error(400, "invalid_request", "The body must be application/x-www-form-urlencoded")
        return None

    def answer(self, body: bytes) -> Answer:
        """The answer to a body whose head was not refused: 204, whether anything was known of the token or not."""
        token = _token(body)
        if token is None:
            return error(400, "invalid_request", "The body must hold exactly one access token, as token=... (RFC 7009)")
        self._forget(token)
        return Answer(204, ((b"cache-control", b"no-store"),), b"")


def _token(body: bytes) -> str | None:
    if len(body) > LARGEST_BODY:
        return None
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=True, max_num_fields=_MOST_FIELDS
        )
    except ValueError:
        return None
    tokens = [value for name, value in pairs if name == "token"]
    if len(tokens) != 1 or len(tokens[0]) > LONGEST_TOKEN or not tokens[0].isascii():
        return None
    return tokens[0] if _B64TOKEN.fullmatch(tokens[0].encode()) else None
