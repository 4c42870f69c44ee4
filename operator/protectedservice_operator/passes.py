"""One pass over one object that owns a client, the same for each kind: observe, plan, act, report.

What differs between the kinds (what there is to know, what is wanted, what else is to be done) their subclasses say. A
pass may be killed between any two statements: it starts from current state, and each step of the plan is one effect,
after which the plan is asked again.
"""

from __future__ import annotations

import abc
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from . import plan_brought, plan_deletion, plan_rotation, plan_withdrawal, reasons, steps
from .authorization_servers import AuthorizationServers
from .cache import Cache
from .children import Children
from .client_checks import ClientChecks
from .clients import Clients, ClientStep
from .cluster_api import ClusterApi
from .conditions import find_condition
from .errors import (
    AdministratorMustAct,
    ClusterUnavailable,
    Conflict,
    NotFound,
    Outcome,
    Rejected,
    ServerUnavailable,
    UserMustEdit,
    Wait,
    foreign_text,
)
from .events import EventType, Recorder
from .gather import Gatherer
from .observed import ObservedClient, Settings
from .registrant import Registrant
from .registration.driver import RegistrationRefused
from .registration.ledger import State, secret_name
from .resource import AUTHORIZATION_SERVER, FINALIZER, LEDGER, Key
from .rotations import Rotations, RotationStep

logger = logging.getLogger(__name__)

Owner = TypeVar("Owner", bound=Registrant)
Seen = TypeVar("Seen", bound=ObservedClient)

STEP_LIMIT: Final = 40  # a new service takes 8 steps; more than this is a plan that runs in circles


@dataclass(frozen=True)
class Parts:
    """What every pass works with. `wall` is seconds since the epoch."""

    cluster: ClusterApi
    cache: Cache
    servers: AuthorizationServers
    events: Recorder
    gatherer: Gatherer
    clients: Clients
    rotations: Rotations
    checks: ClientChecks
    children: Children
    settings: Settings
    namespace: str
    wake: Callable[[Key], None]
    wall: Callable[[], float]


