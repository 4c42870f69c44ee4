"""From slices to ratios. Pure.

A virtual machine's speed swings by half between minutes, so figures of different minutes are not compared. All
candidates live at once, are loaded in turn, and the ratio is formed within each round; of these ratios the median and
the quartiles are told.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from .load import Slice


@dataclass(frozen=True, slots=True)
class Figure:
    """Median and quartiles of one quantity."""

    median: float
    lower: float
    upper: float
    values: int
    """How many there were."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why there is no figure."""

    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return "; ".join(self.reasons)


Result = Figure | Refusal


@dataclass(frozen=True, slots=True)
class Run:
    """One candidate through all rounds of a regime. `faults`: wrong answers seen outside the slices."""

    name: str
    slices: Sequence[Slice]
    faults: tuple[str, ...] = field(default=())

    def refusals(self) -> tuple[str, ...]:
        """Why no figure of this run may be told; each sentence once, in order."""
        found = [*self.faults]
        for number, piece in enumerate(self.slices, start=1):
            found += [f"round {number}: {fault}" for fault in piece.faults()]
        return tuple(f"{self.name}: {fault}" for fault in dict.fromkeys(found))


def figure(values: Iterable[float]) -> Figure:
    """Median and quartiles (inclusive: of the values seen, none beyond them).

    Raises:
        ValueError: there are no values, or one of them is not a number.
    """
    found = list(values)
    if not found or any(map(math.isnan, found)):
        raise ValueError("a figure needs at least one value, and numbers only")
    if len(found) == 1:
        return Figure(found[0], found[0], found[0], 1)
    lower, median, upper = statistics.quantiles(found, n=4, method="inclusive")
    return Figure(median, lower, upper, len(found))


def ratio(ours: Run, theirs: Run, measure: Callable[[Slice], float]) -> Result:
    """`ours` divided by `theirs`, round by round; refused where either of them answered wrongly.

    Raises:
        ValueError: the runs have different numbers of rounds, so there are no pairs.
    """
    reasons = tuple(dict.fromkeys([*ours.refusals(), *theirs.refusals()]))
    if reasons:
        return Refusal(reasons)
    return figure(measure(mine) / measure(other) for mine, other in zip(ours.slices, theirs.slices, strict=True))


def of_run(run: Run, measure: Callable[[Slice], float]) -> Result:
    """Median and quartiles of one candidate's own figure over the rounds."""
    reasons = run.refusals()
    return Refusal(reasons) if reasons else figure(map(measure, run.slices))


def rate(piece: Slice) -> float:
    """Answers a second."""
    return piece.rate


def p50(piece: Slice) -> float:
    """Milliseconds."""
    return piece.p50


def p99(piece: Slice) -> float:
    """Milliseconds."""
    return piece.p99


def cpu(piece: Slice) -> float:
    """Microseconds of processor time a request."""
    return piece.cpu_microseconds
