"""What a candidate needs when nothing is fast: memory, time to start, the collector's pauses, one shared question."""

from __future__ import annotations

import secrets
import subprocess
import time
from collections.abc import Sequence
from typing import Final

from . import load, single_flight
from .bench import SERVER_CORE, Bench, Live, StartError
from .candidates import APACHE, ASGI_UVICORN, GRANIAN, NGINX_LUA, NODE, OURS, PEERS, Candidate, Setup
from .load import Load, LoadError
from .packages import ROOT
from .pairing import Refusal, Result, figure
from .sections import Column, Effort, Row, Section

INTROSPECTION_DELAY: Final = 0.05
"""Seconds that the stub takes to answer while a burst waits."""

SETTLED: Final = 0.3
"""Seconds after the first answer until memory is read: what only the start needed is given back by then."""


def memory(bench: Bench, effort: Effort) -> Section:
    """When idle, and what one more remembered token costs."""
    remembering = (OURS, ASGI_UVICORN, NODE)
    rows: list[Row] = []
    results: dict[str, Result] = {}
    for candidate in (OURS, ASGI_UVICORN, NODE, NGINX_LUA, APACHE, GRANIAN):
        idle, token = _memory(bench, candidate, effort.remembered if candidate in remembering else 0)
        results[f"memory-idle/{candidate.name}"] = idle
        if token is not None:
            results[f"memory-token/{candidate.name}"] = token
        rows.append(Row(candidate.title, [idle, token]))
    return Section(
        "Memory",
        f"Proportional set size of all processes of a candidate, idle after its first answer; then its growth over "
        f"{effort.remembered:,} tokens that were introspected and are remembered, each.",
        (Column("idle MB", 1), Column("B a token")),
        rows,
        results,
        ("Node's figure holds garbage that V8 has not collected yet; nginx and Apache allot their tables whole",),
    )


def _memory(bench: Bench, candidate: Candidate, tokens: int) -> tuple[Result, Result | None]:
    try:
        live = bench.start(candidate, Setup(lifetime=600))
    except StartError as error:
        refusal = Refusal((str(error),))
        return refusal, refusal if tokens else None
    try:
        faults = live.faults("/protected")
        if faults:
            refusal = Refusal(tuple(f"{candidate.name}: {fault}" for fault in faults))
            return refusal, refusal if tokens else None
        time.sleep(SETTLED)
        idle = figure([live.running.memory() / 1e6])
        return idle, _token_memory(bench, live, tokens) if tokens else None
    finally:
        bench.stop(live)


def _token_memory(bench: Bench, live: Live, tokens: int) -> Result:
    """Growth for each token that was asked about, from after the connections' own buffers were there."""
    name, url = live.candidate.name, live.url("/protected")
    few = tokens // 20
    try:
        faults = load.run(Load({}, PEERS / "tokens.lua", few), url, 2).faults()
        before, asked = live.running.memory(), bench.introspections()
        for _ in range(4):
            faults += load.run(Load({}, PEERS / "tokens.lua", tokens), url, 5).faults()
            learnt = bench.introspections() - asked
            if learnt >= tokens - few:
                break
    except LoadError as error:
        return Refusal((f"{name}: {error}",))
    if faults:
        return Refusal(tuple(f"{name}: {fault}" for fault in dict.fromkeys(faults)))
    if learnt < tokens // 2:
        return Refusal((f"{name}: only {learnt} of {tokens} tokens were learnt in 20 s",))
    return figure([(live.running.memory() - before) / learnt])


def start_up(bench: Bench, effort: Effort) -> Section:
    """From the start of the process to the first good answer, an introspection included."""
    rows: list[Row] = []
    results: dict[str, Result] = {}
    for candidate in (OURS, ASGI_UVICORN, NODE, NGINX_LUA, APACHE, GRANIAN):
        found = _starts(bench, candidate, effort.starts)
        results[f"start/{candidate.name}"] = found
        rows.append(Row(candidate.title, [found]))
    return Section(
        "Start",
        f"From the start of the process to its first 200, one introspection included; {effort.starts} starts after an "
        "unmeasured one.",
        (Column("ms", spread=True),),
        rows,
        results,
    )


def _starts(bench: Bench, candidate: Candidate, starts: int) -> Result:
    took: list[float] = []
    for _ in range(starts + 1):
        try:
            live = bench.start(candidate, Setup())
        except StartError as error:
            return Refusal((str(error),))
        took.append(live.started_in * 1e3)
        bench.stop(live)
    return figure(took[1:])


def flight(bench: Bench, effort: Effort) -> Section:
    """200 requests at once with one token that nobody has seen."""
    rows: list[Row] = []
    results: dict[str, Result] = {}
    bench.delay_introspection(INTROSPECTION_DELAY)
    try:
        for candidate in (OURS, NGINX_LUA, NODE, APACHE, ASGI_UVICORN):
            calls, wall = _bursts(bench, candidate, effort.bursts)
            results[f"flight/{candidate.name}"] = calls
            rows.append(Row(candidate.title, [calls, wall]))
    finally:
        bench.delay_introspection(0)
    return Section(
        "Single flight",
        f"{single_flight.REQUESTS} requests at once with one unknown token; the authorization server takes "
        f"{INTROSPECTION_DELAY * 1e3:.0f} ms; {effort.bursts} bursts.",
        (Column("introspections", spread=True), Column("ms until all are answered", spread=True)),
        rows,
        results,
    )


def _bursts(bench: Bench, candidate: Candidate, bursts: int) -> tuple[Result, Result]:
    try:
        live = bench.start(candidate, Setup())
    except StartError as error:
        refusal = Refusal((str(error),))
        return refusal, refusal
    calls: list[int] = []
    walls: list[float] = []
    faults: list[str] = list(live.faults("/protected"))
    try:
        for _ in range(bursts):
            before = bench.introspections()
            try:
                burst = single_flight.burst(live.place.port, "/protected", f"good-{secrets.token_hex(16)}")
            except (OSError, TimeoutError, EOFError, ValueError) as error:
                faults.append(f"a burst was not answered ({type(error).__name__})")
                break
            if set(burst.statuses) != {200}:
                faults.append(f"a burst was answered {burst.statuses}")
            calls.append(bench.introspections() - before)
            walls.append(burst.milliseconds)
    finally:
        bench.stop(live)
    if faults:
        refusal = Refusal(tuple(f"{candidate.name}: {fault}" for fault in faults))
        return refusal, refusal
    return figure(calls), figure(walls)


def pause(bench: Bench, effort: Effort) -> Section:
    """The collector's longest pause with a million remembered tokens."""
    python = bench.tools.venv / "bin" / "python"
    script = ROOT / "benchmarks" / "gc_pause.py"
    command = ["taskset", "-c", str(SERVER_CORE), str(python), "-P", str(script), str(effort.collected)]
    found = _pause(command)
    return Section(
        "Collector pause",
        f"The longest pause of Python's collector while {effort.collected:,} tokens are remembered, and of a full "
        "collection then; in the server's environment with its own entries.",
        (Column("ms", 1),),
        [Row(OURS.title, [found])],
        {"pause/ours": found},
    )


def _pause(command: Sequence[str]) -> Result:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    except subprocess.TimeoutExpired:
        return Refusal(("ours: a million tokens were not remembered within 180 s",))
    if ended.returncode != 0:
        return Refusal((f"ours: {' / '.join(ended.stderr.strip().splitlines()[-2:])}",))
    return figure([float(ended.stdout)])
