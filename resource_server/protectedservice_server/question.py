"""Questions to the authorization server that are under way: what they are about, who waits, and how many there may be.

No I/O but one timer of the running loop: how a question is asked is somebody else's matter (`Introspect`).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from itertools import takewhile
from time import monotonic
from typing import Final, Protocol

import msgspec

from .decision import Facts, Reason, Verdict
from .http1.unforeseen import log_bug
from .policy import Requirement

MOST_ASKED: Final = 64
"""Questions asked at once. More only queue up inside the authorization server, where they cost it memory."""


class Learnt(msgspec.Struct, frozen=True, gc=False):
    """An answer about a token."""

    facts: Facts
    blames_token: bool = False
    """The server refused to look at the token. Anybody can send such a one, so it says nothing about the server."""


class Unavailable(Exception):
    """No answer that can be trusted. `kind` is one word for the metric and the log: never text of another system.

    Attributes:
        counts: whether it says anything about the authorization server, and so to the breaker. What only one token or
            our own queue is to blame for must not: anybody can send such tokens, and many.
    """

    reason: Reason = Reason.AS_UNAVAILABLE

    def __init__(self, kind: str, retry_after: float | None = None, *, counts: bool = True) -> None:
        super().__init__(kind)
        self.kind = kind
        self.retry_after = retry_after
        self.counts = counts


class RefusedUs(Unavailable):
    """The authorization server does not accept this server's own credentials, fresh from their files."""

    reason = Reason.AS_REFUSED_US

    def __init__(self) -> None:
        super().__init__("refused_us")


Outcome = Learnt | Exception
"""How a question ends: an answer, `Unavailable`, or a fault of our own."""


class Asker(Protocol):
    """Who wants an answer."""

    def told(self, outcome: Outcome) -> None:
        """It came, or will not. Called once, unless the question was given up before; raises nothing."""


class Asking(Protocol):
    """A question on its way."""

    def give_up(self) -> None:
        """Nobody waits for the answer any more: nothing is told from now on."""


Introspect = Callable[[str, Asker], Asking]
"""Asks about a token; the asker may be told at once. It need not watch the time: what is late is given up."""


class Waiter:
    """A request that waits for an answer. Subclasses say what to do with what comes of it."""

    __slots__ = ("arrived", "question", "requirement")

    arrived: float
    requirement: Requirement
    question: Question

    def told(self, verdict: Verdict) -> None:
        """What was decided. Called at most once; never after the waiter has left."""
        raise NotImplementedError

    def crashed(self, bug: Exception) -> None:
        """Nobody foresaw this, and nothing can be decided; or `told` has raised it itself. Raises nothing."""
        raise NotImplementedError


class Question(msgspec.Struct, eq=False):
    """One question, asked once for all who wait. It is the `Asker`: its outcome goes to `ended`.

    A `probe` decides whether the breaker closes. Times are the verifier's: `began` and `sent_at` are monotonic.
    """

    key: bytes
    token: str
    began: float
    probe: bool
    ended: Callable[[Question, Outcome], None]
    waiters: dict[Waiter, None]
    asking: Asking | None = None
    deadline: float = 0.0
    """When it is late, as `time.monotonic` counts seconds."""
    sent_at: float | None = None
    """None until it is really sent. Everything about its answer counts from here."""
    sent_wall: float = 0.0
    """The same in seconds since 1970."""
    joinable: bool = True
    """Whether others may wait for its answer too: it has not ended, and nothing speaks against."""
    void: bool = False
    """Its answer must not be used."""
    overtaken: bool = False
    """Its answer must not be remembered: since it was sent, another one was answered inactive."""

    def __repr__(self) -> str:
        return object.__repr__(self)  # a Struct's own tells every field, and so the token

    def told(self, outcome: Outcome) -> None:
        """See `Asker`."""
        self.ended(self, outcome)


class Questions:
    """All of them. At most `MOST_ASKED` are asked at once, the others wait for a place; each for `budget` seconds.

    The time in the queue counts too: no caller waits longer for the sake of others. `send` sends one.
    """

    def __init__(self, budget: float, send: Callable[[Question], None]) -> None:
        self._budget = budget
        self._send = send
        self.by_key: dict[bytes, dict[Question, None]] = {}
        """Those about each token, the latest last."""
        self._open: dict[Question, None] = {}  # the oldest first, and so the one that will be late first
        self._queue: OrderedDict[Question, None] = OrderedDict()
        self._places = MOST_ASKED
        self._filling = False
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, question: Question) -> bool:
        return question in self._open

    def begin(self, question: Question) -> None:
        """Send it now, or as soon as there is a place. It must `end` once."""
        now = monotonic()
        question.deadline = now + self._budget
        if self._timer is None:
            # One for all, and mostly there already: a timer for each costs more than all the rest of this.
            self._arm(question.deadline)
        self._open[question] = None
        earlier = self.by_key.get(question.key)
        if earlier is None:
            self.by_key[question.key] = {question: None}
        else:
            earlier[question] = None
        if self._places:
            self._places -= 1
            self._send(question)
        else:
            self._queue[question] = None

    def end(self, question: Question) -> None:
        """Know nothing of it any more; the next one has its place."""
        question.joinable = False
        question.asking = None  # it knows the question too; parted, both go without the garbage collector
        del self._open[question]
        about = self.by_key[question.key]
        if len(about) == 1:
            del self.by_key[question.key]
        else:
            del about[question]
        if question.sent_at is None:
            del self._queue[question]
        else:
            self._places += 1
            if self._queue:
                self._fill()

    def close(self) -> None:
        """Give up all of them; who waits is told that there is no answer."""
        while self._open:
            for question in reversed(self._open.copy()):  # those without a place first, so that none gets one now
                self._give_up(question, Unavailable("closing", counts=False))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None  # the next question may come in another loop

    def _fill(self) -> None:
        """Send what has a place now. Not from within itself: one that fails at once makes room for the next."""
        if self._filling:
            return
        self._filling = True
        try:
            while self._places and self._queue:
                self._places -= 1
                self._send(self._queue.popitem(last=False)[0])
        finally:
            self._filling = False

    def _arm(self, due: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(max(0.0, due - monotonic()), self._look_for_late)

    def _look_for_late(self) -> None:
        now = monotonic()
        late = list(takewhile(lambda question: question.deadline <= now, self._open))
        try:
            for question in reversed(late):  # those without a place first: late already, they must not get one now
                # A wait for our own places says nothing about the server.
                sent = question.sent_at is not None
                self._give_up(question, Unavailable("timeout") if sent else Unavailable("saturated", counts=False))
        finally:
            self._timer = None
            if self._open:
                self._arm(next(iter(self._open)).deadline)

    def _give_up(self, question: Question, failure: Unavailable) -> None:
        if question not in self._open:
            return  # what came of one before it has ended it
        try:
            if question.asking is not None:
                question.asking.give_up()
        except Exception as bug:  # it must not keep those behind it from their deadlines
            log_bug("A question could not be given up", bug)
        question.told(failure)
