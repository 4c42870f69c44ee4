from __future__ import annotations

import math

import pytest

from benchmarks.load import Slice
from benchmarks.pairing import Figure, Refusal, Run, figure, of_run, p99, rate, ratio


def slices(*rates: float, not_2xx: int = 0) -> list[Slice]:
    return [Slice(requests=int(value), rate=value, p50=1.0, p99=2.0, not_2xx=not_2xx) for value in rates]


def test_the_ratio_is_formed_within_each_round_so_a_slow_minute_does_not_count() -> None:
    # The machine halves its speed in the second round; medians of each side would not see that they go together.
    ours, theirs = Run("ours", slices(200, 100, 220)), Run("theirs", slices(100, 50, 110))
    assert ratio(ours, theirs, rate) == Figure(2.0, 2.0, 2.0, 3)


def test_quartiles_lie_within_what_was_seen() -> None:
    found = figure([1, 2, 3, 4, 5])
    assert found == Figure(3, 2, 4, 5)


def test_one_value_is_its_own_median_and_quartiles() -> None:
    assert figure([7.0]) == Figure(7.0, 7.0, 7.0, 1)


@pytest.mark.parametrize("values", [[], [1.0, math.nan]], ids=["nothing measured", "not a number among them"])
def test_no_figure_is_made_out_of_nothing(values: list[float]) -> None:
    with pytest.raises(ValueError, match="at least one value"):
        figure(values)


@pytest.mark.parametrize("wrong", ["ours", "theirs"])
def test_one_answer_that_is_not_2xx_in_one_slice_refuses_the_ratio(wrong: str) -> None:
    runs = {name: Run(name, slices(100, 100)) for name in ("ours", "theirs")}
    runs[wrong] = Run(wrong, [*slices(100), *slices(100, not_2xx=1)])
    found = ratio(runs["ours"], runs["theirs"], rate)
    assert found == Refusal((f"{wrong}: round 2: 1 of 100 answers were not 2xx",))


def test_a_wrong_answer_beside_the_slices_refuses_the_ratio_and_the_own_figures() -> None:
    wrong = Run("theirs", slices(100), faults=("before: no token: answered 200 instead of 401",))
    assert isinstance(ratio(Run("ours", slices(100)), wrong, rate), Refusal)
    assert isinstance(of_run(wrong, p99), Refusal)


def test_a_candidate_that_dropped_out_is_refused_before_its_rounds_are_paired() -> None:
    gone = Run("theirs", slices(100), faults=("wrk did not end",))
    assert ratio(Run("ours", slices(100, 100)), gone, rate) == Refusal(("theirs: wrk did not end",))


def test_runs_of_different_length_without_a_reason_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        ratio(Run("ours", slices(1, 1)), Run("theirs", slices(1)), rate)


def test_each_reason_is_told_once() -> None:
    run = Run("theirs", [*slices(5, not_2xx=1)], faults=("no answer", "no answer"))
    assert run.refusals() == ("theirs: no answer", "theirs: round 1: 1 of 5 answers were not 2xx")
