"""What a regime hands to the report: a table of results, the ratios for the gates, remarks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .pairing import Result


@dataclass(frozen=True, slots=True)
class Column:
    """A heading; how many decimals its figures have; whether the quartiles are told too."""

    heading: str
    decimals: int = 0
    spread: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One candidate. None: the column does not apply to it."""

    title: str
    cells: Sequence[Result | None]


@dataclass(frozen=True, slots=True)
class Section:
    """One regime, measured."""

    title: str
    how: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    results: Mapping[str, Result] = field(default_factory=dict)
    """By key of a gate."""
    remarks: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Effort:
    """How long a run takes."""

    rounds: int = 9
    """Of slices of one second; an unmeasured round comes first."""
    token_rounds: int = 5
    """Of the 10,000 tokens: their slices take as long as the tokens live."""
    token_seconds: int = 5
    remembered: int = 40_000
    """Tokens for the memory of one; the server remembers at most 50,000."""
    starts: int = 5
    bursts: int = 3
    collected: int = 1_000_000


FULL = Effort()
QUICK = Effort(rounds=2, token_rounds=1, token_seconds=2, remembered=4_000, starts=2, bursts=1)
