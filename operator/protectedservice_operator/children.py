"""The effects on a service's children: apply, remove intruders, prune, project the credentials.

An object of a child's name that somebody else owns is never touched. What apply cannot mend (items of other managers in
lists of ours) a JSON patch removes, and what keeps coming back is left alone for an hour, loudly.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

from . import manifests, reasons, steps
from .cache import Cache
from .cluster_api import ClusterApi
from .drift import differences, differs
from .errors import AdministratorMustAct, Conflict, NotFound, Rejected, Wait, foreign_text
from .events import Tell
from .metrics import Metrics
from .observed import Observed, ObservedClient
from .protected_service import ProtectedService
from .registrant import Registrant
from .registration.driver import Registration
from .registration.ledger_entries import LedgerEntries
from .resource import (
    ANNOTATION_AUTOSCALED,
    CLIENT_ID,
    CLIENT_SECRET,
    DEPLOYMENT,
    FIELD_MANAGER,
    REPLICAS_MANAGER,
    SECRET,
    Key,
    Kind,
)

logger = logging.getLogger(__name__)

FIGHT_WINDOW: Final = 600.0  # seconds in which the same intruder may come back (design: ten minutes)
FIGHT_LIMIT: Final = 3  # times, before the operator stops removing it
TRUCE: Final = 3600.0  # seconds until it tries again
ROLLOUT_RETRY: Final = 30.0  # seconds until a rollout that waits looks again, should nobody have woken it
ROLLOUT_PATIENCE: Final = 600.0  # seconds a rollout may hold its turn: a Deployment's own progress deadline


class Children:
    """Writes children. `clock` is monotonic seconds."""

    def __init__(
        self,
        cluster: ClusterApi,
        cache: Cache,
        entries: LedgerEntries,
        wake: Callable[[Key], None],
        *,
        metrics: Metrics | None = None,
        rollout_concurrency: int = 10,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._cache, self._entries, self._wake = cluster, cache, entries, wake
        self._metrics, self._rollouts, self._clock = metrics, rollout_concurrency, clock
        self._fights: dict[tuple[str, str, str], deque[float]] = {}
        self._rolling: dict[str, float] = {}  # uid of a service -> until when its rollout counts
        self._waiting: dict[Key, None] = {}  # in the order in which they asked

    def forget(self, uid: str) -> None:
        """The service is gone."""
        for fight in [fight for fight in self._fights if fight[0] == uid]:
            del self._fights[fight]

    async def apply(self, step: steps.Apply, observed: Observed, tell: Tell) -> None:
        service, name = observed.service, step.manifest["metadata"]["name"]
        manifest = dict(step.manifest)
        live = observed.children.get((step.kind, name))
        if live is None:
            live = await self._look(service, step.kind, name)
            if live is not None and not differs(step.manifest, live):
                return  # the watch is behind; the cache knows it now
        if step.kind is DEPLOYMENT and live is not None:
            self._take_turn(observed, step)
        if step.repair and step.differences:
            self._check_truce(service, step.kind, ", ".join(step.differences))
        if live is not None:
            manifest["metadata"] = {**manifest["metadata"], "uid": live["metadata"]["uid"]}
            if step.kind is DEPLOYMENT and _is_handed_over(manifest) and not _is_handed_over(live):
                await self._hand_over_replicas(live)
        body = await self._write(service, step.kind, manifest)
        if step.repair and step.differences:
            self._count_fight(service, step.kind, ", ".join(step.differences))
        if step.repair:
            if self._metrics:
                self._metrics.drift_repairs.labels(kind=step.kind.kind).inc()
            await tell("Normal", reasons.REPAIRED, f"Put {step.kind} {name} right: {step.why}")
        logger.info("Applied %s %s/%s: %s", step.kind, service.meta.namespace, name, step.why)
        if left := differences(step.manifest, body):  # admission changed it on its way in
            self._check_truce(service, step.kind, ", ".join(left))
            self._count_fight(service, step.kind, ", ".join(left))

    async def _look(self, service: Registrant, kind: Kind, name: str) -> Mapping[str, Any] | None:
        """The object of a child's name, live, because the cache knows none that is ours.

        Raises AdministratorMustAct (NotOwned) when somebody else's object has the name: it is never touched.
        """
        live = await self._cluster.get(kind, service.meta.namespace, name)
        if live is None:
            return None
        owner = next((o for o in live["metadata"].get("ownerReferences") or () if o.get("controller")), None)
        if owner is None and _applied_by_us(live):
            return live  # ours, robbed of its owner
        if owner is None or owner["uid"] != service.meta.uid:
            text = (
                f"{kind} {service.meta.namespace}/{name} exists and does not belong to this {service.kind}; it is "
                f"left alone: remove or rename it, or give the {service.kind} another name"
            )
            raise AdministratorMustAct(reasons.NOT_OWNED, text)
        if not live["metadata"].get("deletionTimestamp"):
            self._cache.put(kind, dict(live))
        return live

    async def _write(self, service: Registrant, kind: Kind, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Apply a child; the cluster's own refusal becomes an outcome that names the object."""
        name = manifest["metadata"]["name"]
        try:
            body = await self._cluster.apply(kind, dict(manifest))
        except Rejected as rejected:
            text = f"the cluster refuses {kind} {service.meta.namespace}/{name}: {foreign_text(rejected.message)}"
            raise AdministratorMustAct(reasons.REJECTED_BY_CLUSTER, text) from rejected
        self._cache.put(kind, body)
        return body

    async def _hand_over_replicas(self, live: Mapping[str, Any]) -> None:
        """Before the autoscaler's time: a number that only we held would fall back to 1 when we let go of it."""
        meta = live["metadata"]
        manifest = {
            "apiVersion": DEPLOYMENT.api_version,
            "kind": DEPLOYMENT.kind,
            "metadata": {"namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]},
            "spec": {"replicas": live["spec"].get("replicas", 1)},
        }
        self._cache.put(DEPLOYMENT, await self._cluster.apply(DEPLOYMENT, manifest, manager=REPLICAS_MANAGER))

    def _take_turn(self, observed: Observed, step: steps.Apply) -> None:
        """An operator upgrade rolls only so many workloads at a time; an edit of the service rolls at once.

        Raises Wait (RolloutQueued) when it is not this one's turn. A rollout that does not end keeps its turn for ten
        minutes only, so that nobody's broken pods stop the upgrade of everybody else.
        """
        meta, now = observed.service.meta, self._clock()
        if observed.service.status.get("observedGeneration") != meta.generation or step.repair:
            return
        self.turns_over()
        if meta.uid not in self._rolling and len(self._rolling) >= self._rollouts:
            self._waiting[observed.service.key] = None
            text = "other workloads are rolling out after an upgrade of the operator; this one waits for its turn"
            raise Wait(reasons.ROLLOUT_QUEUED, text, retry_after=ROLLOUT_RETRY)
        self._rolling[meta.uid] = now + ROLLOUT_PATIENCE

    def turns_over(self) -> None:
        """Take the turns of rollouts that ended, or took too long, and wake as many that wait."""
        if not self._rolling:
            return
        now = self._clock()
        self._rolling = {uid: until for uid, until in self._rolling.items() if until > now and not self._rolled(uid)}
        for key in list(self._waiting)[: max(0, self._rollouts - len(self._rolling))]:
            del self._waiting[key]
            self._wake(key)

    def _rolled(self, uid: str) -> bool:
        deployments = [entry.body() for entry in self._cache.owned_by(uid) if entry.kind == DEPLOYMENT]
        return not any(_rolls(deployment) for deployment in deployments)

    async def evict(self, step: steps.Evict, observed: Observed, tell: Tell) -> None:
        """Remove what apply leaves in place, if it still stands as it was looked at. Raises Conflict if not."""
        service = observed.service
        live = observed.children[step.kind, step.name]
        intruders = ", ".join(_describe(live, pointer) for pointer in step.pointers)
        self._check_truce(service, step.kind, intruders)
        # Each item is tested, not the resourceVersion: a Deployment that rolls moves its status several times a second.
        patch: list[dict[str, Any]] = [
            {"op": "test", "path": "/metadata/uid", "value": live["metadata"]["uid"]},
            *({"op": "test", "path": pointer, "value": _item(live, pointer)} for pointer in step.pointers),
            *({"op": "remove", "path": pointer} for pointer in step.pointers),
        ]
        try:
            body = await self._cluster.patch(step.kind, service.meta.namespace, step.name, patch)
        except Rejected as rejected:
            raise Conflict(reasons.PROGRESSING, f"{step.kind} {step.name} moved: {rejected.message}") from rejected
        except NotFound as gone:
            raise Conflict(reasons.PROGRESSING, f"{step.kind} {step.name} is gone") from gone
        self._cache.put(step.kind, body)
        self._count_fight(service, step.kind, intruders)
        if self._metrics:
            self._metrics.drift_repairs.labels(kind=step.kind.kind).inc()
        text = f"Removed {intruders} from {step.kind} {step.name}: it is the operator's alone"
        logger.info("%s: %s", service.key, text)
        await tell("Normal", reasons.REPAIRED, text)

    def _check_truce(self, service: ProtectedService, kind: Kind, intruder: str) -> None:
        """Raise AdministratorMustAct (DriftFought) when the same intruder keeps coming back, for an hour."""
        times = self._fights.get((service.meta.uid, kind.kind, intruder), deque[float]())
        full = len(times) == FIGHT_LIMIT
        if full and times[-1] - times[0] <= FIGHT_WINDOW and self._clock() - times[-1] < TRUCE:
            text = (
                f"{kind} {service.meta.namespace}/{service.child_name}: {intruder} came back {FIGHT_LIMIT} times "
                "within ten minutes, so admission or another controller puts it there; exempt this Deployment from it"
            )
            raise AdministratorMustAct(reasons.DRIFT_FOUGHT, text)

    def _count_fight(self, service: ProtectedService, kind: Kind, intruder: str) -> None:
        """It was removed, or could not be: an attempt that found the object moved says nothing about coming back."""
        key = (service.meta.uid, kind.kind, intruder)
        self._fights.setdefault(key, deque(maxlen=FIGHT_LIMIT)).append(self._clock())

    async def prune(self, step: steps.Prune, observed: Observed) -> None:
        namespace = observed.service.meta.namespace
        await self._cluster.delete(step.kind, namespace, step.name, uid=step.uid)
        self._cache.remove(step.kind, dict(observed.children[step.kind, step.name]))

    async def project(self, step: steps.Project, observed: ObservedClient) -> None:
        """Write the tenant's Secret from the ledger, read live: the cache holds no secret."""
        service = observed.service
        found = await self._entries.read(service.meta.uid)
        if found is None or found[0].registration is None:
            raise Conflict(reasons.PENDING, "the ledger entry is not as it was seen")
        registration = found[0].registration
        live = await self._look(service, SECRET, service.credentials_secret)
        manifest = manifests.credentials_secret(service, _values(observed, registration), step.keys)
        if live is not None:
            manifest["metadata"]["uid"] = live["metadata"]["uid"]
        body = await self._write(service, SECRET, manifest)
        strangers = sorted(set(body.get("data") or {}) - set(manifest["data"]))
        if strangers:
            version = body["metadata"]["resourceVersion"]
            patch = [{"op": "test", "path": "/metadata/resourceVersion", "value": version}]
            patch += [{"op": "remove", "path": "/data/" + re.sub("/", "~1", key)} for key in strangers]
            try:
                body = await self._cluster.patch(SECRET, service.meta.namespace, service.credentials_secret, patch)
            except (Rejected, NotFound) as moved:
                raise Conflict(reasons.PENDING, "the credentials Secret moved") from moved
            self._cache.put(SECRET, body)
        logger.info("Wrote the credentials Secret %s/%s", service.meta.namespace, service.credentials_secret)

    async def disown(self, observed: ObservedClient) -> None:
        """Leave the credentials behind: the tenant's Secret as the ledger has it, with no owner to go with.

        A Secret that is gone is written again: a foreground deletion has the garbage collector remove it while the
        object still waits for us. One that is not ours, or not ours any more, is left alone. In a namespace that
        ends, nothing can be left behind but the ledger entry.

        Raises AdministratorMustAct (RejectedByCluster) when the owner cannot be taken off.
        """
        service = observed.service
        namespace, name = service.meta.namespace, service.credentials_secret
        found = await self._entries.read(service.meta.uid)
        if found is None or found[0].registration is None:
            return
        live = await self._cluster.get(SECRET, namespace, name)
        if live is not None and not _owners(live, service.meta.uid):
            return
        values = _values(observed, found[0].registration)
        keys = {key: value for key, value in service.credentials_keys.items() if value in values}
        manifest = manifests.credentials_secret(service, values, keys)
        del manifest["metadata"]["ownerReferences"]
        if live is not None:
            manifest["metadata"]["uid"] = live["metadata"]["uid"]
        try:
            body = await self._cluster.apply(SECRET, manifest)
            if owners := _owners(body, service.meta.uid):  # of another field manager, too
                version = body["metadata"]["resourceVersion"]
                patch = [{"op": "test", "path": "/metadata/resourceVersion", "value": version}]
                patch += [{"op": "remove", "path": f"/metadata/ownerReferences/{index}"} for index in reversed(owners)]
                body = await self._cluster.patch(SECRET, namespace, name, patch)
        except (Rejected, NotFound) as refused:
            if live is None:
                logger.warning("The credentials of %s are kept in the ledger only: %s", service.key, refused)
                return
            text = f"the cluster does not let go of Secret {namespace}/{name}: {foreign_text(refused)}"
            raise AdministratorMustAct(reasons.REJECTED_BY_CLUSTER, text) from refused
        self._cache.put(SECRET, body)
        logger.info("Left the credentials Secret %s/%s behind", namespace, name)


def _values(observed: ObservedClient, registration: Registration) -> dict[str, str]:
    """All that a tenant's Secret can hold, by name."""
    return {**observed.facts, CLIENT_ID: registration.client_id, CLIENT_SECRET: registration.client_secret}


def _is_handed_over(deployment: Mapping[str, Any]) -> bool:
    """Whether its number of replicas is the autoscaler's."""
    return ANNOTATION_AUTOSCALED in (deployment["metadata"].get("annotations") or {})


def _owners(body: Mapping[str, Any], uid: str) -> list[int]:
    """Where in an object's ownerReferences this uid stands."""
    owners = body["metadata"].get("ownerReferences") or ()
    return [index for index, owner in enumerate(owners) if owner["uid"] == uid]


def _applied_by_us(live: Mapping[str, Any]) -> bool:
    """Whether our server-side apply made this object, by its managedFields."""
    managers = live["metadata"].get("managedFields") or ()
    return any(entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply" for entry in managers)


def _rolls(deployment: Mapping[str, Any]) -> bool:
    """Whether a Deployment is on its way from one template to the next."""
    now, want = deployment.get("status") or {}, deployment["spec"].get("replicas", 1)
    seen = now.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
    return not seen or now.get("updatedReplicas", 0) < want or now.get("availableReplicas", 0) < want


def _item(live: Mapping[str, Any], pointer: str) -> Any:
    """What stands at a JSON pointer (RFC 6901 section 4)."""
    item: Any = live
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        item = item[int(name)] if isinstance(item, list) else item[name]
    return item


def _describe(live: Mapping[str, Any], pointer: str) -> str:
    """A JSON pointer for people: the item's name where it has one, else the pointer."""
    item = _item(live, pointer)
    called = item.get("name") or item.get("mountPath") if isinstance(item, dict) else None
    return f"{pointer.rsplit('/', 2)[-2]} {called}" if called else pointer
