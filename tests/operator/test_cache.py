"""What the cache keeps, what it ignores, what a full list does to it, and which keys a change concerns."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from protectedservice_operator.cache import Cache, Cached, newer
from protectedservice_operator.registration.ledger import ANNOTATION
from protectedservice_operator.resource import (
    AUTHORIZATION_SERVER,
    DEPLOYMENT,
    LABEL_NAME,
    NAMESPACE,
    POD,
    PROTECTED_SERVICE,
    SECRET,
    SERVICE_CLIENT,
    WATCHED,
    Key,
    Kind,
)
from protectedservice_operator.triggers import Triggers

from ..support.fake_cluster import FakeCluster

ORDERS = Key("ProtectedService", "tenant", "orders")
CALLER = Key("ServiceClient", "tenant", "orders")
VALUE = "correct horse battery staple"


def thing(name: str = "orders", version: int = 1, uid: str = "u-1", **rest: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "tenant", "uid": uid, "resourceVersion": str(version)}
    return {"metadata": metadata | rest.pop("metadata", {}), **rest}


def owned(name: str = "orders-protected", owner: str = "u-1", **rest: Any) -> dict[str, Any]:
    reference = {"kind": "ProtectedService", "name": "orders", "uid": owner, "controller": True}
    return thing(name, uid=f"child-{name}", metadata={"ownerReferences": [reference]}, **rest)


@pytest.fixture
def cache() -> Cache:
    return Cache()


# What is kept


def test_an_entry_gives_the_object_back_without_what_nobody_needs(cache: Cache) -> None:
    applied = "kubectl.kubernetes.io/last-applied-configuration"
    cache.put(
        DEPLOYMENT,
        thing(
            version=7,
            metadata={"managedFields": [{"manager": "x"}], "annotations": {applied: "{...}", "kept": "yes"}},
            spec={"replicas": 2},
        ),
    )

    entry = cache.get(DEPLOYMENT, "tenant", "orders")

    assert entry is not None
    assert entry.body() == {
        "metadata": {
            "name": "orders", "namespace": "tenant", "uid": "u-1", "resourceVersion": "7",
            "annotations": {"kept": "yes"},
        },
        "spec": {"replicas": 2},
    }  # fmt: skip


def test_the_object_given_in_is_left_as_it_was(cache: Cache) -> None:
    secret = thing(data={"token": "eA=="}, metadata={"managedFields": []})
    cache.put(SECRET, secret)

    assert secret["data"] == {"token": "eA=="}
    assert "managedFields" in secret["metadata"]


def test_of_a_secret_only_digests_of_its_values_are_kept(cache: Cache) -> None:
    encoded = base64.b64encode(VALUE.encode()).decode()
    cache.put(SECRET, thing(data={"client_secret": encoded}, stringData={"other": VALUE}))

    entry = cache.get(SECRET, "tenant", "orders")

    assert entry is not None
    assert entry.digests == {"client_secret": hashlib.sha256(VALUE.encode()).hexdigest()}
    kept = repr(entry) + repr(entry.body()) + entry.content.decode()
    assert VALUE not in kept
    assert encoded not in kept


def test_the_data_of_a_config_map_is_kept(cache: Cache) -> None:
    cache.put(WATCHED_CONFIG_MAP, thing(data={"policy.yaml": "scopes: [read]"}))

    entry = cache.get(WATCHED_CONFIG_MAP, "tenant", "orders")

    assert entry is not None
    assert entry.body()["data"] == {"policy.yaml": "scopes: [read]"}


def test_changing_a_body_does_not_change_the_entry(cache: Cache) -> None:
    cache.put(DEPLOYMENT, thing(spec={"replicas": 2}))
    entry = cache.get(DEPLOYMENT, "tenant", "orders")
    assert entry is not None
    entry.body()["spec"]["replicas"] = 9

    assert entry.body()["spec"]["replicas"] == 2


# What counts as a change


def test_a_newer_version_with_other_content_is_a_change(cache: Cache) -> None:
    assert cache.put(DEPLOYMENT, thing(version=1, spec={"replicas": 1}))
    assert cache.put(DEPLOYMENT, thing(version=2, spec={"replicas": 2}))


def test_the_echo_of_our_own_write_is_none(cache: Cache) -> None:
    cache.put(DEPLOYMENT, thing(version=5, spec={"replicas": 2}))

    assert not cache.put(DEPLOYMENT, thing(version=5, spec={"replicas": 2}))


def test_an_older_event_does_not_undo_a_newer_write(cache: Cache) -> None:
    cache.put(DEPLOYMENT, thing(version=10, spec={"replicas": 2}))

    assert not cache.put(DEPLOYMENT, thing(version=9, spec={"replicas": 1}))
    entry = cache.get(DEPLOYMENT, "tenant", "orders")
    assert entry is not None
    assert entry.resource_version == "10"


def test_a_newer_version_of_the_same_content_is_no_change_but_moves_the_version(cache: Cache) -> None:
    cache.put(DEPLOYMENT, thing(version=1, metadata={"managedFields": [1]}))

    assert not cache.put(DEPLOYMENT, thing(version=2, metadata={"managedFields": [2]}))
    entry = cache.get(DEPLOYMENT, "tenant", "orders")
    assert entry is not None
    assert entry.resource_version == "2"
    assert entry.body()["metadata"]["resourceVersion"] == "2"


def test_another_secret_value_is_a_change_although_the_value_is_not_kept(cache: Cache) -> None:
    cache.put(SECRET, thing(version=1, data={"token": "YQ=="}))

    assert cache.put(SECRET, thing(version=2, data={"token": "Yg=="}))


def test_an_object_made_anew_under_the_same_name_replaces_the_old_one(cache: Cache) -> None:
    cache.put(DEPLOYMENT, owned(owner="u-1", version=5))

    assert cache.put(DEPLOYMENT, thing("orders-protected", version=6, uid="other"))
    assert cache.owned_by("u-1") == ()
    assert not cache.put(DEPLOYMENT, owned(owner="u-1", version=5))


@pytest.mark.parametrize(
    ("version", "than", "answer"),
    [
        pytest.param("10", "9", True, id="numbers, not text"),
        pytest.param("9", "10", False, id="older"),
        pytest.param("9", "9", False, id="equal"),
        pytest.param("abc", "9", True, id="not a number: never ignored"),
        pytest.param("abc", "abc", False, id="not a number, but equal"),
    ],
)
def test_versions_are_compared_in_one_place(version: str, than: str, answer: bool) -> None:
    assert newer(version, than) is answer


# Deletion


def test_a_deleted_object_is_forgotten(cache: Cache) -> None:
    cache.put(DEPLOYMENT, owned())

    assert cache.remove(DEPLOYMENT, owned(version=2))
    assert cache.get(DEPLOYMENT, "tenant", "orders-protected") is None
    assert cache.owned_by("u-1") == ()
    assert not cache.remove(DEPLOYMENT, owned(version=2))


def test_the_deletion_of_a_former_object_leaves_the_present_one(cache: Cache) -> None:
    cache.put(DEPLOYMENT, thing(uid="new", version=5))

    assert not cache.remove(DEPLOYMENT, thing(uid="old", version=4))
    assert cache.get(DEPLOYMENT, "tenant", "orders") is not None


def test_a_late_answer_to_a_write_does_not_bring_a_deleted_object_back(cache: Cache) -> None:
    cache.put(DEPLOYMENT, thing(version=5))
    cache.remove(DEPLOYMENT, thing(version=7))

    assert not cache.put(DEPLOYMENT, thing(version=6))
    assert cache.get(DEPLOYMENT, "tenant", "orders") is None


def test_an_object_that_lost_its_label_and_got_it_back_is_known_again(cache: Cache) -> None:
    cache.put(DEPLOYMENT, thing(version=5))
    cache.remove(DEPLOYMENT, thing(version=7))

    assert cache.put(DEPLOYMENT, thing(version=8))


# Indices


def test_children_are_found_by_the_uid_of_their_controller(cache: Cache) -> None:
    cache.put(DEPLOYMENT, owned("a"))
    cache.put(SECRET, owned("b"))
    cache.put(SECRET, owned("c", owner="u-2"))

    assert {entry.name for entry in cache.owned_by("u-1")} == {"a", "b"}


def test_an_owner_that_is_not_the_controller_does_not_count(cache: Cache) -> None:
    reference = {"kind": "ProtectedService", "name": "orders", "uid": "u-1"}
    cache.put(DEPLOYMENT, thing(metadata={"ownerReferences": [reference]}))

    assert cache.owned_by("u-1") == ()


def test_pods_are_found_by_namespace_and_service_and_kind(cache: Cache) -> None:
    labels = {"labels": {LABEL_NAME: "orders"}}
    cache.put(POD, thing("pod-1", uid="p1", metadata=labels))
    cache.put(POD, thing("pod-2", uid="p2", metadata=labels))
    cache.put(POD, thing("pod-3", uid="p3", metadata={"namespace": "other", **labels}))
    cache.put(DEPLOYMENT, thing("x", uid="d1", metadata=labels))
    cache.remove(POD, thing("pod-2", uid="p2", version=2))

    assert [entry.name for entry in cache.of_service(POD, "tenant", "orders")] == ["pod-1"]


def test_a_changed_label_moves_a_pod_to_another_service(cache: Cache) -> None:
    cache.put(POD, thing("pod-1", metadata={"labels": {LABEL_NAME: "orders"}}))
    cache.put(POD, thing("pod-1", version=2, metadata={"labels": {LABEL_NAME: "billing"}}))

    assert cache.of_service(POD, "tenant", "orders") == ()
    assert len(cache.of_service(POD, "tenant", "billing")) == 1


# Resync


class Listed:
    """A list that was taken at one moment; `during` happens while it is read."""

    def __init__(self, version: int, *objects: dict[str, Any], during: Any = None) -> None:
        self.resource_version = ""
        self._version, self._objects, self._during = version, objects, during

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        self.resource_version = str(self._version)
        for obj in self._objects:
            yield obj
        if self._during:
            self._during()


async def test_a_resync_finds_what_the_watch_did_not_tell(cache: Cache) -> None:
    cache.put(DEPLOYMENT, thing("same", uid="1", version=1))
    cache.put(DEPLOYMENT, thing("edited", uid="2", version=2, spec={"replicas": 1}))
    cache.put(DEPLOYMENT, thing("deleted", uid="3", version=3))

    found = await cache.resync(
        DEPLOYMENT,
        Listed(
            10,
            thing("same", uid="1", version=1),
            thing("edited", uid="2", version=9, spec={"replicas": 2}),
            thing("made", uid="4", version=8),
        ),
    )

    assert {entry.name for entry in found.changed} == {"edited", "made"}
    assert [entry.name for entry in found.removed] == ["deleted"]
    assert [entry.resource_version for entry in found.before] == ["2"]
    assert {entry.name for entry in cache.all(DEPLOYMENT)} == {"same", "edited", "made"}


async def test_a_resync_of_what_is_known_finds_nothing(cache: Cache) -> None:
    cache.put(DEPLOYMENT, thing(version=1))

    assert list(await cache.resync(DEPLOYMENT, Listed(10, thing(version=1)))) == []


async def test_what_was_written_after_the_list_was_taken_stays(cache: Cache) -> None:
    listing = Listed(10, during=lambda: cache.put(DEPLOYMENT, thing("made", version=11)))

    found = await cache.resync(DEPLOYMENT, listing)

    assert list(found) == []
    assert cache.get(DEPLOYMENT, "tenant", "made") is not None


async def test_an_object_made_anew_meanwhile_replaces_the_one_that_the_list_does_not_have(cache: Cache) -> None:
    cache.put(DEPLOYMENT, thing(uid="old", version=3))

    found = await cache.resync(DEPLOYMENT, Listed(10, thing(uid="new", version=9)))

    assert [entry.uid for entry in found.changed] == ["new"]
    assert [entry.uid for entry in found.before] == ["old"]
    assert found.removed == ()


async def test_an_event_from_before_the_list_does_not_bring_back_what_the_list_showed_gone(cache: Cache) -> None:
    cache.put(DEPLOYMENT, thing(version=3))
    await cache.resync(DEPLOYMENT, Listed(10))

    assert not cache.put(DEPLOYMENT, thing(version=4))


async def test_other_kinds_are_not_touched_by_a_resync(cache: Cache) -> None:
    cache.put(SECRET, thing(version=1))
    await cache.resync(DEPLOYMENT, Listed(10))

    assert cache.get(SECRET, "tenant", "orders") is not None


async def test_a_cache_fed_by_a_watch_ends_equal_to_the_cluster() -> None:
    cluster, cache = FakeCluster(namespaces=("tenant",)), Cache()
    feed(cluster, cache)
    made = await cluster.create(DEPLOYMENT, {"metadata": {"name": "a", "namespace": "tenant", "labels": SERVER}})
    await cluster.create(DEPLOYMENT, {"metadata": {"name": "b", "namespace": "tenant", "labels": SERVER}})
    cluster.edit(DEPLOYMENT, "tenant", "a", lambda obj: obj.update(spec={"replicas": 3}))
    await cluster.delete(DEPLOYMENT, "tenant", "b")
    cluster.deaf = True
    await cluster.delete(DEPLOYMENT, "tenant", "a")
    cluster.deaf = False

    assert [entry.uid for entry in cache.all(DEPLOYMENT)] == [made["metadata"]["uid"]]
    found = await cache.resync(DEPLOYMENT, cluster.list(DEPLOYMENT, label_selector=WATCHED[DEPLOYMENT]))
    assert [entry.name for entry in found.removed] == ["a"]
    assert cache.all(DEPLOYMENT) == ()


# Which keys a change concerns


def entry_of(cache: Cache, kind: Kind, obj: dict[str, Any]) -> Cached:
    cache.put(kind, obj)
    metadata = obj["metadata"]
    entry = cache.get(kind, metadata.get("namespace"), metadata["name"])
    assert entry is not None
    return entry


def ledger_secret(uid: str, **more: str) -> dict[str, Any]:
    record = {"owner_namespace": "tenant", "owner_name": "orders", **more}
    metadata = {"namespace": "protectedservice-system", "annotations": {ANNOTATION: json.dumps(record)}}
    return thing(f"psvc-{uid}", uid="ledger", metadata=metadata)


@pytest.fixture
def triggers(cache: Cache) -> Triggers:
    return Triggers(cache, "protectedservice-system")


def test_custom_resources_concern_themselves(cache: Cache, triggers: Triggers) -> None:
    assert triggers.keys_for(entry_of(cache, PROTECTED_SERVICE, thing())) == {ORDERS}
    assert triggers.keys_for(entry_of(cache, AUTHORIZATION_SERVER, thing("default"))) == {
        Key("AuthorizationServer", "tenant", "default")
    }


def test_a_child_concerns_its_controller(cache: Cache, triggers: Triggers) -> None:
    assert triggers.keys_for(entry_of(cache, DEPLOYMENT, owned())) == {ORDERS}


def test_a_child_robbed_of_its_owner_still_concerns_the_service_it_is_labelled_with(
    cache: Cache, triggers: Triggers
) -> None:
    child = thing("orders-protected", metadata={"labels": {LABEL_NAME: "orders"}})

    assert triggers.keys_for(entry_of(cache, DEPLOYMENT, child)) == {ORDERS}


def test_a_pod_concerns_the_service_of_its_label_not_its_replica_set(cache: Cache, triggers: Triggers) -> None:
    replica_set = {"kind": "ReplicaSet", "name": "rs", "uid": "rs", "controller": True}
    pod = thing("pod", metadata={"labels": {LABEL_NAME: "orders"}, "ownerReferences": [replica_set]})

    assert triggers.keys_for(entry_of(cache, POD, pod)) == {ORDERS}


def test_a_secret_robbed_of_its_owner_may_be_a_callers(cache: Cache, triggers: Triggers) -> None:
    secret = thing("orders-oauth2-caller", metadata={"labels": {LABEL_NAME: "orders"}})

    assert triggers.keys_for(entry_of(cache, SECRET, secret)) == {ORDERS, CALLER}


def calls(*services: dict[str, str]) -> dict[str, Any]:
    """A ServiceClient `orders`, as far as an index looks at it."""
    return {**thing(uid="c-1", version=3), "spec": {"services": list(services)}}


def test_a_change_of_a_service_concerns_those_that_call_it_as_they_do_now(cache: Cache, triggers: Triggers) -> None:
    service = entry_of(cache, PROTECTED_SERVICE, thing("stock"))
    stock = Key("ProtectedService", "tenant", "stock")
    caller = calls({"name": "stock"}, {"name": "stock", "namespace": "other"})

    assert triggers.keys_for(entry_of(cache, SERVICE_CLIENT, caller)) == {CALLER}
    assert triggers.keys_for(service) == {stock, CALLER}

    changed = calls({"name": "other"})
    changed["metadata"]["resourceVersion"] = "4"
    cache.put(SERVICE_CLIENT, changed)
    assert triggers.keys_for(service) == {stock}

    changed["metadata"]["resourceVersion"] = "5"
    changed["spec"] = {"services": [{"name": "stock"}]}
    cache.put(SERVICE_CLIENT, changed)
    assert triggers.keys_for(service) == {stock, CALLER}
    cache.remove(SERVICE_CLIENT, changed)
    assert triggers.keys_for(service) == {stock}


def test_a_ledger_entry_of_a_caller_concerns_the_caller(cache: Cache, triggers: Triggers) -> None:
    cache.put(PROTECTED_SERVICE, thing(uid="u-1"))
    cache.put(SERVICE_CLIENT, calls())
    of_the_caller = ledger_secret("c-1", owner_kind="ServiceClient")
    of_an_unknown_kind = ledger_secret("u-1", owner_kind="Unheard")

    assert triggers.keys_for(entry_of(cache, SECRET, of_the_caller)) == {CALLER}
    assert triggers.keys_for(entry_of(cache, SECRET, of_an_unknown_kind)) == {
        Key("Ledger", "protectedservice-system", "psvc-u-1")
    }


def test_a_ledger_entry_concerns_its_owner_while_that_is_there(cache: Cache, triggers: Triggers) -> None:
    cache.put(PROTECTED_SERVICE, thing(uid="u-1"))

    assert triggers.keys_for(entry_of(cache, SECRET, ledger_secret("u-1"))) == {ORDERS}


def test_a_ledger_entry_concerns_its_authorization_server_while_that_is_being_deleted(
    cache: Cache, triggers: Triggers
) -> None:
    cache.put(PROTECTED_SERVICE, thing(uid="u-1"))
    entry = entry_of(cache, SECRET, ledger_secret("u-1", server="tenant/default"))
    assert triggers.keys_for(entry) == {ORDERS}
    cache.put(AUTHORIZATION_SERVER, thing("default", version=1))
    assert triggers.keys_for(entry) == {ORDERS}

    cache.put(AUTHORIZATION_SERVER, thing("default", version=2, metadata={"deletionTimestamp": "2026-11-27T00:00:00Z"}))

    assert triggers.keys_for(entry) == {ORDERS, Key("AuthorizationServer", "tenant", "default")}


@pytest.mark.parametrize(
    "present",
    [pytest.param(None, id="the owner is gone"), pytest.param("u-2", id="another object has the owner's name")],
)
def test_a_ledger_entry_without_its_owner_is_work_of_its_own(
    cache: Cache, triggers: Triggers, present: str | None
) -> None:
    if present:
        cache.put(PROTECTED_SERVICE, thing(uid=present))

    assert triggers.keys_for(entry_of(cache, SECRET, ledger_secret("u-1"))) == {
        Key("Ledger", "protectedservice-system", "psvc-u-1")
    }


def test_a_secret_that_only_looks_like_a_ledger_entry_in_a_tenants_namespace_is_none(
    cache: Cache, triggers: Triggers
) -> None:
    forged = ledger_secret("u-1")
    forged["metadata"]["namespace"] = "tenant"

    assert triggers.keys_for(entry_of(cache, SECRET, forged)) == set()


def test_a_service_torn_from_the_cluster_concerns_its_ledger_entry_too(cache: Cache, triggers: Triggers) -> None:
    service = entry_of(cache, PROTECTED_SERVICE, thing(uid="u-1"))
    cache.put(SECRET, ledger_secret("u-1"))
    cache.remove(PROTECTED_SERVICE, thing(uid="u-1", version=2))

    assert triggers.keys_for(service, None) == {ORDERS, Key("Ledger", "protectedservice-system", "psvc-u-1")}


def test_a_namespace_concerns_all_services_and_servers_in_it(cache: Cache, triggers: Triggers) -> None:
    cache.put(PROTECTED_SERVICE, thing("orders", uid="1"))
    cache.put(PROTECTED_SERVICE, thing("billing", uid="2"))
    cache.put(PROTECTED_SERVICE, thing("other", uid="3", metadata={"namespace": "elsewhere"}))
    cache.put(AUTHORIZATION_SERVER, thing("default", uid="4"))
    namespace = {"metadata": {"name": "tenant", "uid": "ns", "resourceVersion": "1"}}

    assert triggers.keys_for(entry_of(cache, NAMESPACE, namespace)) == {
        ORDERS,
        Key("ProtectedService", "tenant", "billing"),
        Key("AuthorizationServer", "tenant", "default"),
    }


def test_related_keys_are_asked_for_old_and_new(cache: Cache) -> None:
    asked = []

    def related(entry: Cached) -> list[Key]:
        asked.append(entry.resource_version)
        return [Key("AuthorizationServer", entry.namespace, "default")]

    triggers = Triggers(cache, "protectedservice-system", related)
    old = entry_of(cache, SECRET, thing("token", version=1))
    new = entry_of(cache, SECRET, thing("token", version=2, data={"token": "YQ=="}))

    assert triggers.keys_for(old, new) == {Key("AuthorizationServer", "tenant", "default")}
    assert asked == ["1", "2"]


SERVER = {"protectedservice.dev/component": "resource-server"}
WATCHED_CONFIG_MAP = next(kind for kind in WATCHED if kind.kind == "ConfigMap")


def feed(cluster: FakeCluster, cache: Cache) -> None:
    def told(kind: Kind, type_: str, obj: dict[str, Any]) -> None:
        if type_ == "DELETED":
            cache.remove(kind, obj)
        else:
            cache.put(kind, obj)

    cluster.on_change(told, WATCHED)
