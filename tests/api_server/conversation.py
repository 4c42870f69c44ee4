"""One conversation with the Kubernetes API, written down as lines; the fake and the real one must say the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from protectedservice_operator.cluster_api import ClusterApi
from protectedservice_operator.errors import AlreadyExists, Conflict, NotFound, Rejected
from protectedservice_operator.resource import CONFIG_MAP, DEPLOYMENT, NAMESPACE, REPLICAS_MANAGER, SECRET, SERVICE

LABELS = {"conversation": "yes"}
IMAGE = "example.invalid/image:1"


async def outcome(asked: Awaitable[Any]) -> str:
    """What came of it, without what differs between two clusters."""
    try:
        await asked
    except Rejected as refusal:
        return f"Rejected {refusal.status}"
    except (AlreadyExists, Conflict, NotFound) as error:
        return type(error).__name__
    return "done"


def config_map(namespace: str, name: str = "one", **rest: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": dict(LABELS)} | rest.pop("metadata", {})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **rest}


def deployment(namespace: str, *containers: dict[str, Any], **rest: Any) -> dict[str, Any]:
    template = {"metadata": {"labels": LABELS}, "spec": {"containers": list(containers)}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "work", "namespace": namespace, "labels": LABELS},
        "spec": {"selector": {"matchLabels": LABELS}, "template": template, **rest},
    }


def container(name: str = "server", **rest: Any) -> dict[str, Any]:
    return {"name": name, "image": IMAGE, **rest}


def version(obj: dict[str, Any]) -> int:
    return int(obj["metadata"]["resourceVersion"])


async def read(cluster: ClusterApi, kind: Any, namespace: str, name: str) -> dict[str, Any]:
    found = await cluster.get(kind, namespace, name)
    assert found is not None, f"{kind} {namespace}/{name} should be there"
    return found


async def writing(cluster: ClusterApi, namespace: str) -> list[str]:
    """Create, conflicts, preconditions, patches, immutability."""
    said: list[str] = []
    say = said.append
    say(f"absent: {await cluster.get(CONFIG_MAP, namespace, 'one')}")
    say(f"create in no namespace: {await outcome(cluster.create(CONFIG_MAP, config_map('no-such-namespace')))}")
    made = await cluster.create(CONFIG_MAP, config_map(namespace, data={"a": "1"}))
    say(f"create again: {await outcome(cluster.create(CONFIG_MAP, config_map(namespace)))}")
    meta = made["metadata"]
    say(f"has uid, version, time: {[bool(meta.get(k)) for k in ('uid', 'resourceVersion', 'creationTimestamp')]}")

    again = await cluster.replace(CONFIG_MAP, {**made, "data": {"a": "2"}})
    say(f"replace moves the version: {version(again) > version(made)}")
    say(f"replace of a stale version: {await outcome(cluster.replace(CONFIG_MAP, {**made, 'data': {'a': '3'}}))}")
    stranger = {**again, "metadata": {**again["metadata"], "uid": "00000000-0000-0000-0000-000000000000"}}
    say(f"replace of another uid: {await outcome(cluster.replace(CONFIG_MAP, stranger))}")
    say(f"replace of the absent: {await outcome(cluster.replace(CONFIG_MAP, config_map(namespace, 'none')))}")

    same = await cluster.patch(CONFIG_MAP, namespace, "one", {"data": {"a": "2"}})
    say(f"a patch of nothing keeps the version: {version(same) == version(again)}")
    merged = await cluster.patch(CONFIG_MAP, namespace, "one", {"data": {"a": None, "b": "1"}})
    say(f"merge patch: {merged['data']}")
    stale = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "data": {"c": "1"}}
    say(f"merge patch of a stale version: {await outcome(cluster.patch(CONFIG_MAP, namespace, 'one', stale))}")
    other = {"metadata": {"uid": "00000000-0000-0000-0000-000000000000"}}
    say(f"merge patch of another uid: {await outcome(cluster.patch(CONFIG_MAP, namespace, 'one', other))}")
    say(f"patch of the absent: {await outcome(cluster.patch(CONFIG_MAP, namespace, 'none', {}))}")

    test = {"op": "test", "path": "/data/b", "value": "1"}
    add, remove = {"op": "add", "path": "/data/c", "value": "2"}, {"op": "remove", "path": "/data/b"}
    jsoned = await cluster.patch(CONFIG_MAP, namespace, "one", [test, add, remove])
    say(f"JSON patch: {jsoned.get('data')}")
    say(f"JSON patch whose test fails: {await outcome(cluster.patch(CONFIG_MAP, namespace, 'one', [test]))}")

    fixed = config_map(namespace, "fixed", data={"a": "1"}, immutable=True)
    await cluster.create(CONFIG_MAP, fixed)
    say(f"edit of an immutable: {await outcome(cluster.patch(CONFIG_MAP, namespace, 'fixed', {'data': {'a': '2'}}))}")

    uid, former = again["metadata"]["uid"], again["metadata"]["resourceVersion"]
    say(f"delete of another uid: {await outcome(cluster.delete(CONFIG_MAP, namespace, 'one', uid='x' + uid[1:]))}")
    stale_delete = cluster.delete(CONFIG_MAP, namespace, "one", uid=uid, resource_version=former)
    say(f"delete of a stale version: {await outcome(stale_delete)}")
    say(f"delete: {await outcome(cluster.delete(CONFIG_MAP, namespace, 'one', uid=uid))}")
    say(f"delete again: {await outcome(cluster.delete(CONFIG_MAP, namespace, 'one', uid=uid))}")
    say(f"gone: {await cluster.get(CONFIG_MAP, namespace, 'one')}")
    await cluster.delete(CONFIG_MAP, namespace, "fixed")
    return said


async def ending(cluster: ClusterApi, namespace: str) -> list[str]:
    """Finalizers and deletion."""
    said: list[str] = []
    say = said.append
    held = {"finalizers": ["protectedservice.dev/client"]}
    await cluster.create(CONFIG_MAP, config_map(namespace, "held", metadata=held))
    await cluster.delete(CONFIG_MAP, namespace, "held")
    marked = await read(cluster, CONFIG_MAP, namespace, "held")
    say(f"marked: {bool(marked['metadata'].get('deletionTimestamp'))}")
    await cluster.delete(CONFIG_MAP, namespace, "held")
    once = await read(cluster, CONFIG_MAP, namespace, "held")
    say(f"marked once: {version(once) == version(marked)}")
    edited = await cluster.patch(CONFIG_MAP, namespace, "held", {"data": {"a": "1"}})
    say(f"may still be edited: {edited['data']}")
    more = {"metadata": {"finalizers": ["protectedservice.dev/client", "example.invalid/late"]}}
    say(f"no new finalizer: {await outcome(cluster.patch(CONFIG_MAP, namespace, 'held', more))}")
    late = {"metadata": {"finalizers": None, "resourceVersion": marked["metadata"]["resourceVersion"]}}
    say(f"finalizer off a stale version: {await outcome(cluster.patch(CONFIG_MAP, namespace, 'held', late))}")
    off = {"metadata": {"finalizers": None}}
    say(f"finalizer off: {await outcome(cluster.patch(CONFIG_MAP, namespace, 'held', off))}")
    say(f"gone: {await cluster.get(CONFIG_MAP, namespace, 'held')}")
    return said


async def applying(cluster: ClusterApi, namespace: str) -> list[str]:
    """Server-side apply and field ownership."""
    said: list[str] = []
    say = said.append
    unknown = config_map(namespace, "two", metadata={"uid": "00000000-0000-0000-0000-000000000000"})
    say(f"apply with the uid of nobody: {await outcome(cluster.apply(CONFIG_MAP, unknown))}")
    first = await cluster.apply(CONFIG_MAP, config_map(namespace, "two", data={"ours": "1", "old": "1"}))
    same = await cluster.apply(CONFIG_MAP, config_map(namespace, "two", data={"ours": "1", "old": "1"}))
    say(f"a repeated apply keeps the version: {version(first) == version(same)}")
    stranger = [{"op": "add", "path": "/data/theirs", "value": "1"}]
    await cluster.patch(CONFIG_MAP, namespace, "two", stranger)
    after = await cluster.apply(CONFIG_MAP, config_map(namespace, "two", data={"ours": "2"}))
    say(f"what we gave up is gone, what was added otherwise stays: {sorted(after['data'].items())}")
    uid = after["metadata"]["uid"]
    right = config_map(namespace, "two", metadata={"uid": uid})
    say(f"apply with its uid: {await outcome(cluster.apply(CONFIG_MAP, right))}")
    wrong = config_map(namespace, "two", metadata={"uid": "x" + uid[1:]})
    say(f"apply with another uid: {await outcome(cluster.apply(CONFIG_MAP, wrong))}")

    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    ports = [{"containerPort": 8080, "name": "http"}, {"containerPort": 9090, "name": "management"}]
    await cluster.apply(DEPLOYMENT, deployment(namespace, container(env=env, ports=ports), replicas=1))
    await cluster.patch(
        DEPLOYMENT,
        namespace,
        "work",
        [{"op": "add", "path": "/spec/template/spec/containers/-", "value": container("sidecar")}],
    )
    await cluster.patch(
        DEPLOYMENT,
        namespace,
        "work",
        [{"op": "add", "path": "/spec/template/spec/containers/0/env/-", "value": {"name": "THEIRS", "value": "3"}}],
    )
    await cluster.patch(DEPLOYMENT, namespace, "work", {"spec": {"replicas": 7}})
    edited = await read(cluster, DEPLOYMENT, namespace, "work")
    say(f"edited: {containers(edited)} {edited['spec']['replicas']}")
    wanted = deployment(namespace, container(env=env[:1], ports=ports[:1]), replicas=1)
    put_right = await cluster.apply(DEPLOYMENT, wanted)
    say(f"put right but for what others added: {containers(put_right)} {put_right['spec']['replicas']}")
    template = "/spec/template/spec/containers"
    # Items are tested, not the resourceVersion: where controllers run, the Deployment's status moves meanwhile.
    sidecar, theirs = f"{template}/1", f"{template}/0/env/1"
    seen = put_right["spec"]["template"]["spec"]["containers"]
    guards = [
        {"op": "test", "path": "/metadata/uid", "value": put_right["metadata"]["uid"]},
        {"op": "test", "path": sidecar, "value": seen[1]},
        {"op": "test", "path": theirs, "value": seen[0]["env"][1]},
    ]
    removals = [{"op": "remove", "path": sidecar}, {"op": "remove", "path": theirs}]
    cleaned = await cluster.patch(DEPLOYMENT, namespace, "work", [*guards, *removals])
    say(f"the rest by JSON patch: {containers(cleaned)}")
    late = cluster.patch(DEPLOYMENT, namespace, "work", [*guards, {"op": "remove", "path": f"{template}/0"}])
    say(f"JSON patch with a stale guard: {await outcome(late)}")
    again = await cluster.apply(DEPLOYMENT, wanted)
    say(f"then an apply changes nothing: {again['metadata']['generation'] == cleaned['metadata']['generation']}")

    generation = again["metadata"]["generation"]
    status = {"status": {"observedGeneration": 1, "replicas": 1}}
    unheard_of = {"status": {"observedGeneration": 1, "replicas": 77}}  # as no controller here would say
    untouched = await cluster.patch(DEPLOYMENT, namespace, "work", unheard_of)
    say(f"status by the main resource: {untouched.get('status', {}).get('replicas') == 77}")
    told = await cluster.patch(DEPLOYMENT, namespace, "work", {**status, "spec": {"replicas": 9}}, subresource="status")
    say(f"status by its own: {told['status']['replicas']}, spec untouched: {told['spec']['replicas']}")
    say(f"generation moved by status: {told['metadata']['generation'] - generation}")
    scaled = await cluster.patch(DEPLOYMENT, namespace, "work", {"spec": {"replicas": 2}})
    say(f"generation moved by spec: {scaled['metadata']['generation'] - generation}")
    labelled = await cluster.patch(DEPLOYMENT, namespace, "work", {"metadata": {"labels": {"x": "y"}}})
    say(f"generation moved by a label: {labelled['metadata']['generation'] - generation}")
    place = {"name": "work", "namespace": namespace}
    number = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": place, "spec": {"replicas": 4}}
    await cluster.apply(DEPLOYMENT, deployment(namespace, container(), replicas=4))
    await cluster.apply(DEPLOYMENT, number, manager=REPLICAS_MANAGER)
    let_go = await cluster.apply(DEPLOYMENT, deployment(namespace, container()))
    say(f"a number that another manager holds too, given up: {let_go['spec']['replicas']}")
    await cluster.patch(DEPLOYMENT, namespace, "work", {"spec": {"replicas": 5}})
    again = await cluster.apply(DEPLOYMENT, deployment(namespace, container(env=env[:1])))
    say(f"changed by somebody, and applied without it: {again['spec']['replicas']}")
    taken = await cluster.apply(DEPLOYMENT, deployment(namespace, container(), replicas=3))
    say(f"taken back: {taken['spec']['replicas']}")
    other = deployment(namespace, container())
    other["spec"]["selector"] = {"matchLabels": {"a": "b"}}
    other["spec"]["template"]["metadata"] = {"labels": {"a": "b"}}
    say(f"another selector: {await outcome(cluster.apply(DEPLOYMENT, other))}")
    await cluster.delete(DEPLOYMENT, namespace, "work")
    await cluster.delete(CONFIG_MAP, namespace, "two")
    return said


async def other_kinds(cluster: ClusterApi, namespace: str) -> list[str]:
    """Services, whose ports are keyed otherwise, Secrets, and selected lists."""
    said: list[str] = []
    say = said.append
    ports = [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "more", "port": 81, "targetPort": 8080}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "front", "namespace": namespace},
        "spec": {"selector": {"a": "b"}, "ports": ports},
    }
    await cluster.apply(SERVICE, service)
    fewer = await cluster.apply(SERVICE, {**service, "spec": {"selector": {"c": "d"}, "ports": ports[:1]}})
    say(f"a port given up: {[port['port'] for port in fewer['spec']['ports']]}, selector: {fewer['spec']['selector']}")
    await cluster.delete(SERVICE, namespace, "front")

    secret = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": {"a": "YQ=="}}
    await cluster.create(SECRET, {**secret, "metadata": {"name": "s", "namespace": namespace, "labels": LABELS}})
    kept = await cluster.apply(SECRET, {**secret, "metadata": {"name": "s", "namespace": namespace}})
    say(f"apply over our own create: {kept['data']} {kept['metadata'].get('labels')}")
    listing = cluster.list(SECRET, namespace=namespace, label_selector="conversation=yes")
    say(f"listed by label: {[item['metadata']['name'] async for item in listing]}")
    say(f"the list knows its version: {int(listing.resource_version) >= version(kept)}")
    nothing = cluster.list(SECRET, namespace=namespace, label_selector="conversation=no")
    say(f"listed by another label: {[item async for item in nothing]}")
    await cluster.delete(SECRET, namespace, "s")
    say(f"namespace: {(await read(cluster, NAMESPACE, '', namespace))['status']['phase']}")
    return said


def containers(obj: dict[str, Any]) -> list[tuple[str, list[str], list[int]]]:
    """Name, variables and ports of each container."""
    return [
        (
            item["name"],
            [variable["name"] for variable in item.get("env", [])],
            [port["containerPort"] for port in item.get("ports", [])],
        )
        for item in obj["spec"]["template"]["spec"]["containers"]
    ]


async def all_of_it(cluster: ClusterApi, namespace: str) -> list[str]:
    """The whole conversation, in a namespace of its own."""
    said = [f"namespace made: {await outcome(cluster.create(NAMESPACE, {'metadata': {'name': namespace}}))}"]
    for part in (writing, ending, applying, other_kinds):
        said += [f"[{part.__name__}]", *await part(cluster, namespace)]
        await asyncio.sleep(0)
    return said
