from __future__ import annotations

import pytest

from benchmarks.data_plane import REGIMES, status
from benchmarks.gates import GATES, Bound, Gate, Verdict, judge
from benchmarks.pairing import Refusal, Result, figure

LEAST = Gate("speed", "hot/peer", Bound.AT_LEAST, 0.8)
MOST = Gate("pause", "pause/ours", Bound.AT_MOST, 20, "ms")


@pytest.mark.parametrize(
    ("gate", "value", "verdict"),
    [
        pytest.param(LEAST, 0.8, Verdict.MET, id="at least: the limit itself is good"),
        pytest.param(LEAST, 0.79, Verdict.NOT_MET, id="at least: below"),
        pytest.param(MOST, 20.0, Verdict.MET, id="at most: the limit itself is good"),
        pytest.param(MOST, 20.1, Verdict.NOT_MET, id="at most: above"),
    ],
)
def test_a_gate_is_judged_by_the_median(gate: Gate, value: float, verdict: Verdict) -> None:
    results: dict[str, Result] = {gate.figure: figure([0.0, value, 1000.0])}
    assert [one.verdict for one in judge([gate], results)] == [verdict]


def test_a_refused_figure_meets_no_gate_and_says_why() -> None:
    (found,) = judge([LEAST], {"hot/peer": Refusal(("peer: no token: answered 200 instead of 401",))})
    assert found.verdict is Verdict.NOT_MEASURED
    assert "answered 200 instead of 401" in found.why


def test_a_regime_that_was_not_run_meets_no_gate() -> None:
    assert [one.verdict for one in judge(GATES, {})] == [Verdict.NOT_MEASURED] * len(GATES)


def test_each_gate_names_its_own_figure_of_a_regime_that_exists() -> None:
    figures = [gate.figure for gate in GATES]
    assert len(set(figures)) == len(figures)
    regimes = {name.partition("/")[0].removesuffix("-p99") for name in figures}
    assert regimes <= {*REGIMES, "memory-idle", "memory-token"}


def test_the_exit_status_tells_a_refusal_before_a_missed_gate() -> None:
    slow = judge([LEAST], {"hot/peer": figure([0.1])})
    good = judge([LEAST], {"hot/peer": figure([0.9])})
    assert status(good, {}) == 0
    assert status(slow, {}) == 1
    assert status(slow, {"tokens/peer": Refusal(("wrong",))}) == 2
