"""A bounded run of libFuzzer over a target: where its corpus is kept, what came of it, how to see a crash again."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .targets import Target

SLOWEST_INPUT: Final = 10
"""Seconds; an input that takes longer is a fault like a crash."""
LARGEST_PROCESS: Final = 1024  # MiB
PATIENCE: Final = 120
"""Seconds beyond the time of a run for starting, reading the corpus and ending."""

_EXECUTED: Final = re.compile(r"^stat::number_of_executed_units:\s*(\d+)", re.MULTILINE)
_CRASH: Final = re.compile(r"Test unit written to (\S+)")


@dataclass(frozen=True)
class Outcome:
    """What a run found."""

    executions: int
    fault: Path | None
    """The input that is one."""
    failed: bool
    output: str


def folder_of(target: Target) -> Path:
    """Corpus, faults and word list of a target, outside the checkout: they are kept between runs."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "protectedservice" / "fuzz" / target.name


def run(target: Target, seconds: int) -> Outcome:
    """Fuzz `target` for `seconds`, from its seeds and from what earlier runs found worth keeping."""
    folder = folder_of(target)
    corpus, faults, words = folder / "corpus", folder / "faults", folder / "words"
    for made in (corpus, faults):
        made.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds:
        (corpus / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in target.words), "ascii")
    command = [
        sys.executable,
        "-m",
        "tests.fuzz.libfuzzer",
        target.name,
        f"-max_total_time={seconds}",
        f"-max_len={target.longest}",
        f"-timeout={SLOWEST_INPUT}",
        f"-rss_limit_mb={LARGEST_PROCESS}",
        f"-dict={words}",
        f"-artifact_prefix={faults}/",
        "-print_final_stats=1",
        str(corpus),
    ]
    ended = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=seconds + PATIENCE, check=False
    )
    return outcome(ended.returncode, ended.stdout.decode(errors="replace"))


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def outcome(code: int, output: str) -> Outcome:
    """What libFuzzer's output and exit code say. A run that executed nothing has failed, whatever its code."""
    executed, crash = _EXECUTED.search(output), _CRASH.search(output)
    executions = int(executed[1]) if executed else 0
    return Outcome(
        executions, Path(crash[1]) if crash else None, code != 0 or crash is not None or not executions, output
    )
