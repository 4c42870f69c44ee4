"""One slice of load: what wrk is told, and what its output says. Runs wrk; the parser is pure."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CONNECTIONS: Final = 64

_MILLISECONDS: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
_REQUESTS: Final = re.compile(r"^\s*(\d+) requests in ", re.MULTILINE)
_RATE: Final = re.compile(r"^Requests/sec:\s+([\d.]+)\s*$", re.MULTILINE)
_REFUSED: Final = re.compile(r"^\s*Non-2xx or 3xx responses: (\d+)\s*$", re.MULTILINE)
_SOCKETS: Final = re.compile(
    r"^\s*Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)\s*$", re.MULTILINE
)


class LoadError(Exception):
    """The load generator failed, or said something that is not understood; its output is in the text."""


@dataclass(frozen=True, slots=True)
class Slice:
    """What one candidate did in one slice."""

    requests: int
    rate: float
    """Answers a second."""
    p50: float
    """Milliseconds, like p99."""
    p99: float
    not_2xx: int = 0
    socket_errors: int = 0
    timeouts: int = 0
    """Answers that took longer than wrk's 2 s. Slow, not wrong: the rate shows it."""
    cpu_seconds: float = 0.0
    """Of the whole process tree under test."""
    introspections: int = 0

    @property
    def cpu_microseconds(self) -> float:
        """Processor time of one request."""
        return self.cpu_seconds / self.requests * 1e6 if self.requests else float("nan")

    def faults(self) -> tuple[str, ...]:
        """Why nothing may be concluded from this slice; empty: something may."""
        found: list[str] = []
        if self.not_2xx:
            found.append(f"{self.not_2xx} of {self.requests} answers were not 2xx")
        if self.socket_errors:
            found.append(f"{self.socket_errors} connections failed")
        if not self.requests:
            found.append("nothing was answered")
        return tuple(found)


def parse(output: str) -> Slice:
    """The slice that wrk's output describes.

    Raises:
        LoadError: a figure is missing; guessing it would make a ratio out of nothing.
    """
    requests, rate = _REQUESTS.search(output), _RATE.search(output)
    if requests is None or rate is None:
        raise LoadError(f"wrk printed no figures:\n{output}")
    answered = int(requests[1])
    refused, sockets = _REFUSED.search(output), _SOCKETS.search(output)
    connect, read, write, timeout = map(int, sockets.groups()) if sockets else (0, 0, 0, 0)
    return Slice(
        requests=answered,
        rate=float(rate[1]),
        p50=_percentile(output, 50) if answered else float("nan"),
        p99=_percentile(output, 99) if answered else float("nan"),
        not_2xx=int(refused[1]) if refused else 0,
        socket_errors=connect + read + write,
        timeouts=timeout,
    )


def _percentile(output: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)\s*$", output, re.MULTILINE)
    if found is None:
        raise LoadError(f"wrk printed no {percent} % line:\n{output}")
    return float(found[1]) * _MILLISECONDS[found[2]]


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked: the headers of each request, or a script that cycles through `tokens` different tokens."""

    headers: Mapping[str, str]
    script: Path | None = None
    tokens: int = 0

    def command(self, url: str, seconds: int) -> list[str]:
        """The command line of wrk."""
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency"]
        for name, value in self.headers.items():
            command += ["-H", f"{name}: {value}"]
        if self.script is not None:
            command += ["-s", str(self.script)]
        command.append(url)
        if self.script is not None:
            command += ["--", str(self.tokens)]
        return command


def run(load: Load, url: str, seconds: int) -> Slice:
    """Load `url` for `seconds`.

    Raises:
        LoadError: wrk failed or did not end.
    """
    command = load.command(url, seconds)
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 20, check=False)
    except subprocess.TimeoutExpired:
        raise LoadError(f"wrk did not end {seconds + 20} s after it was started: {_shown(command)}") from None
    if ended.returncode != 0:
        raise LoadError(f"wrk ended with {ended.returncode}: {_shown(command)}\n{ended.stdout}{ended.stderr}")
    return parse(ended.stdout)


def _shown(command: Sequence[str]) -> str:
    return " ".join(command)
