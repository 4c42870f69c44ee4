"""What has been learnt about tokens, for as long as it may be used. No I/O, no clock of its own.

Keys are digests, so that a memory dump of the cache holds no usable token. Plain dicts in order of insertion are
enough: lifetimes are nearly equal, so the oldest entry is the first one, and eviction is O(1).
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from .decision import Facts

MOST_ACTIVE: Final = 50_000
MOST_INACTIVE: Final = 10_000
"""Entries of each table. Apart, so that somebody who sends junk cannot push good tokens out."""

INACTIVE_LIFETIME: Final = 2.0
"""Seconds. Long enough to blunt a loop with a dead token, short enough for one that was used a moment too early."""


def key_of(token: str) -> bytes:
    """The key of a token."""
    return hashlib.sha256(token.encode("ascii")).digest()


class Entry(msgspec.Struct, frozen=True, gc=False):
    """Facts, and when their question was sent (monotonic seconds)."""

    facts: Facts
    asked_at: float
    until: float
    """When requests must not use them any more that have another way."""
    kept_until: float
    """When no request may use them any more, not even while the authorization server is down."""


class Cache:
    """Two bounded tables: good tokens and refused ones.

    `bound` is maxRevocationDelay, `stale` is serveStale, both in seconds.
    """

    def __init__(
        self,
        bound: float,
        stale: float = 0.0,
        *,
        most_active: int = MOST_ACTIVE,
        most_inactive: int = MOST_INACTIVE,
    ) -> None:
        self._bound = bound
        self._stale = stale
        self._active: dict[bytes, Entry] = {}
        self._inactive: dict[bytes, Entry] = {}
        self._most_active = most_active
        self._most_inactive = most_inactive

    def get(self, key: bytes, arrived: float) -> Facts | None:
        """Facts that a request which arrived at `arrived` may use: asked for less than the bound before it."""
        entry = self._active.get(key) or self._inactive.get(key)
        if entry is None or arrived >= entry.until:
            return None
        return entry.facts

    def stale(self, key: bytes, arrived: float) -> Facts | None:
        """Facts of a good token that such a request may use where nobody can be asked: `stale` beyond the bound."""
        entry = self._active.get(key)
        if entry is None or arrived >= entry.kept_until:
            return None
        return entry.facts

    def put(self, key: bytes, facts: Facts, asked_at: float, lifetime: float) -> None:
        """Remember `facts` for `lifetime` seconds from `asked_at`, at most for the bound (and `stale`).

        Of two answers about one token the one that was asked for later stays, in whatever order they come back. But
        where it says that the token is good and the other that it is not, neither does: which of them the server looked
        at last nobody knows.
        """
        known = self._active.get(key) or self._inactive.get(key)
        if known is not None and known.asked_at > asked_at:
            if known.facts.active and not facts.active:
                self.forget(key)
            return
        self.forget(key)
        fresh, kept = min(lifetime, self._bound), min(lifetime, self._bound + self._stale)
        if not facts.active:
            fresh = kept = min(fresh, INACTIVE_LIFETIME)
        if kept <= 0:
            return
        table, most = (self._active, self._most_active) if facts.active else (self._inactive, self._most_inactive)
        _drop_oldest(table, most - 1, asked_at)
        table[key] = Entry(facts, asked_at, asked_at + fresh, asked_at + kept)

    def forget(self, key: bytes) -> None:
        """Know nothing of this token any more."""
        self._active.pop(key, None)
        self._inactive.pop(key, None)

    def sizes(self) -> tuple[int, int]:
        """Entries held: active, inactive."""
        return len(self._active), len(self._inactive)


def _drop_oldest(table: dict[bytes, Entry], most: int, now: float) -> None:
    """Drop the oldest entries beyond `most`, and those at the front that nobody can use any more."""
    while table:
        key = next(iter(table))
        if len(table) <= most and table[key].kept_until > now:
            return
        del table[key]
