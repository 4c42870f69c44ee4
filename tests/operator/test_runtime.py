"""Between kopf and the reconcile: the sync barrier, events, resyncs, deaf watches, start and stop; and kopf itself.

Time is a number that the tests move; nothing sleeps.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import kopf
import pytest

from protectedservice_operator import handlers
from protectedservice_operator.cache import Cache
from protectedservice_operator.cluster import Credentials
from protectedservice_operator.errors import ClusterUnavailable, NotFound
from protectedservice_operator.handlers import kopf_settings, make_registry
from protectedservice_operator.management import Management
from protectedservice_operator.metrics import Metrics
from protectedservice_operator.resource import (
    AUTHORIZATION_SERVER,
    DEPLOYMENT,
    FINALIZER,
    NAMESPACE,
    PROTECTED_SERVICE,
    SECRET,
    WATCHED,
    Key,
    Kind,
)
from protectedservice_operator.runtime import Runtime, StartFailed, identify_cluster
from protectedservice_operator.triggers import Triggers, related_by_content
from protectedservice_operator.work_queue import WorkQueue
from protectedservice_operator.workers import Workers

from ..support.fake_cluster import FakeCluster
from ..support.watched_api_server import WatchedApiServer

OPERATOR_NAMESPACE = "protectedservice-system"
ORDERS = Key("ProtectedService", "tenant", "orders")
SERVER_LABELS = {"protectedservice.dev/component": "resource-server", "protectedservice.dev/name": "orders"}


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Fatal(BaseException):
    """What no worker survives."""


@dataclass
class Passes:
    """A reconcile that only remembers."""

    keys: list[Key] = field(default_factory=list)
    seen: asyncio.Event = field(default_factory=asyncio.Event)

    async def reconcile(self, key: Key) -> float | None:
        self.keys.append(key)
        self.seen.set()
        return None


@dataclass
class Operator:
    """A runtime with all that it works on."""

    cluster: FakeCluster
    clock: Clock = field(default_factory=Clock)
    metrics: Metrics = field(default_factory=Metrics)
    passes: Passes = field(default_factory=Passes)

    def __post_init__(self) -> None:
        self.cache = Cache()
        self.queue = WorkQueue(self.clock, metrics=self.metrics)
        self.workers = Workers(self.queue, self.passes, self.metrics, self.clock, count=2)
        self.runtime = Runtime(
            cluster=self.cluster,
            cache=self.cache,
            queue=self.queue,
            triggers=Triggers(self.cache, OPERATOR_NAMESPACE, related_by_content(self.cache)),
            workers=self.workers,
            metrics=self.metrics,
            clock=self.clock,
            resync_interval=1200,
            operator_namespace=OPERATOR_NAMESPACE,
        )

    def watch(self) -> None:
        """As kopf does once the runtime has started: a list, then events."""
        for kind, selector in WATCHED.items():
            for obj in self.cluster.objects(kind, selector=selector):
                self.runtime.observe(kind, None, obj)
        self.cluster.on_change(self.runtime.observe, WATCHED)

    async def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        await self.runtime.resync_due()

    async def pending(self) -> list[Key]:
        """What waits for a worker, in order; emptied."""
        keys = []
        while len(self.queue) or self._anything_due():
            keys.append(await self.queue.get())
            self.queue.done(keys[-1])
        return keys

    def _anything_due(self) -> bool:
        due = self.queue.next_due()
        return due is not None and due <= 0

    async def settle(self) -> None:
        """Past the resyncs that follow a start, with nothing waiting."""
        await self.pass_time(30)
        await self.pending()


def service(name: str = "orders") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "tenant"}, "spec": {"scopes": ["read"]}}


def deployment(name: str = "orders-protected", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "tenant", "labels": SERVER_LABELS}, "spec": spec}


def scale(cluster: FakeCluster, replicas: int) -> dict[str, Any]:
    """As somebody else does."""
    return cluster.edit(DEPLOYMENT, "tenant", "orders-protected", lambda obj: obj["spec"].update(replicas=replicas))


@pytest.fixture
def cluster() -> FakeCluster:
    cluster = FakeCluster(namespaces=("tenant", OPERATOR_NAMESPACE, "kube-system"))
    cluster.insert(PROTECTED_SERVICE, service())
    cluster.insert(DEPLOYMENT, deployment(replicas=1))
    return cluster


@pytest.fixture
async def operator(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Operator]:
    """Started, but with workers that do not work, so that what is queued can be looked at."""
    operator = Operator(cluster)
    monkeypatch.setattr(operator.workers, "start", lambda: None)
    await operator.runtime.start()
    operator.watch()
    await operator.settle()
    yield operator
    await operator.runtime.stop()


# Start


async def test_the_caches_are_full_before_the_first_pass(cluster: FakeCluster) -> None:
    operator = Operator(cluster)
    assert operator.runtime.not_ready() == ["the caches are not filled yet"]

    await operator.runtime.start()
    operator.clock.now += 1
    operator.queue.add(Key("ProtectedService", "tenant", "nobody"))  # wakes a worker, which then finds what is due
    await asyncio.wait_for(operator.passes.seen.wait(), 5)

    assert operator.runtime.not_ready() == []
    assert operator.cache.get(DEPLOYMENT, "tenant", "orders-protected") is not None
    assert operator.cache.get(PROTECTED_SERVICE, "tenant", "orders") is not None
    await operator.runtime.stop()


async def test_at_start_every_service_server_and_ledger_entry_is_looked_at_and_the_sweep_begins(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.insert(AUTHORIZATION_SERVER, {"metadata": {"name": "default", "namespace": OPERATOR_NAMESPACE}, "spec": {}})
    leftover = {"name": "psvc-gone", "namespace": OPERATOR_NAMESPACE, "labels": {"protectedservice.dev/watch": "true"}}
    cluster.insert(SECRET, {"metadata": leftover})
    operator = Operator(cluster)
    monkeypatch.setattr(operator.workers, "start", lambda: None)
    await operator.runtime.start()
    operator.clock.now += 1

    assert set(await operator.pending()) == {
        ORDERS,
        Key("AuthorizationServer", OPERATOR_NAMESPACE, "default"),
        Key("Ledger", OPERATOR_NAMESPACE, "psvc-gone"),
        Key("Sweep", OPERATOR_NAMESPACE, "orphans"),
    }
    await operator.runtime.stop()


async def test_a_start_without_crds_fails_with_the_remedy(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = Operator(cluster)

    def no_such_kind(verb: str, kind: Kind, namespace: str | None, name: str) -> None:
        operator.clock.now += 61
        raise NotFound(f"{verb} {kind}")

    cluster.before_read = no_such_kind

    with pytest.raises(StartFailed, match="apply crds/ first"):
        await operator.runtime.start()
    assert operator.runtime.not_ready()


async def test_a_start_waits_for_an_api_server_that_is_a_moment_late(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = Operator(cluster)
    failures = iter(range(3))

    def late(*_: object) -> None:
        if next(failures, None) is not None:
            raise ClusterUnavailable("ClusterUnavailable", "not yet")

    cluster.before_read = late
    monkeypatch.setattr("protectedservice_operator.runtime.START_RETRY", 0)
    await operator.runtime.start()

    assert operator.runtime.not_ready() == []
    await operator.runtime.stop()


async def test_the_cluster_is_known_by_the_uid_of_kube_system(cluster: FakeCluster) -> None:
    uid = cluster.read(NAMESPACE, None, "kube-system")["metadata"]["uid"]

    assert await identify_cluster(cluster, Clock()) == uid


async def test_a_restart_writes_nothing(cluster: FakeCluster) -> None:
    for _ in range(2):
        operator = Operator(cluster)
        await operator.runtime.start()
        operator.watch()
        await operator.settle()
        await operator.runtime.stop()

    assert cluster.writes == []


# Events


async def test_what_kopf_lists_after_the_start_is_known_already(operator: Operator) -> None:
    operator.watch()

    assert await operator.pending() == []


async def test_an_edited_child_brings_its_service_back(operator: Operator, cluster: FakeCluster) -> None:
    scale(cluster, 7)

    assert await operator.pending() == [ORDERS]
    assert operator.metrics.value("watch_events_total", kind="Deployment") == 1


async def test_a_deleted_child_brings_its_service_back(operator: Operator, cluster: FakeCluster) -> None:
    cluster.remove(DEPLOYMENT, "tenant", "orders-protected")

    assert await operator.pending() == [ORDERS]


async def test_a_child_whose_label_is_taken_off_is_gone_for_us_and_its_service_comes_back(
    operator: Operator, cluster: FakeCluster
) -> None:
    cluster.edit(DEPLOYMENT, "tenant", "orders-protected", lambda obj: obj["metadata"].pop("labels"))

    assert operator.cache.get(DEPLOYMENT, "tenant", "orders-protected") is None
    assert await operator.pending() == [ORDERS]


async def test_the_echo_of_our_own_write_brings_nobody_back(operator: Operator, cluster: FakeCluster) -> None:
    cluster.deaf = True
    written = scale(cluster, 7)
    operator.cache.put(DEPLOYMENT, written)

    operator.runtime.observe(DEPLOYMENT, "MODIFIED", written)

    assert await operator.pending() == []


async def test_a_namespace_with_new_labels_brings_its_services_back(operator: Operator, cluster: FakeCluster) -> None:
    cluster.edit(NAMESPACE, None, "tenant", lambda obj: obj["metadata"]["labels"].update(team="blue"))

    assert await operator.pending() == [ORDERS]


async def test_a_changed_registration_credential_brings_its_authorization_server_back(
    operator: Operator, cluster: FakeCluster
) -> None:
    spec = {"registration": {"credentialsSecret": {"name": "token"}}}
    cluster.insert(
        AUTHORIZATION_SERVER, {"metadata": {"name": "default", "namespace": OPERATOR_NAMESPACE}, "spec": spec}
    )
    metadata = {"namespace": OPERATOR_NAMESPACE, "labels": {"protectedservice.dev/watch": "true"}}
    cluster.insert(SECRET, {"metadata": {"name": "token", **metadata}, "data": {"token": "YQ=="}})
    cluster.insert(SECRET, {"metadata": {"name": "other", **metadata}})
    await operator.pending()

    cluster.edit(SECRET, OPERATOR_NAMESPACE, "token", lambda obj: obj["data"].update(token="Yg=="))
    cluster.edit(SECRET, OPERATOR_NAMESPACE, "other", lambda obj: obj.update(data={"a": "Yg=="}))

    assert await operator.pending() == [Key("AuthorizationServer", OPERATOR_NAMESPACE, "default")]


async def test_metrics_tell_what_is_cached_and_what_waits_at_this_moment(
    operator: Operator, cluster: FakeCluster
) -> None:
    cluster.insert(DEPLOYMENT, deployment("other-protected"))
    operator.clock.now += 3

    assert operator.metrics.value("cached_objects", kind="Deployment") == 2
    assert operator.metrics.value("workqueue_depth") == 1
    assert operator.metrics.value("workqueue_oldest_seconds") == 3


# Resync and deaf watches


async def test_a_deletion_that_a_relist_hides_is_found_ten_seconds_after_it(
    operator: Operator, cluster: FakeCluster
) -> None:
    cluster.deaf = True
    cluster.remove(DEPLOYMENT, "tenant", "orders-protected")
    cluster.deaf = False
    cluster.insert(DEPLOYMENT, deployment("other-protected"))
    await operator.pending()
    operator.runtime.observe(DEPLOYMENT, None, cluster.read(DEPLOYMENT, "tenant", "other-protected"))
    await operator.pass_time(9)
    assert await operator.pending() == []

    await operator.pass_time(1)

    assert await operator.pending() == [ORDERS]
    assert operator.metrics.value("resync_missed_deletes_total", kind="Deployment") == 1


async def test_a_deletion_between_our_list_and_kopfs_is_found_soon_after_the_start(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    operator = Operator(cluster)
    monkeypatch.setattr(operator.workers, "start", lambda: None)
    await operator.runtime.start()
    operator.clock.now += 1
    cluster.remove(DEPLOYMENT, "tenant", "orders-protected")
    operator.watch()
    await operator.pending()
    await operator.pass_time(20)

    assert operator.cache.get(DEPLOYMENT, "tenant", "orders-protected") is None
    assert ORDERS in await operator.pending()
    await operator.runtime.stop()


async def test_between_its_intervals_nothing_is_listed(operator: Operator, cluster: FakeCluster) -> None:
    reads: list[str] = []
    cluster.before_read = lambda verb, kind, *_: reads.append(f"{verb} {kind}")
    await operator.pass_time(900)
    assert reads == []

    await operator.pass_time(600)
    assert sorted(reads) == sorted(f"list {kind}" for kind in WATCHED)


async def test_a_list_that_fails_is_tried_again_after_half_a_minute(
    operator: Operator, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*_: object) -> None:
        raise ClusterUnavailable("ClusterUnavailable", "away")

    cluster.before_read = away
    await operator.pass_time(1500)
    assert "Could not list deployments" in caplog.text
    assert operator.runtime.not_alive() == []

    cluster.before_read = lambda *_: None
    count = operator.metrics.value("resyncs_total", kind="Deployment")
    await operator.pass_time(30)
    assert operator.metrics.value("resyncs_total", kind="Deployment") == count + 1


async def test_a_change_that_the_watch_delivers_in_time_is_no_miss(operator: Operator, cluster: FakeCluster) -> None:
    cluster.deaf = True
    late = scale(cluster, 7)
    await operator.runtime.resync(DEPLOYMENT)
    operator.runtime.observe(DEPLOYMENT, "MODIFIED", late)
    await operator.pass_time(61)

    assert operator.metrics.value("watch_lag_detected_total", kind="Deployment") == 0


async def test_a_watch_that_delivers_nothing_any_more_ends_the_process(
    operator: Operator, cluster: FakeCluster
) -> None:
    cluster.deaf = True
    for replicas in (7, 8, 9):
        assert operator.runtime.not_alive() == []
        scale(cluster, replicas)
        await operator.runtime.resync(DEPLOYMENT)
        await operator.pass_time(61)

    assert operator.metrics.value("watch_lag_detected_total", kind="Deployment") == 3
    assert operator.runtime.not_alive() == ["the watch of deployments delivers nothing any more"]


async def test_a_single_event_in_between_shows_that_the_watch_lives(operator: Operator, cluster: FakeCluster) -> None:
    for replicas in (7, 8, 9, 10, 11):
        cluster.deaf = True
        scale(cluster, replicas)
        await operator.runtime.resync(DEPLOYMENT)
        await operator.pass_time(61)
        cluster.deaf = False
        cluster.insert(DEPLOYMENT, deployment(f"other-{replicas}"))

    assert operator.runtime.not_alive() == []


async def test_an_operator_that_stops_says_so(operator: Operator) -> None:
    await operator.runtime.stop()

    assert operator.runtime.not_ready() == ["the operator is stopping"]
    assert operator.runtime.not_alive() == []


async def test_a_worker_that_died_ends_the_process(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    operator = Operator(cluster)
    await operator.runtime.start()
    died = asyncio.Event()

    async def die(key: Key) -> float | None:
        died.set()
        raise Fatal

    monkeypatch.setattr(operator.passes, "reconcile", die)
    assert operator.runtime.not_alive() == []
    operator.queue.add(ORDERS)
    await asyncio.wait_for(died.wait(), 5)
    await asyncio.sleep(0)

    assert operator.runtime.not_alive() == ["1 workers have died"]
    await operator.runtime.stop()


# The management port


@pytest.fixture
def faults() -> dict[str, list[str]]:
    return {"alive": [], "ready": []}


@pytest.fixture
async def management(faults: dict[str, list[str]]) -> AsyncIterator[str]:
    metrics = Metrics()
    metrics.workqueue_adds.inc()
    management = Management(metrics, not_alive=lambda: faults["alive"], not_ready=lambda: faults["ready"])
    port = await management.start(0)
    yield f"http://127.0.0.1:{port}"
    await management.stop()


async def ask(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def test_health_is_good_while_nothing_is_wrong(management: str) -> None:
    assert await ask(f"{management}/healthz") == (200, "ok\n")
    assert await ask(f"{management}/readyz") == (200, "ok\n")


async def test_health_says_what_is_wrong_with_503(management: str, faults: dict[str, list[str]]) -> None:
    faults["alive"], faults["ready"] = ["2 workers have died"], ["the caches are not filled yet"]

    assert await ask(f"{management}/healthz") == (503, "2 workers have died\n")
    assert await ask(f"{management}/readyz") == (503, "the caches are not filled yet\n")


async def test_metrics_are_served_as_prometheus_reads_them(management: str) -> None:
    status, text = await ask(f"{management}/metrics")

    assert status == 200
    assert "protectedservice_workqueue_adds_total 1.0" in text


# kopf


def test_kopf_is_told_to_leave_our_finalizer_alone() -> None:
    assert kopf_settings().persistence.finalizer != FINALIZER == "protectedservice.dev/client"


def test_kopf_watches_secrets_and_children_by_label_only() -> None:
    selectors = kopf_settings().watching.label_selectors

    for kind, selector in WATCHED.items():
        place = (kind.group, kind.version, kind.plural)
        assert selectors.get(place) == selector
    assert selectors["", "v1", "secrets"] == "protectedservice.dev/watch=true"


@pytest.fixture
def api_server(monkeypatch: pytest.MonkeyPatch, cluster: FakeCluster) -> WatchedApiServer:
    api_server = WatchedApiServer(cluster, tuple(WATCHED))

    async def credentials() -> Credentials:
        return Credentials(api_server.url, None, False, None, None, None, "Bearer", "sesame")

    monkeypatch.setattr(handlers, "load_credentials", credentials)
    return api_server


async def test_kopf_delivers_events_and_deletions_and_writes_nothing(
    cluster: FakeCluster, api_server: WatchedApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = {"name": "s", "namespace": "tenant", "labels": {"protectedservice.dev/watch": "true"}}
    cluster.insert(SECRET, {"metadata": secret, "data": {"client_secret": "c2VzYW1l"}})
    cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda obj: obj["metadata"].update(finalizers=[FINALIZER]))
    operator = Operator(cluster, clock=Clock())
    heard: asyncio.Queue[tuple[str, str | None, str]] = asyncio.Queue()
    observe = operator.runtime.observe

    def listen(kind: Kind, type_: str | None, obj: dict[str, Any]) -> None:
        observe(kind, type_, obj)
        heard.put_nowait((kind.kind, type_, obj["metadata"]["name"]))

    operator.runtime.observe = listen  # type: ignore[method-assign]
    stop, ready = asyncio.Event(), asyncio.Event()
    async with api_server:
        running = asyncio.create_task(
            kopf.operator(
                registry=make_registry(operator.runtime),
                settings=kopf_settings(),
                clusterwide=True,
                stop_flag=stop,
                ready_flag=ready,
            )
        )
        async with asyncio.timeout(20):
            await ready.wait()
            listed = {await heard.get() for _ in range(6)}
            await api_server.all_watched.wait()
            scale(cluster, 7)
            edited = await heard.get()
            cluster.remove(DEPLOYMENT, "tenant", "orders-protected")
            removed = await heard.get()
            stop.set()
    async with asyncio.timeout(20):  # the server's own tasks must be gone, or kopf waits 5 s for them
        await running

    assert {(kind, name) for kind, type_, name in listed if type_ is None} >= {
        ("ProtectedService", "orders"),
        ("Deployment", "orders-protected"),
        ("Secret", "s"),
    }
    assert edited == ("Deployment", "MODIFIED", "orders-protected")
    assert removed == ("Deployment", "DELETED", "orders-protected")
    assert api_server.writes == []
    assert api_server.selectors["secrets"] == "protectedservice.dev/watch=true"
    assert cluster.read(PROTECTED_SERVICE, "tenant", "orders")["metadata"]["finalizers"] == [FINALIZER]
    assert operator.runtime.not_ready() == ["the operator is stopping"]
