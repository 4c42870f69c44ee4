from __future__ import annotations

from benchmarks.gates import Bound, Gate, judge
from benchmarks.pairing import Figure, Refusal, figure
from benchmarks.report import Circumstances, render, section
from benchmarks.sections import Column, Row, Section

COLUMNS = (Column("req/s"), Column("ours ÷ it", 2, spread=True))
QUIET = Circumstances("2026-01-02 03:04 UTC", "2 × some processor", 0.1, "python …", {"nginx": "1.22.1"})


def test_a_table_tells_median_and_quartiles() -> None:
    found = section(
        Section(
            "Hot",
            "How.",
            COLUMNS,
            [Row("nginx", [figure([95000.4]), Figure(0.95, 0.9, 0.99, 9)]), Row("ours", [None, None])],
        )
    )
    assert "| nginx | 95,000 | 0.95 (0.90–0.99) |" in found
    assert "| ours | – | – |" in found


def test_a_refused_ratio_has_no_number_and_its_reason_stands_below_once() -> None:
    refusal = Refusal(("nginx: round 1: 3 of 9 answers were not 2xx",))
    found = section(Section("Hot", "How.", COLUMNS, [Row("nginx", [refusal, refusal])]))
    assert "| nginx | refused | refused |" in found
    assert found.count("3 of 9 answers were not 2xx") == 1


def test_verdicts_are_computed_from_what_was_measured() -> None:
    gates = [
        Gate("fast", "hot/a", Bound.AT_LEAST, 0.8),
        Gate("slow", "hot/b", Bound.AT_LEAST, 0.8),
        Gate("gone", "hot/c", Bound.AT_LEAST, 0.8),
    ]
    found = render(QUIET, judge(gates, {"hot/a": figure([0.9]), "hot/b": figure([0.7])}), [])
    assert "| fast | ≥ 0.8 | 0.90 | met |" in found
    assert "| slow | ≥ 0.8 | 0.70 | **not met** |" in found
    assert "| gone | ≥ 0.8 | – | not measured: the regime was not run |" in found
    assert "1 of 3 met." in found
    assert "nginx 1.22.1" in found


def test_a_busy_machine_and_a_quick_run_are_told_on_top() -> None:
    found = render(Circumstances("d", "m", 7.9, "c", {}, quick=True), [], [])
    assert "busy (load average 7.9 before the run)" in found
    assert "A quick run" in found
    assert "busy" not in render(QUIET, [], [])
