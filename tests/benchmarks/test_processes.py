from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.processes import Processes, Running, parse_stat

CORE = min(os.sched_getaffinity(0))


def alive(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii")
    except FileNotFoundError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def until(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not fact():
        assert time.monotonic() < deadline, "it did not come true in 20 s"
        time.sleep(0.01)


def family(processes: Processes, folder: Path, *, stubborn: bool = False) -> tuple[Running, int]:
    """A leader with one worker, and the worker's number."""
    trap = "trap '' TERM; " if stubborn else ""
    running = processes.start(
        "family", ["sh", "-c", f"{trap}sleep 300 & echo $! >worker; echo ready; wait"], folder, core=CORE
    )
    until(lambda: "ready" in running.output.read_text("ascii"))
    return running, int((folder / "worker").read_text("ascii"))


def test_workers_end_with_their_leader(tmp_path: Path) -> None:
    processes = Processes()
    running, worker = family(processes, tmp_path)
    assert alive(worker)
    processes.stop(running)
    until(lambda: not alive(worker))
    assert running.ended()


def test_everything_ends_when_the_run_fails(tmp_path: Path) -> None:
    workers: list[int] = []

    def fail() -> None:
        with Processes() as processes:
            workers.append(family(processes, tmp_path)[1])
            raise RuntimeError("a regime failed")

    with pytest.raises(RuntimeError, match="a regime failed"):
        fail()
    until(lambda: not alive(workers[0]))


def test_one_that_ignores_the_request_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.processes.GRACE", 0.0)
    processes = Processes()
    running, worker = family(processes, tmp_path, stubborn=True)
    processes.stop(running)
    processes.stop(running)  # twice is as good as once
    until(lambda: not alive(worker))


def test_memory_and_time_are_those_of_leader_and_workers(tmp_path: Path) -> None:
    with Processes() as processes:
        running, _ = family(processes, tmp_path)
        assert running.memory() > 0
        assert running.cpu_seconds() >= 0


def test_the_last_words_of_one_that_failed_are_kept(tmp_path: Path) -> None:
    with Processes() as processes:
        running = processes.start("broken", ["sh", "-c", "echo port taken; exit 3"], tmp_path, core=CORE)
        until(running.ended)
        assert running.last_words() == "port taken"


def test_long_last_words_are_cut_to_their_end_and_break_no_table(tmp_path: Path) -> None:
    with Processes() as processes:
        command = ["sh", "-c", "printf '%0900d' 1; echo ' a | b'"]
        running = processes.start("broken", command, tmp_path, core=CORE)
        until(running.ended)
        found = running.last_words()
    assert len(found) <= 201
    assert found.endswith(" a / b")


def test_a_name_with_spaces_and_parentheses_does_not_shift_the_fields() -> None:
    line = "42 (ngin) x (y) S 1 40 39 0 -1 0 0 0 0 0 7 5 0 0 20 0 1 0 100 0 0"
    assert parse_stat(line) == ("ngin) x (y", 39, 12)
    assert parse_stat("") is None
