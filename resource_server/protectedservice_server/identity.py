"""What the upstream is told about the caller, and what no caller may tell it. Pure: every front end uses this one.

Names compare as the laxest of readers sees them: without regard to case, `_` read as `-`, because many servers turn
both into the same variable.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from .decision import Facts
from .policy import Rules

IDENTITY: Final = ("x-auth-client-id", "x-auth-subject", "x-auth-scope")

# Set anew by us, by the client library, or by neither: a caller's word on any of them counts nothing.
_REPLACED: Final = frozenset({"authorization", "host", "expect", "forwarded", "x-real-ip"})
_REPLACED_PREFIX: Final = "x-forwarded-"

# Frameworks take these for the method or the path, and a rule that looked at the real ones would be got round.
_OVERRIDES: Final = frozenset(
    {"x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url"}
)

_SAFE: Final = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def plain(name: str) -> str:
    """A header's name as the laxest of readers sees it."""
    return name.lower().replace("_", "-")


class Identity:
    """Built once for a policy with an upstream."""

    def __init__(self, rules: Rules = Rules()) -> None:  # noqa: B008 it cannot be changed
        self.dropped: frozenset[str] = _REPLACED | set(IDENTITY) | (_OVERRIDES if rules.rules else frozenset())
        """Plain names of the caller's headers that go no further, beside those of `drops`."""

    def drops(self, name: str) -> bool:
        """Whether the caller's header of this plain name goes no further."""
        return name in self.dropped or name.startswith(_REPLACED_PREFIX)

    def told(self, facts: Facts | None) -> list[tuple[str, str]]:
        """Names and values of the headers that say who calls; nothing where no token was looked at."""
        if facts is None:
            return []
        claims = (facts.client_id, facts.sub, facts.scope)
        return [(name, header_value(claim)) for name, claim in zip(IDENTITY, claims, strict=True) if claim]


def header_value(text: str) -> str:
    """A claim as a header value: percent-encoded (UTF-8) where it is not printable ASCII.

    `%` itself is encoded too, and spaces at the ends: no two claims look alike to the upstream.
    """
    encoded = quote(text.encode("utf-8", "surrogatepass"), safe=_SAFE)
    bare = encoded.strip(" ")
    left = len(encoded) - len(encoded.lstrip(" "))
    return "%20" * left + bare + "%20" * (len(encoded) - len(bare) - left)
