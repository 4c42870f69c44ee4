"""The gates of the design (resource server, "Speed") as data, and whether they are met. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from .pairing import Figure, Refusal, Result


class Bound(StrEnum):
    """Which side of the limit is good."""

    AT_LEAST = "≥"
    AT_MOST = "≤"


class Verdict(StrEnum):
    """What a gate came to."""

    MET = "met"
    NOT_MET = "NOT MET"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Gate:
    """One promise about one figure's median. `figure` is its key: regime, then what ours is divided by."""

    what: str
    figure: str
    bound: Bound
    limit: float
    unit: str = "×"


@dataclass(frozen=True, slots=True)
class Judged:
    """A gate with what was found. `why` is there where nothing was measured."""

    gate: Gate
    verdict: Verdict
    found: Figure | None = None
    why: str = ""


_LEAST, _MOST = Bound.AT_LEAST, Bound.AT_MOST

GATES: Final = (
    Gate("hot cache ÷ bare granian hello", "hot/granian-hello", _LEAST, 1.4),
    Gate("hot cache ÷ nginx `return`", "hot/nginx-return", _LEAST, 0.6),
    Gate("hot cache ÷ nginx + Lua with a token cache", "hot/nginx-lua", _LEAST, 0.8),
    Gate("hot cache ÷ Apache mod_oauth2", "hot/apache-oauth2", _LEAST, 6.5),
    Gate("hot cache, p99 ÷ nginx + Lua", "hot-p99/nginx-lua", _MOST, 2.5),
    Gate("10,000 tokens, 5 s ÷ own hot cache", "tokens/ours-hot", _LEAST, 0.8),
    Gate("no cache ÷ Node with fetch", "no-cache/node-fetch", _LEAST, 12),
    Gate("no cache ÷ nginx + Lua without a cache", "no-cache/nginx-lua", _LEAST, 0.8),
    Gate("proxy, 200 B ÷ nginx + Lua + proxy_pass", "proxy-200b/nginx-lua", _LEAST, 0.75),
    Gate("proxy, 100 KB ÷ nginx + Lua + proxy_pass", "proxy-100k/nginx-lua", _LEAST, 0.6),
    Gate("200 at once with one unknown token: introspections", "flight/ours", _MOST, 1, "calls"),
    Gate("memory when idle", "memory-idle/ours", _MOST, 35, "MB"),
    Gate("memory of one remembered token", "memory-token/ours", _MOST, 500, "B"),
    Gate("start to first 200", "start/ours", _MOST, 300, "ms"),
    Gate("longest collector pause with 1 M tokens", "pause/ours", _MOST, 20, "ms"),
)


def judge(gates: Sequence[Gate], results: Mapping[str, Result]) -> list[Judged]:
    """Each gate with its verdict; no figure means no verdict, never a good one."""
    return [_judged(gate, results.get(gate.figure)) for gate in gates]


def _judged(gate: Gate, result: Result | None) -> Judged:
    if result is None:
        return Judged(gate, Verdict.NOT_MEASURED, why="the regime was not run")
    if isinstance(result, Refusal):
        return Judged(gate, Verdict.NOT_MEASURED, why=str(result))
    good = result.median >= gate.limit if gate.bound is Bound.AT_LEAST else result.median <= gate.limit
    return Judged(gate, Verdict.MET if good else Verdict.NOT_MET, result)
