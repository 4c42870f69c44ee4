"""A Kubernetes API with a memory, in dicts: what `cluster_api.ClusterApi` promises, without HTTP.

What it keeps honest: uid, resourceVersion (one counter for everything), generation, creation and deletion timestamps,
finalizers, conflicts, preconditions, the status subresource, field ownership of server-side apply, selectors of
watches, namespaces that must exist and that end. What it does not have: defaulting, schemas, CEL, admission,
controllers. `tests/api_server/test_fake_matches_real.py` holds it against a real API server.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import datetime as dt
import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from protectedservice_operator.cluster_api import JSONPatch
from protectedservice_operator.errors import AlreadyExists, Conflict, NotFound, Rejected
from protectedservice_operator.resource import (
    AUTHORIZATION_SERVER,
    CONFIG_MAP,
    DEPLOYMENT,
    FIELD_MANAGER,
    NAMESPACE,
    POD,
    PROTECTED_SERVICE,
    SECRET,
    SERVICE,
    SERVICE_CLIENT,
    Kind,
)

from . import server_side_apply as ssa

Object = dict[str, Any]
Objects = list[Object]
T = TypeVar("T")
Place = tuple[Kind, str, str]
Watcher = Callable[[Kind, str, Object], None]

WITH_STATUS = {PROTECTED_SERVICE, SERVICE_CLIENT, AUTHORIZATION_SERVER, DEPLOYMENT, SERVICE, POD, NAMESPACE}
WITH_GENERATION = {PROTECTED_SERVICE, SERVICE_CLIENT, AUTHORIZATION_SERVER, DEPLOYMENT}
MUST_NAME_VERSION = {
    PROTECTED_SERVICE,
    SERVICE_CLIENT,
    AUTHORIZATION_SERVER,
}  # PUT without resourceVersion is refused for CRs
SERVER_OWNED = ("uid", "generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")


@dataclass(frozen=True)
class Write:
    """One write request and the HTTP status it had."""

    verb: str
    kind: Kind
    namespace: str | None
    name: str
    body: Any = field(repr=False, default=None)
    subresource: str | None = None
    status: int = 200


@dataclass
class Stored:
    obj: Object
    owners: dict[tuple[str, str], set[ssa.Path]]  # (manager, Apply or Update or a subresource's) -> leaves


class FakeListing:
    def __init__(self, cluster: FakeCluster, kind: Kind, namespace: str | None, selector: str | None) -> None:
        self._cluster, self._kind, self._namespace, self._selector = cluster, kind, namespace, selector
        self.resource_version = ""

    async def __aiter__(self) -> AsyncIterator[Object]:
        await asyncio.sleep(0)
        self._cluster.before_read("list", self._kind, self._namespace, "")
        self.resource_version = str(self._cluster.version)
        for obj in self._cluster.objects(self._kind, self._namespace, self._selector):
            await asyncio.sleep(0)
            yield obj


class FakeCluster:
    """See the module.

    Attributes:
        writes: every write request in order, refused ones included.
        before_effect, after_effect: called around every write with what is asked; may raise (a crash, an outage).
        before_read: called before every get and list with verb, kind, namespace, name; may raise.
        deaf: while True, watchers are told nothing, and never will be of what happened then (a watch gap).
        manager: the field manager of the requests, as a real client has one.
    """

    def __init__(self, now: Callable[[], dt.datetime] | None = None, *, namespaces: tuple[str, ...] = ()) -> None:
        self._now = now or (lambda: dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
        self._stored: dict[Place, Stored] = {}
        self._watchers: list[tuple[Watcher, Mapping[Kind, str | None] | None]] = []
        self._names = itertools.count(1)
        self.version = 100
        self.writes: list[Write] = []
        self.before_effect: Callable[[Write], None] = lambda _: None
        self.after_effect: Callable[[Write], None] = lambda _: None
        self.before_read: Callable[[str, Kind, str | None, str], None] = lambda *_: None
        self.deaf = False
        self.manager = FIELD_MANAGER
        for name in namespaces:
            self.add_namespace(name)

    # The interface under test

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        await asyncio.sleep(0)
        self.before_read("get", kind, namespace, name)
        stored = self._stored.get((kind, namespace or "", name))
        return copy.deepcopy(stored.obj) if stored else None

    def list(self, kind: Kind, *, namespace: str | None = None, label_selector: str | None = None) -> FakeListing:
        return FakeListing(self, kind, namespace, label_selector)

    async def create(self, kind: Kind, body: Object) -> Object:
        metadata = body["metadata"]
        name = metadata.get("name") or f"{metadata['generateName']}{next(self._names):05d}"
        body = {**body, "metadata": {**metadata, "name": name}}
        namespace = metadata.get("namespace")
        return await self._write(
            Write("create", kind, namespace, name, copy.deepcopy(body)), lambda: self._create(kind, body)
        )

    async def apply(self, kind: Kind, body: Object, *, manager: str = FIELD_MANAGER) -> Object:
        namespace, name = body["metadata"].get("namespace"), body["metadata"]["name"]
        other = manager if manager != FIELD_MANAGER else self.manager  # who it is, unless it says otherwise

        def write() -> Object:
            with _As(self, other):
                return self._apply(kind, body)

        return await self._write(Write("apply", kind, namespace, name, copy.deepcopy(body)), write)

    async def replace(self, kind: Kind, body: Object) -> Object:
        namespace, name = body["metadata"].get("namespace"), body["metadata"]["name"]
        return await self._write(
            Write("replace", kind, namespace, name, copy.deepcopy(body)), lambda: self._replace(kind, body)
        )

    async def patch(
        self, kind: Kind, namespace: str | None, name: str, patch: Object | JSONPatch, *, subresource: str | None = None
    ) -> Object:
        return await self._write(
            Write("patch", kind, namespace, name, copy.deepcopy(patch), subresource),
            lambda: self._patch(kind, namespace, name, patch, subresource),
        )

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        with contextlib.suppress(NotFound):
            await self._write(
                Write("delete", kind, namespace, name),
                lambda: self._delete(kind, namespace, name, uid, resource_version),
            )

    # What tests do to it

    def on_change(self, watcher: Watcher, selectors: Mapping[Kind, str | None] | None = None) -> None:
        """Tell `watcher(kind, ADDED|MODIFIED|DELETED, object)`; with selectors, as label-selected watches are told."""
        self._watchers.append((watcher, selectors))

    def add_namespace(self, name: str, labels: Mapping[str, str] | None = None) -> Object:
        body = {"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name, **(labels or {})}}}
        return self.insert(NAMESPACE, body)

    def insert(self, kind: Kind, body: Object, *, manager: str = "kubectl", status: Object | None = None) -> Object:
        """Make an object as somebody else would; not in the journal. `status` as its controller would write it."""
        with _As(self, manager):
            made = self._create(kind, body)
        if status is not None:
            metadata = made["metadata"]
            return self.set_status(kind, metadata.get("namespace"), metadata["name"], status)
        return made

    def edit(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        change: Callable[[Object], object],
        *,
        manager: str = "kubectl",
    ) -> Object:
        """Change an object as somebody else would; `change` works in place. Not in the journal."""
        with _As(self, manager):
            wanted = copy.deepcopy(self._existing(kind, namespace, name).obj)
            change(wanted)
            return self._update(kind, wanted, subresource=None)

    def set_status(self, kind: Kind, namespace: str | None, name: str, status: Object) -> Object:
        """As the object's controller would."""
        with _As(self, "controller"):
            wanted = copy.deepcopy(self._existing(kind, namespace, name).obj)
            wanted["status"] = copy.deepcopy(status)
            return self._update(kind, wanted, subresource="status")

    def remove(self, kind: Kind, namespace: str | None, name: str) -> None:
        """Delete as somebody else would; finalizers hold it. Not in the journal."""
        self._delete(kind, namespace, name, None, None)

    def terminate_namespace(self, name: str) -> None:
        """As the namespace controller: everything in it is deleted; call `collect_garbage` once finalizers are off."""
        stored = self._existing(NAMESPACE, None, name)
        wanted = copy.deepcopy(stored.obj)
        wanted["metadata"]["deletionTimestamp"] = self._timestamp()
        wanted["status"] = {"phase": "Terminating"}
        self._commit((NAMESPACE, "", name), wanted, stored.owners)
        for kind, namespace, inner in list(self._stored):
            if namespace == name:
                self._delete(kind, namespace, inner, None, None)

    def collect_garbage(self) -> int:
        """As the garbage collector: dependents without an owner left, and ended namespaces, go. Returns how many."""
        gone = 0
        while True:
            uids = {stored.obj["metadata"]["uid"] for stored in self._stored.values()}
            doomed = []
            for (kind, namespace, name), stored in self._stored.items():
                metadata = stored.obj["metadata"]
                owners = metadata.get("ownerReferences") or []
                orphan = owners and not any(owner["uid"] in uids for owner in owners)
                ended = (
                    kind == NAMESPACE
                    and metadata.get("deletionTimestamp")
                    and not any(inside == name for _, inside, _ in self._stored)
                )
                if ended or (orphan and not metadata.get("deletionTimestamp")):
                    doomed.append((kind, namespace, name))
            for kind, namespace, name in doomed:
                if kind == NAMESPACE:
                    self._forget((kind, "", name))
                else:
                    self._delete(kind, namespace, name, None, None)
            if not doomed:
                return gone
            gone += len(doomed)

    def objects(self, kind: Kind, namespace: str | None = None, selector: str | None = None) -> Objects:
        """Copies, in the order of names."""
        places = sorted(place for place in self._stored if place[0] == kind and namespace in (None, place[1]))
        found = [self._stored[place].obj for place in places]
        return [copy.deepcopy(obj) for obj in found if _selected(obj, selector)]

    def read(self, kind: Kind, namespace: str | None, name: str) -> Object:
        """A copy; NotFound where there is none. For asserts."""
        return copy.deepcopy(self._existing(kind, namespace, name).obj)

    def owned_by(self, kind: Kind, namespace: str | None, name: str, manager: str) -> set[ssa.Path]:
        """The leaves that this manager owns by server-side apply."""
        return set(self._existing(kind, namespace, name).owners.get((manager, "Apply"), ()))

    # How it works

    async def _write(self, write: Write, effect: Callable[[], T]) -> T:
        await asyncio.sleep(0)
        self.before_effect(write)
        status = 200
        try:
            result = effect()
        except NotFound:
            status = 404
            raise
        except (Conflict, AlreadyExists):
            status = 409
            raise
        except Rejected as refusal:
            status = refusal.status
            raise
        finally:
            self.writes.append(_with_status(write, status))
        self.after_effect(write)
        await asyncio.sleep(0)
        return result

    def _existing(self, kind: Kind, namespace: str | None, name: str) -> Stored:
        stored = self._stored.get((kind, namespace or "", name))
        if stored is None:
            raise NotFound(f"{kind} {namespace}/{name}")
        return stored

    def _create(self, kind: Kind, body: Object) -> Object:
        return self._insert(kind, body, ("Update",))

    def _insert(self, kind: Kind, body: Object, operation: tuple[str]) -> Object:
        metadata = body["metadata"]
        namespace, name = metadata.get("namespace") or "", metadata["name"]
        if kind.namespaced and not namespace:
            raise Rejected(400, f"create {kind} {name}: the namespace is missing")
        place = (kind, namespace, name)
        if place in self._stored:
            raise AlreadyExists(f"create {kind} {name}: already exists")
        if kind.namespaced:
            home = self._stored.get((NAMESPACE, "", namespace))
            if home is None:
                raise NotFound(f'create {kind} {name}: namespaces "{namespace}" not found')
            if home.obj["metadata"].get("deletionTimestamp"):
                raise Rejected(
                    403,
                    f"create {kind} {name}: unable to create new content in namespace {namespace} because it is being"
                    " terminated",
                )
        obj = copy.deepcopy(body)
        obj.setdefault("apiVersion", kind.api_version)
        obj.setdefault("kind", kind.kind)
        if kind in WITH_STATUS:
            obj.pop("status", None)
        if kind == NAMESPACE:
            obj["status"] = {"phase": "Active"}
        for entry in (*SERVER_OWNED, "resourceVersion", "generateName"):
            obj["metadata"].pop(entry, None)
        obj["metadata"]["uid"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{kind}/{namespace}/{name}/{self.version}"))
        obj["metadata"]["creationTimestamp"] = self._timestamp()
        if kind in WITH_GENERATION:
            obj["metadata"]["generation"] = 1
        owners = {(self.manager, operation[0]): set(ssa.leaves({**body, "status": {}})) - {("status",)}}
        return self._commit(place, obj, owners)

    def _apply(self, kind: Kind, body: Object) -> Object:
        metadata = body["metadata"]
        place = (kind, metadata.get("namespace") or "", metadata["name"])
        stored = self._stored.get(place)
        if stored is None:
            if metadata.get("uid"):
                raise Conflict(
                    "Conflict", f"apply {kind} {metadata['name']}: uid mismatch, no existing object was found"
                )
            return self._insert(kind, body, ("Apply",))
        self._check_preconditions(kind, stored.obj, metadata.get("uid"), metadata.get("resourceVersion"))
        body = {key: value for key, value in body.items() if key != "status" or kind not in WITH_STATUS}
        us = (self.manager, "Apply")
        wanted = ssa.leaves(body)
        live = ssa.leaves(stored.obj)
        owners = {manager: set(paths) for manager, paths in stored.owners.items()}
        merged = ssa.merge(stored.obj, body)
        for manager, paths in owners.items():
            if manager != us:  # force: whose value is overruled loses the field
                paths -= {path for path in wanted if live.get(path) != wanted[path]}
        given_up = owners.get(us, set()) - set(wanted)
        owners[us] = set(wanted)
        everybody = set().union(*owners.values())
        gone = given_up - everybody
        ssa.drop_unowned_items(merged, gone, everybody)
        for path in gone:
            ssa.remove(merged, path)
        return self._store(kind, place, stored, merged, owners)

    def _replace(self, kind: Kind, body: Object) -> Object:
        metadata = body["metadata"]
        if kind in MUST_NAME_VERSION and not metadata.get("resourceVersion"):
            raise Rejected(422, f"replace {kind} {metadata['name']}: metadata.resourceVersion: must be specified")
        return self._update(kind, copy.deepcopy(body), subresource=None)

    def _patch(
        self, kind: Kind, namespace: str | None, name: str, patch: Object | JSONPatch, subresource: str | None
    ) -> Object:
        live = self._existing(kind, namespace, name).obj
        if isinstance(patch, dict):
            wanted = _merge_patch(live, patch)
        else:
            wanted = copy.deepcopy(live)
            for operation in patch:
                _json_patch(wanted, operation, f"patch {kind} {name}")
        if wanted["metadata"].get("uid") != live["metadata"]["uid"]:
            raise Conflict("Conflict", f"patch {kind} {name}: metadata.uid: field is immutable")
        return self._update(kind, wanted, subresource=subresource)

    def _update(self, kind: Kind, wanted: Object, *, subresource: str | None) -> Object:
        """What PUT and PATCH have in common; `wanted` is the whole object."""
        metadata = wanted["metadata"]
        place = (kind, metadata.get("namespace") or "", metadata["name"])
        stored = self._existing(*place)
        live = stored.obj
        self._check_preconditions(kind, live, metadata.get("uid"), metadata.get("resourceVersion"))
        wanted.setdefault("apiVersion", kind.api_version)
        wanted.setdefault("kind", kind.kind)
        if subresource == "status":
            if kind not in WITH_STATUS:
                raise NotFound(f"{kind} has no status subresource")
            new = copy.deepcopy(live)
            new.pop("status", None)
            if "status" in wanted:
                new["status"] = wanted["status"]
        else:
            new = wanted
            if kind in WITH_STATUS:
                new.pop("status", None)
                if "status" in live:
                    new["status"] = copy.deepcopy(live["status"])
            for entry in (*SERVER_OWNED, "resourceVersion"):
                new["metadata"].pop(entry, None)
                if entry in live["metadata"]:
                    new["metadata"][entry] = live["metadata"][entry]
        before, after = ssa.leaves(live), ssa.leaves(new)
        touched = {path for path, value in after.items() if before.get(path, _ABSENT) != value}
        owners = {manager: {p for p in paths if p in after} - touched for manager, paths in stored.owners.items()}
        if touched:
            owners.setdefault((self.manager, subresource or "Update"), set()).update(touched)
        return self._store(kind, place, stored, new, owners)

    def _store(
        self, kind: Kind, place: Place, stored: Stored, new: Object, owners: dict[tuple[str, str], set[ssa.Path]]
    ) -> Object:
        live = stored.obj
        _check_immutable(kind, live, new)
        owners = {manager: paths for manager, paths in owners.items() if paths}
        metadata = new["metadata"]
        if metadata.get("finalizers") == []:
            del metadata["finalizers"]
        if live["metadata"].get("deletionTimestamp"):
            added = set(metadata.get("finalizers") or ()) - set(live["metadata"].get("finalizers") or ())
            if added:
                raise Rejected(422, f"{kind} {place[2]}: metadata.finalizers: no new finalizers while being deleted")
            if not metadata.get("finalizers"):
                self._commit(place, new, owners)
                self._forget(place)
                return copy.deepcopy(new)
        if new == live and owners == stored.owners:
            return copy.deepcopy(live)
        if kind in WITH_GENERATION and _content(new) != _content(live):
            metadata["generation"] = live["metadata"]["generation"] + 1
        return self._commit(place, new, owners)

    def _delete(
        self, kind: Kind, namespace: str | None, name: str, uid: str | None, resource_version: str | None
    ) -> None:
        stored = self._existing(kind, namespace, name)
        self._check_preconditions(kind, stored.obj, uid, resource_version)
        place = (kind, namespace or "", name)
        if not stored.obj["metadata"].get("finalizers"):
            self._forget(place)
            return
        if stored.obj["metadata"].get("deletionTimestamp"):
            return
        wanted = copy.deepcopy(stored.obj)
        wanted["metadata"]["deletionTimestamp"] = self._timestamp()
        wanted["metadata"]["deletionGracePeriodSeconds"] = 0
        if "generation" in wanted["metadata"]:
            wanted["metadata"]["generation"] += 1
        self._commit(place, wanted, stored.owners)

    def _check_preconditions(self, kind: Kind, live: Object, uid: str | None, version: str | None) -> None:
        metadata = live["metadata"]
        if uid and uid != metadata["uid"]:
            raise Conflict("Conflict", f"{kind} {metadata['name']}: precondition failed: uid")
        if version and version != metadata["resourceVersion"]:
            raise Conflict("Conflict", f"{kind} {metadata['name']}: the object has been modified")

    def _commit(self, place: Place, obj: Object, owners: dict[tuple[str, str], set[ssa.Path]]) -> Object:
        self.version += 1
        obj["metadata"]["resourceVersion"] = str(self.version)
        before = self._stored.get(place)
        self._stored[place] = Stored(obj, owners)
        self._tell(place[0], before.obj if before else None, obj)
        return copy.deepcopy(obj)

    def _forget(self, place: Place) -> None:
        self.version += 1
        last = self._stored.pop(place).obj
        last["metadata"]["resourceVersion"] = str(self.version)
        self._tell(place[0], last, None)

    def _tell(self, kind: Kind, before: Object | None, after: Object | None) -> None:
        if self.deaf:
            return
        for watcher, selectors in self._watchers:
            if selectors is not None and kind not in selectors:
                continue
            selector = selectors[kind] if selectors is not None else None
            was = before is not None and _selected(before, selector)
            is_now = after is not None and _selected(after, selector)
            if is_now:
                watcher(kind, "MODIFIED" if was else "ADDED", copy.deepcopy(after or {}))
            elif was:
                # A label-selected watch says DELETED, with the new object, when the label goes.
                watcher(kind, "DELETED", copy.deepcopy(after or before or {}))

    def _timestamp(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%SZ")


class _As:
    """Requests by another field manager for as long as it lasts."""

    def __init__(self, cluster: FakeCluster, manager: str) -> None:
        self._cluster, self._manager, self._before = cluster, manager, cluster.manager

    def __enter__(self) -> None:
        self._cluster.manager = self._manager

    def __exit__(self, *_: object) -> None:
        self._cluster.manager = self._before


_ABSENT = object()


def _with_status(write: Write, status: int) -> Write:
    return Write(write.verb, write.kind, write.namespace, write.name, write.body, write.subresource, status)


def _content(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key not in ("metadata", "status")}


def _selected(obj: Object, selector: str | None) -> bool:
    """Equality selectors (`a=b,c=d`) are the only ones in use."""
    labels = obj["metadata"].get("labels") or {}
    pairs = [part.partition("=") for part in selector.split(",")] if selector else []
    return all(labels.get(key) == value for key, _, value in pairs)


def _check_immutable(kind: Kind, live: Object, new: Object) -> None:
    name = live["metadata"]["name"]
    if kind in (SECRET, CONFIG_MAP) and live.get("immutable"):
        changed = [entry for entry in ("data", "binaryData", "immutable") if live.get(entry) != new.get(entry)]
        if changed:
            raise Rejected(422, f"{kind} {name}: {changed[0]}: field is immutable when `immutable` is set")
    if kind == DEPLOYMENT and live.get("spec", {}).get("selector") != new.get("spec", {}).get("selector"):
        raise Rejected(422, f"{kind} {name}: spec.selector: field is immutable")
    if kind == SECRET and live.get("type", "Opaque") != new.get("type", "Opaque"):
        raise Rejected(422, f"{kind} {name}: type: field is immutable")


def _merge_patch(live: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(copy.deepcopy(live)) if isinstance(live, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merge_patch(result.get(key), value)
    return result


def _json_patch(document: Any, operation: Object, what: str) -> None:
    """RFC 6902: add, remove, replace, test."""
    steps = [step.replace("~1", "/").replace("~0", "~") for step in operation["path"].split("/")[1:]]
    *parents, last = steps
    target = document
    try:
        for step in parents:
            target = target[int(step)] if isinstance(target, list) else target[step]
        index = last if isinstance(target, dict) else (len(target) if last == "-" else int(last))
        if operation["op"] == "test":
            if target[index] != operation.get("value"):
                raise Rejected(422, f"{what}: testing value {operation['path']} failed")
        elif operation["op"] == "remove":
            del target[index]
        elif operation["op"] == "add" and isinstance(target, list):
            target.insert(index, copy.deepcopy(operation["value"]))
        else:
            if operation["op"] == "replace":
                target[index]  # must be there
            target[index] = copy.deepcopy(operation["value"])
    except (KeyError, IndexError, ValueError, TypeError):
        raise Rejected(422, f"{what}: {operation['op']} {operation['path']}: no such path") from None
