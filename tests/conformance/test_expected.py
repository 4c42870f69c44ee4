"""The table of expected failures names tests that there are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .expected import EXPECTED


def test_every_line_of_the_table_names_a_test_that_is_run() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", str(Path(__file__).parent)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]).stdout

    tests = set()
    for line in listed.splitlines():
        test, _, rest = line.rpartition("::")[2].partition("[")
        front, _, case = rest.removesuffix("]").partition("-")
        tests |= {(front, test, case), (front, test, "*")}

    assert [line for line in EXPECTED if line not in tests] == []
