"""Everything that a run starts, so that everything can be ended: by process group, in whatever way the run ends.

Each process leads a session of its own. The sessions tell which processes belong to a candidate (workers included), for
its processor time and its memory. Should this process be killed, the kernel sends SIGTERM to the leaders (setpriv).
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

GRACE: Final = 4.0
"""Seconds after SIGTERM until SIGKILL."""

LONGEST_WORDS: Final = 200
"""Characters of a failed process's output that are passed on; the rest of a traceback is for its own log."""

_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Running:
    """One started process and its session."""

    name: str
    process: subprocess.Popen[bytes]
    output: Path
    """What it printed."""

    def ended(self) -> bool:
        """Whether its leader is gone. The leader stays unreaped, so that its number is nobody else's."""
        if self.process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def last_words(self) -> str:
        """The end of what it printed, short enough for a message and a cell of a table."""
        try:
            lines = self.output.read_text("utf-8", "replace").strip().splitlines()
        except FileNotFoundError:
            lines = []
        text = " / ".join(lines[-3:]).replace("|", "/") or "(it printed nothing)"
        return text if len(text) <= LONGEST_WORDS else f"…{text[-LONGEST_WORDS:]}"

    def cpu_seconds(self) -> float:
        """User and system time of the session's living processes."""
        return sum(ticks for _, _, ticks in _session(self.process.pid)) / _TICKS

    def memory(self) -> int:
        """Bytes: proportional set size of the session's processes, so that shared pages count once."""
        total = 0
        for pid, _, _ in _session(self.process.pid):
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1]) * 1024
        return total


class Processes:
    """The registry. As a context manager it ends all that was started."""

    def __init__(self) -> None:
        self._running: list[Running] = []

    def start(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        *,
        core: int,
        environment: Mapping[str, str] | None = None,
    ) -> Running:
        """Start `command` on `core`, in `folder`, its output into a file there."""
        output = folder / "output.log"
        bound = ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", str(core), *command]
        with output.open("ab") as sink:
            process = subprocess.Popen(
                bound,
                cwd=folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = Running(name, process, output)
        self._running.append(running)
        return running

    def stop(self, *stopped: Running) -> None:
        """End these and all their workers. Twice is as good as once."""
        alive = [running for running in stopped if running.process.returncode is None]
        for running in alive:
            _signal_group(running, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline and not all(running.ended() for running in alive):
            time.sleep(0.01)
        for running in alive:
            # Workers may outlive their leader; the group's number is theirs until the leader is reaped.
            _signal_group(running, signal.SIGKILL)
            running.process.wait()
        self._running = [running for running in self._running if running not in stopped]

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(*self._running)


def _signal_group(running: Running, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.process.pid, number)


def _session(leader: int) -> Iterator[tuple[int, str, int]]:
    """Process number, name and ticks of processor time of each living process of the leader's session."""
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            text = Path(entry.path, "stat").read_text("utf-8", "replace")
        except OSError:
            continue  # it has just ended
        found = parse_stat(text)
        if found is not None and found[1] == leader:
            yield int(entry.name), found[0], found[2]


def parse_stat(text: str) -> tuple[str, int, int] | None:
    """Name, session and ticks (user and system) in a line of /proc/PID/stat; None for what is not one. Pure.

    The name stands in parentheses and may itself hold spaces and parentheses (proc(5)).
    """
    begin, end = text.find("("), text.rfind(")")
    fields = text[end + 1 :].split()
    if begin < 0 or end < begin or len(fields) < 13:
        return None
    return text[begin + 1 : end], int(fields[3]), int(fields[11]) + int(fields[12])