class Passes(abc.ABC, Generic[Owner, Seen]):
    """Passes over the objects of one kind."""

    def __init__(self, parts: Parts) -> None:
        self._cluster, self._cache, self._servers = parts.cluster, parts.cache, parts.servers
        self._events, self._gatherer, self._settings = parts.events, parts.gatherer, parts.settings
        self._clients, self._rotations, self._children = parts.clients, parts.rotations, parts.children
        self._checks = parts.checks
        self._namespace, self._wake, self._wall = parts.namespace, parts.wake, parts.wall

    @abc.abstractmethod
    def find(self, key: Key) -> Owner | None:
        """The object as the watch last showed it."""

    async def learn(self, service: Owner) -> None:
        """Read what no watch shows and its plan may look at."""

    @abc.abstractmethod
    def observe(self, service: Owner) -> Seen:
        """Everything its plan may look at."""

    @abc.abstractmethod
    def next_step(self, observed: Seen, settled: Mapping[str, Outcome]) -> steps.Step | steps.Blocked | None:
        """What its plan says."""

    @abc.abstractmethod
    def status(self, observed: Seen, settled: Mapping[str, Outcome]) -> dict[str, Any]:
        """The whole status that it should show now."""

    async def act_alone(self, step: steps.Step, observed: Seen) -> None:
        """Do a step that only this kind knows."""
        raise TypeError(f"no way to do {step!r} about {observed.service.key}")

    def next_look(self, observed: Seen) -> float | None:
        """Seconds after which to look again at an object at which all is well; None: when it changes.

        The next look at its client, or a rotation, is due then.
        """
        if observed.service.meta.deletion_timestamp is not None:
            return None
        check = self._checks.due_in(observed.service.meta.uid)
        overdue = check <= 0  # something is in its way, whose change is told
        times = (plan_rotation.due_in(observed, self._wall()), None if overdue else check)
        return min((seconds for seconds in times if seconds is not None), default=None)

    async def one(self, key: Key, service: Owner) -> float | None:
        """One pass. Returns the seconds after which to look again, None when only a change matters.

        Raises errors.Outcome: the pass wrote down why it stopped, and the kind of outcome says when to try again.
        """
        try:
            return await self._pass(key, service)
        except Rejected as rejected:
            text = f"the cluster refuses what the operator writes about {key}: {foreign_text(rejected.message)}"
            raise AdministratorMustAct(reasons.REJECTED_BY_CLUSTER, text) from rejected

    async def _pass(self, key: Key, service: Owner) -> float | None:
        settled: dict[str, Outcome] = {}
        await self._servers.learn(self._gatherer.server_of(service))
        await self.learn(service)
        for _ in range(STEP_LIMIT):
            observed = self.observe(service)
            found = self.next_step(observed, settled)
            if found is None:
                break
            if isinstance(found, steps.Blocked):
                settled[found.phase] = found.outcome
                self._park(observed, found.outcome, key)
                continue
            try:
                await self._act(found, observed)
                if isinstance(found, steps.Release):
                    return None
            except (Conflict, ClusterUnavailable):
                raise  # what this pass believes is out of date, or cannot be told: begin again, and say nothing
            except NotFound as gone:
                raise Conflict(reasons.PENDING, f"something of {key} went away meanwhile") from gone
            except Rejected as rejected:
                text = f"the cluster refuses what the operator writes: {foreign_text(rejected.message)}"
                settled[found.phase] = AdministratorMustAct(reasons.REJECTED_BY_CLUSTER, text)
            except Outcome as outcome:
                if outcome.reason == reasons.ROLLOUT_QUEUED:
                    raise  # the old template serves on: nothing of status has changed
                settled[found.phase] = outcome
                self._park(observed, outcome, key)
            again = self.find(key)
            if again is None or again.meta.uid != service.meta.uid:
                return None
            service = again
        else:
            raise RuntimeError(f"the plan of {key} does not end: {found.why if isinstance(found, steps.Step) else ''}")
        await self._report(observed, settled)
        return self._conclude(observed, settled)

    def _park(self, observed: Seen, outcome: Outcome, key: Key) -> None:
        if observed.server is None:
            return
        if isinstance(outcome, ServerUnavailable | RegistrationRefused) or outcome.reason in (
            reasons.NOT_PROBED,
            reasons.CREDENTIALS_SECRET_MISSING,
        ):
            self._servers.park(observed.server, key)

    def _conclude(self, observed: Seen, settled: Mapping[str, Outcome]) -> float | None:
        """Raise the outcome that promises most: what may mend itself before what needs a person."""
        for kind in (Wait, AdministratorMustAct, UserMustEdit):
            for outcome in settled.values():
                if isinstance(outcome, kind):
                    outcome.at_latest = self._at_latest(observed)
                    raise outcome
        due = (self.next_look(observed), self._at_latest(observed))
        return min((seconds for seconds in due if seconds is not None), default=None)

    def _at_latest(self, observed: Seen) -> float | None:
        """Seconds after which time alone changes what is to be done."""
        now = self._wall()
        due = (
            plan_deletion.seconds_until_release(observed, self._settings, now),
            plan_withdrawal.due(observed, now),
            plan_brought.due(observed),
        )
        return min((seconds for seconds in due if seconds is not None), default=None)

    async def _act(self, step: steps.Step, observed: Seen) -> None:
        logger.debug("%s: %s: %s", observed.service.key, type(step).__name__, step.why)
        tell = self._events.about(observed.service.kind, observed.service.meta)
        if isinstance(step, ClientStep):
            await self._clients.act(step, observed, tell)
            return
        if isinstance(step, RotationStep):
            await self._rotations.act(step, observed, tell)
            return
        match step:
            case steps.AddFinalizer():
                await self._set_finalizers(observed.service, [*observed.service.meta.finalizers, FINALIZER])
            case steps.Project():
                await self._children.project(step, observed)
            case steps.Release():
                await self._release(step, observed)
            case _:
                await self.act_alone(step, observed)

    # --- the object itself -------------------------------------------------------------------------------------------

    async def _set_finalizers(self, service: Registrant, finalizers: list[str]) -> None:
        meta = service.meta
        patch = {"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": finalizers}}
        try:
            body = await self._cluster.patch(service.kind, meta.namespace, meta.name, patch)
        except NotFound:
            return
        if finalizers or not meta.deletion_timestamp:
            self._cache.put(service.kind, body)

    async def _release(self, step: steps.Release, observed: Seen) -> None:
        meta, record = observed.service.meta, observed.ledger
        if step.orphaned and record is not None:
            text = (
                f"{observed.service.key} was released at its deletion deadline; client "
                f"{record.client_id} is still registered and is deleted as soon as the server answers"
            )
            if observed.server is not None:
                tell = self._events.about(AUTHORIZATION_SERVER, observed.server.meta)
                await tell("Warning", reasons.CLIENT_ORPHANED, text)
            logger.warning("%s", text)
        if step.disown and not observed.service.brings_credentials:
            await self._children.disown(observed)
        if record is not None and record.state is State.RETAINED:
            text = (
                f"Client {record.client_id} stays registered at {record.server} (deletionPolicy Retain); "
                f"its credentials stay in Secret {observed.service.credentials_secret}"
            )
            await self._events.about(observed.service.kind, meta)("Normal", reasons.CLIENT_RETAINED, text)
            logger.info("%s: %s", observed.service.key, text)
        await self._set_finalizers(observed.service, [name for name in meta.finalizers if name != FINALIZER])
        if step.orphaned:
            self._wake(Key(LEDGER, self._namespace, secret_name(meta.uid)))

    async def _report(self, observed: Seen, settled: Mapping[str, Outcome]) -> None:
        """One status patch, if it says anything new."""
        service = observed.service
        new, old = self.status(observed, settled), service.status
        if new == dict(old):
            return
        gone = {name: None for name in old if name not in new}
        if isinstance(old.get("verification"), dict) and "verification" in new:
            new["verification"] = {**dict.fromkeys(old["verification"]), **new["verification"]}
        patch = {"metadata": {"uid": service.meta.uid}, "status": {**gone, **new}}
        try:
            body = await self._cluster.patch(
                service.kind, service.meta.namespace, service.meta.name, patch, subresource="status"
            )
        except NotFound:
            return
        self._cache.put(service.kind, body)
        if body["metadata"].get("generation") != service.meta.generation:
            # Edited meanwhile: the answer overtook the watch's event, which then tells the cache nothing new.
            self._wake(service.key)
        await self._tell_flips(service, new["conditions"])

    async def _tell_flips(self, service: Registrant, conditions: list[dict[str, Any]]) -> None:
        """An Event and a log line for each condition that changed its status or its reason for being False."""
        for condition in conditions:
            if condition["type"] in (reasons.RECONCILING, reasons.STALLED, reasons.ROTATING):
                continue
            before = find_condition(service.status.get("conditions") or (), condition["type"])
            said = (condition["status"], condition["reason"])
            if before is not None and (before["status"], before["reason"]) == said:
                continue
            if condition["reason"] == reasons.SUSPENDED and condition["type"] != reasons.SUSPENDED:
                continue  # said once, not by each condition that it concerns
            under_way = condition["reason"] in _UNDER_WAY
            if condition["status"] == "True" or not under_way:
                logger.info(
                    "%s: %s is %s (%s): %s",
                    service.key,
                    condition["type"],
                    condition["status"],
                    condition["reason"],
                    condition["message"],
                )
                type_: EventType = "Normal" if condition["status"] == "True" else "Warning"
                await self._events.about(service.kind, service.meta)(type_, condition["reason"], condition["message"])


_UNDER_WAY: Final = frozenset(
    {
        reasons.PENDING,
        reasons.PROGRESSING,
        reasons.VERIFYING,
        reasons.DELETING,
        reasons.NOT_PROBED,
        reasons.POLICY_APPLIED,
    }
)
