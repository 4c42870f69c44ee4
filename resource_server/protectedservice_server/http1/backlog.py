"""What all connections of one server keep of requests that nobody has let in yet, and how much that may be in all."""

from __future__ import annotations


class Backlog:
    """Bytes, counted exactly: each connection tells what it keeps, and that it keeps nothing any more.

    A connection that keeps no more than `each` has room whatever the others keep: who fills the account takes the
    service from nobody whose requests are small. So `most`, and `each` for every connection, is the bound of all.
    """

    def __init__(self, most: int, each: int) -> None:
        self._most = most
        self._each = each
        self.bytes = 0
        """Kept now."""

    def changes(self, before: int, now: int) -> bool:
        """A connection keeps `now` instead of `before`. False: there is no room for it, and nothing is noted."""
        total = self.bytes + now - before
        if now > before and now > self._each and total > self._most:
            return False
        self.bytes = total
        return True
