"""What the upstream is told about the caller, and what no caller may tell it. Pure: every front end uses this one.

Names compare as the laxest of readers sees them: without regard to case, `_` read as `-`, because many servers turn
both into the same variable.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from .decision import Facts
from .policy import IDENTITY_HEADERS, Claim, Rules, Upstream

# Set anew by us, by the client library, or by neither: a caller's word on any of them counts nothing.
_REPLACED: Final = frozenset({"host", "expect", "forwarded", "x-real-ip"})
_REPLACED_PREFIX: Final = "x-forwarded-"

# Frameworks take these for the method or the path, and a rule that looked at the real ones would be got round.
_OVERRIDES: Final = frozenset(
    {"x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url"}
)

_SAFE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


_PLAIN_VALUE: Final = re.compile(r"[\x21-\x24\x26-\x7e](?:[\x20-\x24\x26-\x7e]*[\x21-\x24\x26-\x7e])?")


def plain(name: str) -> str:
    """A header's name as the laxest of readers sees it."""
    return name.lower().replace("_", "-")


_CLAIMS: Final[dict[Claim, Callable[[Facts], str | None]]] = {
    Claim.CLIENT_ID: lambda facts: facts.client_id,
    Claim.SUBJECT: lambda facts: facts.sub,
    Claim.SCOPE: lambda facts: facts.scope,
    Claim.USERNAME: lambda facts: facts.username,
    Claim.ISSUER: lambda facts: facts.iss,
}


class Identity:
    """Built once for a policy with an upstream.

    The names of `IDENTITY_HEADERS` are taken off even where others are told: an upstream may still heed them.
    """

    def __init__(self, upstream: Upstream, rules: Rules) -> None:
        self._told = tuple(upstream.identity_headers.items()) if upstream.tell_identity else ()
        self.forward_token = upstream.forward_token
        """Whether a token that was looked at passes."""
        names = {plain(name) for name in (*IDENTITY_HEADERS.values(), *upstream.identity_headers.values())}
        self._dropped = frozenset(_REPLACED | names | (_OVERRIDES if rules.rules else frozenset()))

    def drops(self, name: str, facts: Facts | None) -> bool:
        """Whether the caller's header of this plain name goes no further. `facts`: of its token, if one was needed."""
        if name == "authorization":
            # What was not looked at must not arrive as if it had been.
            return facts is None or not self.forward_token
        return name in self._dropped or name.startswith(_REPLACED_PREFIX)

    def told(self, facts: Facts | None) -> list[tuple[str, str]]:
        """Names and values of the headers that say who calls; nothing where no token was looked at."""
        if facts is None:
            return []
        claims = ((name, _CLAIMS[claim](facts)) for claim, name in self._told)
        return [(name, header_value(value)) for name, value in claims if value]


def header_value(text: str) -> str:
    """A claim as a header value: percent-encoded (UTF-8) where it is not printable ASCII.

    `%` itself is encoded too, and spaces at the ends: no two claims look alike to the upstream.
    """
    if _PLAIN_VALUE.fullmatch(text):
        return text
    encoded = quote(text.encode("utf-8", "surrogatepass"), safe=_SAFE)
    bare = encoded.strip(" ")
    left = len(encoded) - len(encoded.lstrip(" "))
    return "%20" * left + bare + "%20" * (len(encoded) - len(bare) - left)
