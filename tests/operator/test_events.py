"""Events: what is posted, what is held back, and that losing one harms nothing."""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import dataclass

import pytest

from protectedservice_operator import events
from protectedservice_operator.errors import ClusterUnavailable, Rejected
from protectedservice_operator.events import ObjectRef, Recorder
from protectedservice_operator.metrics import Metrics
from protectedservice_operator.resource import EVENT, PROTECTED_SERVICE

from ..support.fake_cluster import FakeCluster, Write

NOW = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)
ORDERS = ObjectRef(PROTECTED_SERVICE, "tenant", "orders", "u-1")


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster(namespaces=("tenant",))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def recorder(cluster: FakeCluster, clock: Clock, metrics: Metrics) -> Recorder:
    return Recorder(cluster, clock, lambda: NOW, metrics)


def posted(cluster: FakeCluster) -> list[str]:
    return [event["message"] for event in cluster.objects(EVENT)]


async def test_an_event_names_its_object_and_when_and_who(cluster: FakeCluster, recorder: Recorder) -> None:
    await recorder.record(ORDERS, "Normal", "Registered", "client made")

    (event,) = cluster.objects(EVENT, "tenant")
    assert event["involvedObject"] == {
        "apiVersion": "protectedservice.dev/v1alpha1",
        "kind": "ProtectedService",
        "namespace": "tenant",
        "name": "orders",
        "uid": "u-1",
    }
    assert (event["type"], event["reason"], event["message"]) == ("Normal", "Registered", "client made")
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2026-03-04T05:06:07Z"
    assert event["source"] == {"component": "protectedservice-operator"}
    assert event["metadata"]["name"].startswith("orders.")


async def test_the_same_words_are_not_repeated_within_ten_minutes(
    cluster: FakeCluster, recorder: Recorder, clock: Clock, metrics: Metrics
) -> None:
    await recorder.record(ORDERS, "Normal", "Registered", "client made")
    clock.now += 599
    await recorder.record(ORDERS, "Normal", "Registered", "client made")
    assert len(posted(cluster)) == 1

    clock.now += 1
    await recorder.record(ORDERS, "Normal", "Registered", "client made")
    assert len(posted(cluster)) == 2
    assert metrics.value("events_total", fate="posted") == 2
    assert metrics.value("events_total", fate="repeated") == 1


async def test_other_words_and_other_objects_are_heard(cluster: FakeCluster, recorder: Recorder) -> None:
    await recorder.record(ORDERS, "Normal", "Registered", "client made")
    await recorder.record(ORDERS, "Normal", "Registered", "client made anew")
    await recorder.record(ORDERS, "Normal", "Repaired", "client made")
    await recorder.record(
        ObjectRef(PROTECTED_SERVICE, "tenant", "orders", "u-2"), "Normal", "Registered", "client made"
    )

    assert len(posted(cluster)) == 4


async def test_a_long_message_is_cut_to_what_the_api_server_takes(cluster: FakeCluster, recorder: Recorder) -> None:
    await recorder.record(ORDERS, "Warning", "Failed", "x" * 2000)

    assert [len(message) for message in posted(cluster)] == [1024]
    assert posted(cluster)[0].endswith("…")


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ClusterUnavailable("ClusterUnavailable", "no answer"), id="the API server is away"),
        pytest.param(Rejected(422, "no"), id="the API server does not like it"),
    ],
)
async def test_an_event_that_cannot_be_posted_is_logged_and_tried_again_next_time(
    cluster: FakeCluster, recorder: Recorder, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def fail(_: Write) -> None:
        raise error

    cluster.before_effect = fail
    await recorder.record(ORDERS, "Normal", "Registered", "client made")
    assert "ProtectedService tenant/orders" in caplog.text

    cluster.before_effect = lambda _: None
    await recorder.record(ORDERS, "Normal", "Registered", "client made")
    assert posted(cluster) == ["client made"]


async def test_a_namespace_that_is_going_takes_no_events_and_that_is_no_news(
    cluster: FakeCluster, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    cluster.terminate_namespace("tenant")

    await recorder.record(ORDERS, "Normal", "Deleted", "client deleted")

    assert posted(cluster) == []
    assert caplog.text == ""


async def test_what_was_said_is_remembered_within_bounds(
    cluster: FakeCluster, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MEMORY", 3)
    for number in range(5):
        await recorder.record(ORDERS, "Normal", "Reason", f"message {number}")
    await recorder.record(ORDERS, "Normal", "Reason", "message 4")
    assert len(posted(cluster)) == 5

    await recorder.record(ORDERS, "Normal", "Reason", "message 0")
    assert len(posted(cluster)) == 6
