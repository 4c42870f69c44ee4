"""Each row of the threat tables names a test, and there is such a test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
TEXT = (ROOT / "docs" / "threats.md").read_text()
ROWS = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.endswith("| what happens | test |")]


def test_there_is_a_table() -> None:
    assert len(ROWS) > 20


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_the_threat_has_a_test(row: str) -> None:
    named = NAMED.search(row.rsplit("|", 2)[1])

    assert named is not None, "the row names no test"
    tree = ast.parse((ROOT / named[1]).read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert named[2] in functions
