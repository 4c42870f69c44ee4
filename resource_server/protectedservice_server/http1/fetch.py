"""A whole request that may be repeated, and its whole answer in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..bearer import Header
from .answers import WholeAnswer
from .client import Call, Failure, Head
from .pool import Pool


class Fetch(Call):
    """Sent by `begin`, once more by the next `begin`. Subclasses say what follows: `fetched`, `failed` or `too_large`.

    They set `head`, the whole request, and `pool`; `largest` bytes of an answer's body are taken at most.

    The time is whoever began it to bound: `give_up` ends its connection, and nothing is told from then on.
    """

    repeatable = True
    patience = math.inf
    pool: Pool
    largest: int
    status = 0
    content = b""
    """The answer's body."""
    _answered: Head | WholeAnswer | None = None

    def begin(self) -> None:
        """Send it."""
        self.pool.begin(self)

    def give_up(self) -> None:
        """Forget it."""
        self.pool.give_up(self)

    @property
    def headers(self) -> Sequence[Header]:
        """Those of the answer; the names are lower case."""
        answered = self._answered
        if isinstance(answered, WholeAnswer):
            return list(zip(answered.layout.names, answered.values, strict=True))
        return answered.headers if answered is not None else ()

    def fetched(self) -> None:
        """The answer is whole: `status`, `headers` and `content`."""
        raise NotImplementedError

    def too_large(self) -> None:
        """It is larger than was wanted."""
        raise NotImplementedError

    # The connection's calls.

    def answered_whole(self, answer: WholeAnswer) -> None:
        if len(answer.body) > self.largest:
            self.too_large()
            return
        self._answered, self.status, self.content = answer, answer.status, answer.body
        self.fetched()

    def answered(self, head: Head) -> None:
        self._answered, self.status, self.content = head, head.status, b""

    def body(self, data: bytes) -> None:
        self.content += data

    def flush(self) -> None:
        if len(self.content) > self.largest:
            self.give_up()
            self.too_large()

    def finished(self, trailers: Sequence[Header]) -> None:
        self.fetched()

    def switched(self, head: Head) -> None:
        self.give_up()
        self.failed(Failure.PROTOCOL)
