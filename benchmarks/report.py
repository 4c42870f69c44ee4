"""The report as Markdown. Pure: everything it says was measured, computed or handed in."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from .gates import Judged, Verdict
from .pairing import Figure, Refusal, Result
from .sections import Column, Section

BUSY: Final = 0.5
"""Load average before the run above which a machine counts as busy: a quiet one of two cores is near 0."""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Where, when and with what."""

    date: str
    machine: str
    load_average: float
    """Of the minute before the run."""
    command: str
    versions: Mapping[str, str]
    quick: bool = False

    def warnings(self) -> list[str]:
        """Why the figures are not to be relied on; empty: nothing is known against them."""
        found: list[str] = []
        if self.load_average > BUSY:
            found.append(
                f"The machine was busy (load average {self.load_average:.1f} before the run): do not compare figures."
            )
        if self.quick:
            found.append("A quick run (--quick): it shows that everything works, not how fast.")
        return found


def circumstances(command: str, versions: Mapping[str, str], load_average: float, *, quick: bool) -> Circumstances:
    """Those of now, on this machine; the load average is handed in, because a run is itself load."""
    model = "unknown processor"
    memory = 0.0
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    for line in Path("/proc/meminfo").read_text("ascii").splitlines():
        if line.startswith("MemTotal:"):
            memory = int(line.split()[1]) / 2**20
    machine = f"{os.cpu_count()} × {model}, {memory:.0f} GiB, Linux {platform.release()}"
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Circumstances(date, machine, load_average, command, versions, quick)


def render(found: Circumstances, judged: Sequence[Judged], sections: Sequence[Section]) -> str:
    """The whole file."""
    parts = [
        "# Resource server beside its peers\n\nWritten by `benchmarks/data_plane.py`; do not edit. "
        "Method: [docs/performance.md](../docs/performance.md).\n",
        *(f"**{warning}**\n" for warning in found.warnings()),
        f"{found.date}; {found.machine}; load average before the run {found.load_average:.2f}. Command: "
        f"`{found.command}`.\nServer under test on core 0 with one worker; wrk (1 thread, 64 connections), stub "
        "authorization server and upstream on core 1.\nRatios are formed within a round; median (quartiles).\n",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in found.versions.items()) + ".\n",
        gates(judged),
        *map(section, sections),
    ]
    return "\n".join(parts)


def gates(judged: Sequence[Judged]) -> str:
    """The gates with their verdicts."""
    lines = ["## Gates\n", "| gate | limit | measured | verdict |", "|---|---|---|---|"]
    for one in judged:
        decimals = {"×": 2, "MB": 1, "ms": 1}.get(one.gate.unit, 0)
        unit = "" if one.gate.unit == "×" else f" {one.gate.unit}"
        measured = _figure(one.found, decimals, spread=True) + unit if one.found else "–"
        verdict = {Verdict.MET: "met", Verdict.NOT_MET: "**not met**"}.get(one.verdict, f"not measured: {one.why}")
        lines.append(f"| {one.gate.what} | {one.gate.bound} {one.gate.limit:g}{unit} | {measured} | {verdict} |")
    met = sum(one.verdict is Verdict.MET for one in judged)
    return "\n".join([*lines, f"\n{met} of {len(judged)} met.\n"])


def section(found: Section) -> str:
    """One regime's table."""
    headings = ["candidate", *(column.heading for column in found.columns)]
    lines = [f"## {found.title}\n", f"{found.how}\n", _line(headings), _line(["---"] * len(headings))]
    refusals: list[str] = []
    for row in found.rows:
        lines.append(_line([row.title, *map(_cell, row.cells, found.columns)]))
        for cell in row.cells:
            if isinstance(cell, Refusal):
                refusals += cell.reasons
    notes = [f"- refused: {reason}" for reason in dict.fromkeys(refusals)] + [f"- {remark}" for remark in found.remarks]
    return "\n".join([*lines, "", *notes, *([""] if notes else [])])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(result: Result | None, column: Column) -> str:
    if result is None:
        return "–"
    if isinstance(result, Refusal):
        return "refused"
    return _figure(result, column.decimals, spread=column.spread)


def _figure(found: Figure, decimals: int, *, spread: bool) -> str:
    text = f"{found.median:,.{decimals}f}"
    if spread and found.values > 1:
        text += f" ({found.lower:,.{decimals}f}–{found.upper:,.{decimals}f})"
    return text
