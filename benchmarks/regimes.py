"""The throughput regimes: all candidates alive at once, short slices in turn."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from . import load, pairing
from .answers import GOOD_TOKEN
from .bench import Bench, Live, StartError
from .candidates import (
    APACHE,
    ASGI_GRANIAN,
    ASGI_UVICORN,
    GRANIAN,
    NGINX_LUA,
    NGINX_RETURN,
    NODE,
    OURS,
    PEERS,
    Candidate,
    Setup,
)
from .load import Load, LoadError, Slice
from .pairing import Result, Run
from .sections import Column, Effort, Row, Section

AUTHORIZATION: Final = {"Authorization": f"Bearer {GOOD_TOKEN}"}
ONE_TOKEN: Final = Load(AUTHORIZATION)
TEN_HEADERS: Final = Load(
    AUTHORIZATION
    | {
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0",
        "Accept": "application/json, text/plain, */*",
        "Accept-Encoding": "gzip, deflate, br, zstd",
        "Accept-Language": "en-GB,en;q=0.9",
        "Cookie": "sid=0123456789abcdef0123456789abcdef; theme=dark",
        "Referer": "https://app.example.test/dashboard",
        "X-Request-Id": "7b1c2c1e-53a5-4f0e-9d4b-7a1b3a3c0a11",
        "Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    }
)
"""With Host ten, as a browser behind a gateway sends them."""
MANY_TOKENS: Final = Load({}, script=PEERS / "tokens.lua", tokens=10_000)

COLUMNS: Final = (
    Column("req/s"),
    Column("p50 ms", 2),
    Column("p99 ms", 2),
    Column("CPU µs/req", 1),
    Column("introspections a slice"),
    Column("ours ÷ it", 2, spread=True),
    Column("p99: ours ÷ it", 2, spread=True),
)


@dataclass(frozen=True, slots=True)
class Contestant:
    """A candidate under one load. Two contestants of one candidate share its process."""

    candidate: Candidate
    load: Load
    seconds: int = 1
    warm_up: int = 0
    """Unmeasured seconds before each slice."""
    name: str = ""
    title: str = ""

    def called(self) -> str:
        return self.name or self.candidate.name


@dataclass(frozen=True, slots=True)
class Regime:
    """What is compared, and how."""

    key: str
    title: str
    how: str
    contestants: Sequence[Contestant]
    setup: Setup
    path: str = "/protected"
    rounds: int = 1
    first_round: bool = True
    """Whether an unmeasured round comes first."""
    each_introspects: bool = False
    """A slice with fewer introspections than answers is a wrong one."""


def hot(bench: Bench, effort: Effort) -> Section:
    """One good token, remembered for 5 s."""
    peers = (NGINX_RETURN, NGINX_LUA, APACHE, NODE, GRANIAN, ASGI_UVICORN, ASGI_GRANIAN)
    return measure(
        bench,
        Regime(
            "hot",
            "Hot cache",
            "One good token, remembered for 5 s; the two headers Host and Authorization.",
            [Contestant(candidate, ONE_TOKEN) for candidate in (OURS, *peers)],
            Setup(),
            rounds=effort.rounds,
        ),
    )


def headers(bench: Bench, effort: Effort) -> Section:
    """The same with the headers of a real caller."""
    peers = (NGINX_RETURN, NGINX_LUA, APACHE, NODE, GRANIAN, ASGI_UVICORN)
    return measure(
        bench,
        Regime(
            "headers",
            "Hot cache, ten headers",
            "The same with the ten headers of a browser's call through a gateway.",
            [Contestant(candidate, TEN_HEADERS) for candidate in (OURS, *peers)],
            Setup(),
            rounds=effort.rounds,
        ),
    )


def tokens(bench: Bench, effort: Effort) -> Section:
    """10,000 tokens in turn, each remembered for 5 s, beside our own hot figure."""
    many = [
        Contestant(candidate, MANY_TOKENS, seconds=effort.token_seconds, warm_up=1)
        for candidate in (OURS, NGINX_LUA, APACHE)
    ]
    own = Contestant(OURS, ONE_TOKEN, seconds=2, name="ours-hot", title="protectedservice-server, one token")
    return measure(
        bench,
        Regime(
            "tokens",
            "10,000 tokens, remembered for 5 s",
            f"10,000 good tokens in turn; slices of {effort.token_seconds} s, each after 1 s unmeasured.",
            [*many, own],
            Setup(),
            rounds=effort.token_rounds,
            first_round=False,
        ),
    )


def no_cache(bench: Bench, effort: Effort) -> Section:
    """`maxRevocationDelay: 0s`: every request asks."""
    return measure(
        bench,
        Regime(
            "no-cache",
            "No cache",
            "`maxRevocationDelay: 0s`; 10,000 tokens in turn, so that nobody can share a question. Every request "
            "introspects: a slice with fewer questions than answers is refused.",
            [Contestant(candidate, MANY_TOKENS) for candidate in (OURS, NGINX_LUA, NODE, ASGI_UVICORN)],
            Setup(lifetime=0),
            rounds=effort.rounds,
            each_introspects=True,
        ),
    )


def proxy_small(bench: Bench, effort: Effort) -> Section:
    """200 bytes through the proxy."""
    return _proxy(bench, effort, "proxy-200b", "Proxy, 200 B", "/200b")


def proxy_large(bench: Bench, effort: Effort) -> Section:
    """100 KB through the proxy."""
    return _proxy(bench, effort, "proxy-100k", "Proxy, 100 KB", "/100k")


def _proxy(bench: Bench, effort: Effort, key: str, title: str, path: str) -> Section:
    return measure(
        bench,
        Regime(
            key,
            title,
            "Hot cache, then forwarded to nginx; the bodies are compared by SHA-256. nginx + Lua has large proxy "
            "buffers and no temporary files.",
            [Contestant(candidate, ONE_TOKEN) for candidate in (OURS, NGINX_LUA, APACHE, NODE)],
            Setup(proxy=True),
            path=path,
            rounds=effort.rounds,
        ),
    )


def measure(bench: Bench, regime: Regime) -> Section:
    """Start all, check all, load in turn, check all again, end all."""
    lives: dict[str, Live] = {}
    wrong: dict[str, list[str]] = {}
    try:
        for candidate in dict.fromkeys(contestant.candidate.name for contestant in regime.contestants):
            chosen = next(one.candidate for one in regime.contestants if one.candidate.name == candidate)
            try:
                lives[candidate] = bench.start(chosen, regime.setup, path=regime.path)
            except StartError as error:
                wrong[candidate] = [error.cause]
            else:
                wrong[candidate] = [f"before: {fault}" for fault in lives[candidate].faults(regime.path)]
        runs = _rounds(bench, regime, lives, wrong)
        for name, live in lives.items():
            wrong[name] += [f"afterwards: {fault}" for fault in live.faults(regime.path)]
    finally:
        bench.stop(*lives.values())
    finished = {
        name: dataclasses.replace(run, faults=tuple(dict.fromkeys(wrong[_of(regime, name).candidate.name])))
        for name, run in runs.items()
    }
    return section(regime, finished)


def _of(regime: Regime, name: str) -> Contestant:
    return next(contestant for contestant in regime.contestants if contestant.called() == name)


def _rounds(bench: Bench, regime: Regime, lives: Mapping[str, Live], wrong: dict[str, list[str]]) -> dict[str, Run]:
    """The slices of each contestant; those that were wrong before are not loaded, those that break drop out."""
    slices: dict[str, list[Slice]] = {contestant.called(): [] for contestant in regime.contestants}
    for number in range(-1 if regime.first_round else 0, regime.rounds):
        for contestant in regime.contestants:
            candidate = contestant.candidate.name
            if wrong[candidate]:
                continue
            try:
                found = _slice(bench, lives[candidate], contestant, regime)
            except LoadError as error:
                wrong[candidate].append(str(error))
                continue
            if number >= 0:
                slices[contestant.called()].append(found)
                if regime.each_introspects and found.introspections < found.requests:
                    wrong[candidate].append(
                        f"{found.requests} answers on {found.introspections} introspections: something was remembered"
                    )
    return {name: Run(name, tuple(found)) for name, found in slices.items()}


def _slice(bench: Bench, live: Live, contestant: Contestant, regime: Regime) -> Slice:
    url = live.url(regime.path)
    if contestant.warm_up:
        load.run(contestant.load, url, contestant.warm_up)
    asked, cpu = bench.introspections(), live.running.cpu_seconds()
    found = load.run(contestant.load, url, contestant.seconds)
    return dataclasses.replace(
        found,
        cpu_seconds=live.running.cpu_seconds() - cpu,
        introspections=bench.introspections() - asked,
    )


def section(regime: Regime, runs: Mapping[str, Run]) -> Section:
    """The table, and the ratios under `regime/peer` and `regime-p99/peer`. Pure."""
    ours = runs[OURS.name]
    rows: list[Row] = []
    results: dict[str, Result] = {}
    for contestant in regime.contestants:
        name, run = contestant.called(), runs[contestant.called()]
        own: list[Result | None] = [
            pairing.of_run(run, figure)
            for figure in (pairing.rate, pairing.p50, pairing.p99, pairing.cpu, _introspections)
        ]
        against: list[Result | None] = [None, None]
        if run is not ours:
            for place, (suffix, figure) in enumerate((("", pairing.rate), ("-p99", pairing.p99))):
                found = pairing.ratio(ours, run, figure)
                results[f"{regime.key}{suffix}/{name}"] = found
                against[place] = found
        rows.append(Row(contestant.title or contestant.candidate.title, [*own, *against]))
    late = {name: sum(piece.timeouts for piece in run.slices) for name, run in runs.items()}
    remarks = [f"{name}: {count} answers took longer than 2 s" for name, count in late.items() if count]
    return Section(regime.title, f"{regime.how} {_rounds_text(runs)}", COLUMNS, rows, results, remarks)


def _introspections(piece: Slice) -> float:
    return float(piece.introspections)


def _rounds_text(runs: Mapping[str, Run]) -> str:
    return f"{round(statistics.median(len(run.slices) for run in runs.values()))} rounds."


Measurement = Callable[[Bench, Effort], Section]
