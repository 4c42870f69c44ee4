"""What the watches have shown: one entry per object, as stripped JSON bytes; never dicts, never a Secret's values.

A dict of one Deployment takes 13 KiB, its JSON 1.8 KiB. `managedFields` and kubectl's last-applied annotation are
dropped, and so is a Secret's `data`: the entry keeps a digest of each value, which is enough to see a change.

Our own writes come in through the same `put` as watch events (read-your-writes), in whatever order: an entry only ever
moves forward in resourceVersion.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .cluster_api import Listing, Object
from .resource import LABEL_NAME, OWNERS, SECRET, SERVICE_CLIENT, Kind
from .service_client import named_services

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
# Deleted objects remembered per kind, so that an older answer or event cannot bring one back. Answers overtake watch
# events by seconds at most; this many deletions in that time would be a cluster being torn down.
TOMBSTONES: Final = 4096

Place = tuple[str, str]  # namespace ("" where there is none), name


@dataclass(frozen=True, slots=True)
class Cached:
    """One object as last seen. `body()` parses anew each time: callers may change what they get."""

    kind: Kind
    namespace: str
    name: str
    uid: str
    resource_version: str
    owner_uid: str | None  # the controller among its owners
    owner_kind: str | None
    owner_name: str | None
    service: str | None  # label protectedservice.dev/name
    digests: Mapping[str, str] = field(hash=False)  # Secrets: sha256 of each decoded value, hexadecimal
    content: bytes = field(repr=False)
    calls: tuple[Place, ...] = ()  # of a ServiceClient: the ProtectedServices that it names

    @property
    def place(self) -> Place:
        """Namespace and name."""
        return self.namespace, self.name

    def body(self) -> Object:
        """The object, without managedFields, without kubectl's annotation, without a Secret's data."""
        body: Object = json.loads(self.content)
        body["metadata"]["resourceVersion"] = self.resource_version
        return body


@dataclass(frozen=True)
class Resync:
    """What a resync found other than the cache had it.

    Attributes:
        changed: entries new or newer, as they are now.
        removed: entries that are gone, as they were.
        before: what stood in the place of a changed entry.
    """

    changed: tuple[Cached, ...]
    removed: tuple[Cached, ...]
    before: tuple[Cached, ...]

    def __iter__(self) -> Iterator[Cached]:
        """All of them, old and new: whoever is concerned by any of these should look again."""
        yield from self.changed
        yield from self.removed
        yield from self.before


def newer(version: str, than: str) -> bool:
    """True iff the first resourceVersion is later than the second.

    The one place that orders them: numbers in practice, and by contract since Kubernetes 1.35 (KEP-5504). What is not
    a number counts as newer, so that nothing is ever ignored for lack of understanding.
    """
    try:
        return int(version) > int(than)
    except ValueError:
        return version != than


def strip(kind: Kind, body: Object) -> Cached:
    """The entry for an object as the API server sent it, which is left as it is."""
    metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    version = str(metadata.pop("resourceVersion", ""))
    annotations = metadata.get("annotations") or {}
    if LAST_APPLIED in annotations:
        metadata["annotations"] = {key: value for key, value in annotations.items() if key != LAST_APPLIED}
    rest = {key: value for key, value in body.items() if key != "metadata"}
    digests: dict[str, str] = {}
    if kind == SECRET:
        digests = {key: _digest(value) for key, value in (rest.pop("data", None) or {}).items()}
        rest.pop("stringData", None)
    owner: Object = next((o for o in metadata.get("ownerReferences") or () if o.get("controller")), {})
    return Cached(
        kind=kind,
        namespace=metadata.get("namespace") or "",
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        resource_version=version,
        owner_uid=owner.get("uid"),
        owner_kind=owner.get("kind"),
        owner_name=owner.get("name"),
        service=(metadata.get("labels") or {}).get(LABEL_NAME),
        digests=digests,
        content=json.dumps({"metadata": metadata, **rest}, separators=(",", ":"), sort_keys=True).encode(),
        calls=tuple((one.namespace, one.name) for one in named_services(body)) if kind == SERVICE_CLIENT else (),
    )


class Cache:
    """Entries by kind and place, with indices by owner, by the service an object belongs to, by services called."""

    def __init__(self) -> None:
        self._entries: defaultdict[Kind, dict[Place, Cached]] = defaultdict(dict)
        self._owned: defaultdict[str, dict[tuple[Kind, Place], Cached]] = defaultdict(dict)
        self._of_service: defaultdict[tuple[Kind, Place], dict[Place, Cached]] = defaultdict(dict)
        self._callers: defaultdict[Place, dict[Place, Cached]] = defaultdict(dict)
        self._tombstones: defaultdict[Kind, OrderedDict[str, str]] = defaultdict(OrderedDict)

    def put(self, kind: Kind, obj: Object) -> bool:
        """Take in a watch event's object or an answer to a write of ours; True iff it says anything new.

        Of one uid, what is not newer than the entry is ignored, and so is what is not newer than its deletion.
        """
        entry = strip(kind, obj)
        before = self._entries[kind].get(entry.place)
        if (
            before is not None
            and before.uid == entry.uid
            and not newer(entry.resource_version, before.resource_version)
        ):
            return False
        buried = self._tombstones[kind].get(entry.uid)
        if buried is not None and not newer(entry.resource_version, buried):
            return False
        if before is not None and before.uid != entry.uid and newer(before.resource_version, entry.resource_version):
            return False  # the place has a new owner already; this is an echo of the old one
        self._drop(before)
        self._add(entry)
        return before is None or (before.content, before.digests) != (entry.content, entry.digests)

    def remove(self, kind: Kind, obj: Object) -> bool:
        """Forget a deleted object; True iff it was known. Another uid in its place stays."""
        metadata = obj["metadata"]
        before = self._entries[kind].get((metadata.get("namespace") or "", metadata["name"]))
        self._bury(kind, metadata.get("uid", ""), str(metadata.get("resourceVersion", "")))
        if before is None or before.uid != metadata.get("uid"):
            return False
        if newer(before.resource_version, str(metadata.get("resourceVersion", before.resource_version))):
            return False  # left the watch's selector and came back, and the return was seen first
        self._drop(before)
        return True

    def get(self, kind: Kind, namespace: str | None, name: str) -> Cached | None:
        """The entry in this place."""
        return self._entries[kind].get((namespace or "", name))

    def owned_by(self, uid: str) -> tuple[Cached, ...]:
        """All entries whose controller is the object with this uid."""
        return tuple(self._owned.get(uid, {}).values())

    def all(self, kind: Kind) -> tuple[Cached, ...]:
        """All entries of a kind, as of now."""
        return tuple(self._entries[kind].values())

    def of_service(self, kind: Kind, namespace: str, service: str) -> tuple[Cached, ...]:
        """The entries (say, pods) that carry the label protectedservice.dev/name of this service."""
        return tuple(self._of_service.get((kind, (namespace, service)), {}).values())

    def callers_of(self, namespace: str, service: str) -> tuple[Cached, ...]:
        """The ServiceClients that name this ProtectedService."""
        return tuple(self._callers.get((namespace, service), {}).values())

    def count(self, kind: Kind) -> int:
        """Number of entries of a kind."""
        return len(self._entries[kind])

    async def resync(self, kind: Kind, listing: Listing) -> Resync:
        """Compare with a full list, which must have the watch's selector: what is not in it any more is forgotten.

        Entries written after the list was taken stay. Raises what the listing raises, with the cache as far as read.
        """
        seen: set[tuple[Place, str]] = set()
        changed: list[Cached] = []
        removed: list[Cached] = []
        before: list[Cached] = []
        async for obj in listing:
            metadata = obj["metadata"]
            place = (metadata.get("namespace") or "", metadata["name"])
            seen.add((place, metadata.get("uid", "")))
            old = self._entries[kind].get(place)
            if self.put(kind, obj):
                changed.append(self._entries[kind][place])
                if old is not None:
                    before.append(old)
        for entry in self.all(kind):
            if (entry.place, entry.uid) not in seen and not newer(entry.resource_version, listing.resource_version):
                self._drop(entry)
                self._bury(kind, entry.uid, listing.resource_version)
                removed.append(entry)
        return Resync(tuple(changed), tuple(removed), tuple(before))

    def _add(self, entry: Cached) -> None:
        self._entries[entry.kind][entry.place] = entry
        if entry.owner_uid is not None:
            self._owned[entry.owner_uid][entry.kind, entry.place] = entry
        if entry.service is not None and entry.kind not in OWNERS.values():
            self._of_service[entry.kind, (entry.namespace, entry.service)][entry.place] = entry
        for called in entry.calls:
            self._callers[called][entry.place] = entry

    def _drop(self, entry: Cached | None) -> None:
        if entry is None:
            return
        del self._entries[entry.kind][entry.place]
        if entry.owner_uid is not None:
            _discard(self._owned, entry.owner_uid, (entry.kind, entry.place))
        if entry.service is not None and entry.kind not in OWNERS.values():
            _discard(self._of_service, (entry.kind, (entry.namespace, entry.service)), entry.place)
        for called in entry.calls:
            _discard(self._callers, called, entry.place)

    def _bury(self, kind: Kind, uid: str, version: str) -> None:
        graves = self._tombstones[kind]
        graves[uid] = version
        graves.move_to_end(uid)
        if len(graves) > TOMBSTONES:
            graves.popitem(last=False)


def _discard(index: dict[Any, dict[Any, Cached]], key: object, member: object) -> None:
    index[key].pop(member, None)
    if not index[key]:
        del index[key]


def _digest(value: str) -> str:
    try:
        decoded = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        decoded = value.encode()
    return hashlib.sha256(decoded).hexdigest()
