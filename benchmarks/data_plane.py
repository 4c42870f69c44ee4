"""The resource server beside its peers, in one command: `python3 benchmarks/data_plane.py`.

    --quick             two rounds: shows that everything works, in three minutes
    --only REGIME,...   some of: start memory pause hot headers tokens no-cache proxy-200b proxy-100k flight
    --results FILE      where the report goes; else a full run writes benchmarks/RESULTS.md, others print only

It installs what it needs (Debian packages as root, a virtual environment in the cache folder), starts everything on
loopback and ends it all. Exit status: 0 all gates that were measured are met and nothing was refused, 1 a gate is not
met, 2 a candidate answered wrongly or did not start, 3 it cannot run here, 130 or 143 after a signal.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

if __name__ == "__main__":  # started as a file: its folder's modules are those of a package
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import packages, regimes, report, resources
from benchmarks.bench import LOAD_CORE, SERVER_CORE, Bench, StartError
from benchmarks.candidates import Tools
from benchmarks.gates import GATES, Judged, Verdict, judge
from benchmarks.packages import MissingError
from benchmarks.pairing import Refusal, Result
from benchmarks.regimes import Measurement
from benchmarks.sections import FULL, QUICK, Section

REGIMES: Final[Mapping[str, Measurement]] = {
    "start": resources.start_up,
    "memory": resources.memory,
    "pause": resources.pause,
    "hot": regimes.hot,
    "headers": regimes.headers,
    "tokens": regimes.tokens,
    "no-cache": regimes.no_cache,
    "proxy-200b": regimes.proxy_small,
    "proxy-100k": regimes.proxy_large,
    "flight": resources.flight,
}
RESULTS: Final = packages.ROOT / "benchmarks" / "RESULTS.md"
LIMIT: Final = 20 * 60
"""Seconds after which a run is given up, whatever hangs."""


def main(arguments: Sequence[str]) -> int:
    """Run; see the module for the exit status."""
    options = _options(arguments)
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGHUP):
        signal.signal(number, _give_up)
    signal.alarm(LIMIT)
    try:
        found = _circumstances_and_tools(options.quick, arguments)
    except MissingError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 3
    circumstances, tools = found
    for warning in circumstances.warnings():
        print(f"benchmark: {warning}", flush=True)
    os.sched_setaffinity(0, {LOAD_CORE})  # inherited by the load generator
    effort = QUICK if options.quick else FULL
    sections: list[Section] = []
    try:
        with Bench(tools) as bench:
            for name in options.only:
                print(f"benchmark: {name}", flush=True)
                sections.append(REGIMES[name](bench, effort))
                print(report.section(sections[-1]), flush=True)
    except StartError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        return 130
    results = {key: result for one in sections for key, result in one.results.items()}
    judged = judge(GATES, results)
    print(report.gates(judged))
    target = options.results or (RESULTS if not options.quick and len(options.only) == len(REGIMES) else None)
    if target is not None:
        target.write_text(report.render(circumstances, judged, sections), "utf-8")
        print(f"benchmark: wrote {target}")
    return status(judged, results)


def status(judged: Sequence[Judged], results: Mapping[str, Result]) -> int:
    """The exit status of a finished run: a refusal weighs more than a missed gate, since it hides others. Pure."""
    if any(isinstance(result, Refusal) for result in results.values()):
        return 2
    return 1 if any(one.verdict is Verdict.NOT_MET for one in judged) else 0


def _circumstances_and_tools(quick: bool, arguments: Sequence[str]) -> tuple[report.Circumstances, Tools]:
    if not {SERVER_CORE, LOAD_CORE} <= os.sched_getaffinity(0):
        raise MissingError(f"this process may not use the cores {SERVER_CORE} and {LOAD_CORE}; remedy: allow them")
    # Before anything is installed: that is load of our own.
    before = os.getloadavg()[0]
    packages.install_packages()
    venv = packages.venv()
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    lua = next(Path("/").glob(packages.LUA_CJSON.removeprefix("/"))).parent
    command = " ".join(["python3 benchmarks/data_plane.py", *arguments])
    circumstances = report.circumstances(command, packages.versions(venv), before, quick=quick)
    return circumstances, Tools(packages.server_program(venv), venv, lua, packages.ROOT / "resource_server")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks/data_plane.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="two rounds: shows that everything works")
    parser.add_argument("--only", type=_names, default=list(REGIMES), metavar="REGIME,...", help=", ".join(REGIMES))
    parser.add_argument("--results", type=Path, metavar="FILE", help="where the report goes")
    return parser.parse_args(arguments)


def _names(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in REGIMES]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such regime: {', '.join(unknown)}; there are {', '.join(REGIMES)}")
    return names


def _give_up(number: int, frame: object) -> None:
    del frame
    if number == signal.SIGALRM:
        print(f"benchmark: given up after {LIMIT // 60} minutes", file=sys.stderr)
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
