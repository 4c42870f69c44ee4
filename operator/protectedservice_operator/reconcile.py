"""One pass over one object: gather, plan, act, report. Knows order; remembers nothing that the cluster does not.

Every trigger leads here, and every pass starts from current state, so that a pass may be killed between any two
statements. Each step of the plan is one effect; after it the plan is asked again. A phase that fails is settled for
the pass and the others go on: an authorization server that is away does not keep a deleted Service from coming back.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from . import manifests, plan, plan_brought, plan_deletion, plan_withdrawal, reasons, status, steps
from .authorization_servers import AuthorizationServers
from .brought_credentials import BroughtCredentials
from .cache import Cache
from .children import Children
from .clients import Clients
from .cluster_api import ClusterApi
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
from .metrics import Metrics
from .observed import Observed, Settings
from .registration.deregistrar import Deregistrar
from .registration.driver import Registration, RegistrationRefused
from .registration.ledger import State, secret_name
from .registration.ledger_entries import LedgerEntries
from .registration.registrar import Registrar
from .registration.token import TokenEndpoint
from .resource import (
    AUTHORIZATION_SERVER,
    FINALIZER,
    LEDGER,
    PROTECTED_SERVICE,
    SWEEP,
    Key,
    ProtectedService,
    find_condition,
)
from .sweep import OrphanSweep
from .verification import Subject, Verifier

logger = logging.getLogger(__name__)

STEP_LIMIT: Final = 40  # a new service takes 8 steps; more than this is a plan that runs in circles


class Reconcile:
    """The one reconcile. `wall` is seconds since the epoch, `clock` monotonic seconds."""

    def __init__(
        self,
        cluster: ClusterApi,
        cache: Cache,
        servers: AuthorizationServers,
        verifier: Verifier,
        entries: LedgerEntries,
        events: Recorder,
        settings: Settings,
        sweep: OrphanSweep,
        *,
        namespace: str,
        wake: Callable[[Key], None],
        metrics: Metrics | None = None,
        rollout_concurrency: int = 10,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._cache, self._servers, self._verifier = cluster, cache, servers, verifier
        self._entries, self._events, self._settings, self._wake = entries, events, settings, wake
        self._sweep, self._wall = sweep, wall
        self._namespace = namespace
        self._brought = BroughtCredentials(cluster, cache, namespace)
        self._gatherer = Gatherer(cache, servers, verifier, self._brought, settings, namespace)
        self._children = Children(
            cluster, cache, entries, wake, metrics=metrics, rollout_concurrency=rollout_concurrency, clock=clock
        )
        self._clients = Clients(
            cluster,
            cache,
            servers,
            Registrar(entries),
            Deregistrar(entries),
            entries,
            self._brought,
            events,
            self._gatherer,
            settings,
            namespace=namespace,
            metrics=metrics,
        )
        self._uids: dict[Key, str] = {}

    async def reconcile(self, key: Key) -> float | None:
        """One pass. Returns the seconds after which to look again, None when only a change matters.

        Raises errors.Outcome: the pass wrote down why it stopped, and the kind of outcome says when to try again.
        """
        if key.kind == AUTHORIZATION_SERVER.kind:
            return await self._servers.reconcile(key)
        if key.kind == LEDGER:
            return await self._clients.finish_leftover(key)
        if key.kind == SWEEP:
            return await self._sweep.sweep()
        service = self._gatherer.service(key)
        uid = self._uids.get(key)
        if uid is not None and (service is None or service.meta.uid != uid):
            self._forget(key, uid)
        if service is None:
            return None
        self._uids[key] = service.meta.uid
        self._children.turns_over()
        for waiting in self._gatherer.audiences.put(service, self._gatherer.ledger(service)):
            self._wake(waiting)
        try:
            return await self._pass(key, service)
        except Rejected as rejected:
            text = f"the cluster refuses what the operator writes about {key}: {foreign_text(rejected.message)}"
            raise AdministratorMustAct(reasons.REJECTED_BY_CLUSTER, text) from rejected

    # --- the pass ----------------------------------------------------------------------------------------------------

    async def _pass(self, key: Key, service: ProtectedService) -> float | None:
        settled: dict[str, Outcome] = {}
        await self._servers.learn(self._gatherer.server_of(service))
        await self._brought.learn(service)
        for _ in range(STEP_LIMIT):
            observed = self._gatherer.observe(service)
            found = plan.next_step(observed, self._settings, self._wall(), settled)
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
            again = self._gatherer.service(key)
            if again is None or again.meta.uid != service.meta.uid:
                return None
            service = again
        else:
            raise RuntimeError(f"the plan of {key} does not end: {found.why if isinstance(found, steps.Step) else ''}")
        await self._report(observed, settled)
        return self._conclude(observed, settled)

    def _park(self, observed: Observed, outcome: Outcome, key: Key) -> None:
        if observed.server is None:
            return
        if isinstance(outcome, ServerUnavailable | RegistrationRefused) or outcome.reason in (
            reasons.NOT_PROBED,
            reasons.CREDENTIALS_SECRET_MISSING,
        ):
            self._servers.park(observed.server, key)

    def _conclude(self, observed: Observed, settled: Mapping[str, Outcome]) -> float | None:
        """Raise the outcome that promises most: what may mend itself before what needs a person."""
        for kind in (Wait, AdministratorMustAct, UserMustEdit):
            for outcome in settled.values():
                if isinstance(outcome, kind):
                    outcome.at_latest = self._at_latest(observed)
                    raise outcome
        due = (self._verifier.next_due(observed.service.meta.uid), self._at_latest(observed))
        return min((seconds for seconds in due if seconds is not None), default=None)

    def _at_latest(self, observed: Observed) -> float | None:
        """Seconds after which time alone changes what is to be done."""
        now = self._wall()
        release = plan_deletion.seconds_until_release(observed, self._settings, now)
        # No watch shows the Secret; or the server refused what it brought, and it may have been corrected since.
        withdrawal, poll = plan_withdrawal.due(observed, now), None
        refused = observed.ledger is not None and observed.ledger.refusal is not None
        if observed.service.brings_credentials and (observed.projection is None or refused):
            poll = plan_brought.POLL
        return min((seconds for seconds in (release, withdrawal, poll) if seconds is not None), default=None)

    async def _act(self, step: steps.Step, observed: Observed) -> None:
        logger.debug("%s: %s: %s", observed.service.key, type(step).__name__, step.why)
        tell = self._events.about(PROTECTED_SERVICE, observed.service.meta)
        match step:
            case steps.AddFinalizer():
                await self._set_finalizers(observed.service, [*observed.service.meta.finalizers, FINALIZER])
            case (
                steps.Register()
                | steps.Update()
                | steps.NoteWithdrawal()
                | steps.StartDeletion()
                | steps.Unregister()
                | steps.Retain()
                | steps.LeaveBehind()
                | steps.ForgetForeign()
                | steps.Abandon()
                | steps.Discard()
            ):
                await self._clients.act(step, observed, tell)
            case steps.Project():
                await self._children.project(step, observed)
            case steps.Apply():
                await self._children.apply(step, observed, tell)
            case steps.Evict():
                await self._children.evict(step, observed, tell)
            case steps.Prune():
                await self._children.prune(step, observed)
            case steps.Prove():
                self._prove(step, observed)
            case steps.Release():
                await self._release(step, observed)
            case _:
                raise TypeError(f"no way to do {step!r}")

    # --- the object itself -------------------------------------------------------------------------------------------

    async def _set_finalizers(self, service: ProtectedService, finalizers: list[str]) -> None:
        meta = service.meta
        patch = {"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": finalizers}}
        try:
            body = await self._cluster.patch(PROTECTED_SERVICE, meta.namespace, meta.name, patch)
        except NotFound:
            return
        if finalizers or not meta.deletion_timestamp:
            self._cache.put(PROTECTED_SERVICE, body)

    async def _release(self, step: steps.Release, observed: Observed) -> None:
        meta, record = observed.service.meta, observed.ledger
        if step.orphaned and record is not None:
            text = (
                f"ProtectedService {meta.namespace}/{meta.name} was released at its deletion deadline; client "
                f"{record.client_id} is still registered and is deleted as soon as the server answers"
            )
            if observed.server is not None:
                tell = self._events.about(AUTHORIZATION_SERVER, observed.server.meta)
                await tell("Warning", reasons.CLIENT_ORPHANED, text)
            logger.warning("%s", text)
        if step.disown and not observed.service.brings_credentials:
            await self._children.disown(observed.service)
        if record is not None and record.state is State.RETAINED:
            text = (
                f"Client {record.client_id} stays registered at {record.server} (spec.client.deletionPolicy Retain); "
                f"its credentials stay in Secret {observed.service.credentials_secret}"
            )
            await self._events.about(PROTECTED_SERVICE, meta)("Normal", reasons.CLIENT_RETAINED, text)
            logger.info("%s: %s", observed.service.key, text)
        await self._set_finalizers(observed.service, [name for name in meta.finalizers if name != FINALIZER])
        if step.orphaned:
            self._wake(Key(LEDGER, self._namespace, secret_name(meta.uid)))

    async def _report(self, observed: Observed, settled: Mapping[str, Outcome]) -> None:
        """One status patch, if it says anything new."""
        service = observed.service
        new, old = status.status(observed, self._settings, settled, self._wall()), service.status
        if new == dict(old):
            return
        gone = {name: None for name in old if name not in new}
        if isinstance(old.get("verification"), dict) and "verification" in new:
            new["verification"] = {**dict.fromkeys(old["verification"]), **new["verification"]}
        patch = {"metadata": {"uid": service.meta.uid}, "status": {**gone, **new}}
        try:
            body = await self._cluster.patch(
                PROTECTED_SERVICE, service.meta.namespace, service.meta.name, patch, subresource="status"
            )
        except NotFound:
            return
        self._cache.put(PROTECTED_SERVICE, body)
        await self._tell_flips(service, new["conditions"])

    async def _tell_flips(self, service: ProtectedService, conditions: list[dict[str, Any]]) -> None:
        """An Event and a log line for each condition that changed its status or its reason for being False."""
        for condition in conditions:
            if condition["type"] in (reasons.RECONCILING, reasons.STALLED):
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
                await self._events.about(PROTECTED_SERVICE, service.meta)(
                    type_, condition["reason"], condition["message"]
                )

    # --- proof -------------------------------------------------------------------------------------------------------

    def _prove(self, step: steps.Prove, observed: Observed) -> None:
        service, server = observed.service, observed.server
        if server is None:
            raise TypeError("a proof without an AuthorizationServer")

        async def tokens() -> TokenEndpoint:
            return (await self._servers.connection(server)).tokens

        async def registration() -> Registration | None:
            found = await self._entries.read(service.meta.uid)
            return found[0].registration if found else None

        self._verifier.start(
            Subject(
                key=service.key,
                uid=service.meta.uid,
                template=step.template,
                pods=lambda: self._gatherer.ready_pods(service),
                port=manifests.SERVER_PORT,
                scopes=service.scopes,
                audience=service.audience,
                max_revocation_delay=duration_seconds(service.max_revocation_delay),
                tokens=tokens,
                registration=registration,
            )
        )

    # --- small things ------------------------------------------------------------------------------------------------

    def _forget(self, key: Key, uid: str) -> None:
        self._uids.pop(key, None)
        self._verifier.forget(uid)
        self._brought.forget(uid)
        for waiting in self._gatherer.audiences.remove(uid):
            self._wake(waiting)
        self._children.forget(uid)


_UNDER_WAY: Final = frozenset(
    {reasons.PENDING, reasons.PROGRESSING, reasons.VERIFYING, reasons.DELETING, reasons.NOT_PROBED}
)
_DURATION: Final = re.compile(r"([0-9.]+)(ms|s|m|h)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration_seconds(text: str) -> float:
    """A duration of the CRD (`1m30s`, `500ms`) in seconds."""
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
