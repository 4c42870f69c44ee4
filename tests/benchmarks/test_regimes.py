from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import pytest

from benchmarks.bench import Bench, StartError
from benchmarks.candidates import NGINX_LUA, NODE, OURS, Candidate, Setup
from benchmarks.load import Load, LoadError, Slice
from benchmarks.pairing import Figure, Refusal, Result
from benchmarks.regimes import MANY_TOKENS, ONE_TOKEN, Contestant, Regime, measure

RATES = {"ours": 200.0, "nginx-lua": 100.0, "node-fetch": 50.0}


class FakeRunning:
    def cpu_seconds(self) -> float:
        return 0.0


class FakeLive:
    def __init__(self, candidate: Candidate, stage: Stage) -> None:
        self.candidate, self._stage, self.running = candidate, stage, FakeRunning()

    def url(self, path: str) -> str:
        return self.candidate.name + path

    def faults(self, path: str) -> tuple[str, ...]:
        self._stage.checked.append(self.candidate.name)
        return self._stage.faults.get(self.candidate.name, ())


class Stage:
    """Remembers who was started, checked, loaded and stopped; `slices` changes what a load brings."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.checked: list[str] = []
        self.loaded: list[str] = []
        self.stopped: list[str] = []
        self.faults: dict[str, tuple[str, ...]] = {}
        self.broken: set[str] = set()
        self.asked = 0
        self.asks = 0
        self.slices: Callable[[str, Slice], Slice] = lambda name, found: found

    def start(self, candidate: Candidate, setup: Setup, *, path: str) -> FakeLive:
        if candidate.name in self.broken:
            raise StartError(candidate.name, "ended at once: no such module")
        self.started.append(candidate.name)
        return FakeLive(candidate, self)

    def stop(self, *lives: FakeLive) -> None:
        self.stopped += [live.candidate.name for live in lives]

    def introspections(self) -> int:
        return self.asked

    def run(self, load: Load, url: str, seconds: int) -> Slice:
        name = url.partition("/")[0]
        self.loaded.append(name)
        self.asked += self.asks
        return self.slices(name, Slice(requests=100, rate=RATES[name], p50=1.0, p99=2.0))


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    stage = Stage()
    monkeypatch.setattr("benchmarks.load.run", stage.run)
    return stage


def results(stage: Stage, **changes: Any) -> dict[str, Result]:
    contestants = [Contestant(candidate, ONE_TOKEN) for candidate in (OURS, NGINX_LUA, NODE)]
    regime = dataclasses.replace(Regime("hot", "Hot", "How.", contestants, Setup(), rounds=3), **changes)
    return dict(measure(cast(Bench, stage), regime).results)


def test_all_are_alive_at_once_loaded_in_turn_checked_twice_and_stopped(stage: Stage) -> None:
    found = results(stage)
    assert found["hot/nginx-lua"] == Figure(2.0, 2.0, 2.0, 3)
    assert found["hot-p99/nginx-lua"] == Figure(1.0, 1.0, 1.0, 3)
    everybody = ["ours", "nginx-lua", "node-fetch"]
    assert stage.started == stage.stopped == everybody
    assert stage.loaded == everybody * 4  # one round is not measured
    assert stage.checked == everybody * 2


def test_one_that_answers_wrongly_is_not_loaded_and_the_others_go_on(stage: Stage) -> None:
    stage.faults["nginx-lua"] = ("no token: answered 200 instead of 401",)
    found = results(stage)
    assert isinstance(found["hot/nginx-lua"], Refusal)
    assert isinstance(found["hot/node-fetch"], Figure)
    assert "nginx-lua" not in stage.loaded


def test_wrong_answers_of_ours_refuse_every_ratio(stage: Stage) -> None:
    stage.faults["ours"] = ("no token: answered 200 instead of 401",)
    assert all(isinstance(result, Refusal) for result in results(stage).values())


def test_one_non_2xx_in_one_slice_refuses_that_candidates_ratio(stage: Stage) -> None:
    stage.slices = lambda name, found: dataclasses.replace(found, not_2xx=int(name == "node-fetch"))
    found = results(stage)
    assert isinstance(found["hot/node-fetch"], Refusal)
    assert isinstance(found["hot/nginx-lua"], Figure)


def test_one_that_does_not_start_is_refused_with_its_last_words(stage: Stage) -> None:
    stage.broken.add("node-fetch")
    assert results(stage)["hot/node-fetch"] == Refusal(("node-fetch: ended at once: no such module",))


def test_a_load_that_breaks_drops_its_candidate_only(stage: Stage) -> None:
    def slices(name: str, found: Slice) -> Slice:
        if name == "nginx-lua":
            raise LoadError("wrk did not end")
        return found

    stage.slices = slices
    found = results(stage)
    assert found["hot/nginx-lua"] == Refusal(("nginx-lua: wrk did not end",))
    assert isinstance(found["hot/node-fetch"], Figure)


@pytest.mark.parametrize(("asks", "kind"), [(99, Refusal), (100, Figure)], ids=["one was remembered", "all were asked"])
def test_without_a_cache_fewer_questions_than_answers_refuse_the_ratio(
    stage: Stage, asks: int, kind: type[Result]
) -> None:
    stage.asks = asks
    assert isinstance(results(stage, each_introspects=True)["hot/nginx-lua"], kind)


def test_an_unforeseen_failure_still_stops_everybody(stage: Stage) -> None:
    def slices(name: str, found: Slice) -> Slice:
        raise ZeroDivisionError

    stage.slices = slices
    with pytest.raises(ZeroDivisionError):
        results(stage)
    assert stage.stopped == stage.started


def test_two_loads_of_one_candidate_share_its_process(stage: Stage) -> None:
    contestants = [Contestant(OURS, MANY_TOKENS), Contestant(OURS, ONE_TOKEN, name="ours-hot")]
    found = results(stage, contestants=contestants, first_round=False)
    assert stage.started == ["ours"]
    assert found["hot/ours-hot"] == Figure(1.0, 1.0, 1.0, 3)
