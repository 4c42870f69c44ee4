"""One pass over one object: gather, plan, act, report. Knows order; remembers nothing that the cluster does not.

Every trigger leads here, and every pass starts from current state, so that a pass may be killed between any two
statements. Each step of the plan is one effect; after it the plan is asked again. A phase that fails is settled for
the pass and the others go on: an authorization server that is away does not keep a deleted Service from coming back.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any

from . import manifests, plan, status, steps
from . import trials as trials_of_upstreams
from .adoptions import Adoptions
from .authorization_server_passes import AuthorizationServerPasses
from .authorization_servers import AuthorizationServers
from .brought_credentials import BroughtCredentials
from .cache import Cache
from .children import Children
from .client_checks import ClientChecks
from .clients import Clients
from .cluster_api import ClusterApi
from .conditions import duration_seconds
from .cross_client_check import CrossClientCheck
from .errors import Outcome
from .events import Recorder
from .gather import Gatherer
from .isolation import Isolated
from .metrics import Metrics
from .observed import Observed, ObservedClient, Settings
from .passes import Parts, Passes
from .pod_certificate import pinned
from .protected_service import ProtectedService
from .registration.adopter import Adopter
from .registration.deregistrar import Deregistrar
from .registration.driver import Registration
from .registration.inspector import Inspector
from .registration.ledger_entries import LedgerEntries
from .registration.registrar import Registrar
from .registration.rotator import Rotator
from .registration.token import TokenEndpoint
from .resource import AUTHORIZATION_SERVER, LEDGER, SECRET, SERVICE_CLIENT, SWEEP, Key
from .rotations import Rotations
from .service_client_reconcile import ServiceClients
from .sweep import OrphanSweep
from .trials import Trials
from .upstream_pods import LOOK_AGAIN, UpstreamPods
from .verification import Subject, Verifier


class Reconcile(Passes[ProtectedService, Observed]):
    """The one reconcile: passes over ProtectedServices, and the way to those over everything else. `wall` is seconds
    since the epoch, `clock` monotonic seconds.
    """

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
        checks: ClientChecks | None = None,
        trials: Trials | None = None,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._verifier, self._entries, self._sweep = verifier, entries, sweep
        brought = BroughtCredentials(cluster, cache, namespace)
        checks = checks or ClientChecks(clock=clock)
        self._upstreams = UpstreamPods(cluster, cache)
        self._trials = trials or Trials(wake, clock=clock)
        gatherer = Gatherer(
            cache, servers, verifier, brought, checks, self._upstreams, self._trials, settings, namespace
        )
        children = Children(
            cluster, cache, entries, wake, metrics=metrics, rollout_concurrency=rollout_concurrency, clock=clock
        )
        rotator = Rotator(entries)
        rotations = Rotations(servers, rotator, Inspector(entries), checks, settings, metrics=metrics)
        self._adoptions = Adoptions(cache, servers, Adopter(entries), brought, settings, clock=clock)
        clients = Clients(
            cluster,
            cache,
            servers,
            Registrar(entries),
            Deregistrar(entries),
            rotator,
            entries,
            brought,
            self._adoptions,
            events,
            gatherer,
            settings,
            namespace=namespace,
            metrics=metrics,
        )
        self._brought = brought
        self._cross_client = CrossClientCheck(
            cluster, cache, servers, entries, events, settings, namespace=namespace, clock=clock, wall=wall
        )
        parts = Parts(
            cluster,
            cache,
            servers,
            events,
            gatherer,
            clients,
            rotations,
            checks,
            children,
            settings,
            namespace,
            wake,
            wall,
        )
        super().__init__(parts)
        self._service_clients = ServiceClients(parts)
        self._server_passes = AuthorizationServerPasses(parts, Deregistrar(entries), self._observed)
        self._uids: dict[Key, str] = {}

    async def reconcile(self, key: Key) -> float | None:
        """One pass. Returns the seconds after which to look again, None when only a change matters.

        Raises errors.Outcome: the pass wrote down why it stopped, and the kind of outcome says when to try again.
        """
        if key.kind == AUTHORIZATION_SERVER.kind:
            delay = await self._server_passes.one(key)
            await self._cross_client.look(key)
            return delay
        if key.kind == SERVICE_CLIENT.kind:
            return await self._service_clients.reconcile(key)
        if key.kind == LEDGER:
            return await self._clients.finish_leftover(key)
        if key.kind == SWEEP:
            return await self._sweep.sweep()
        service = self.find(key)
        uid = self._uids.get(key)
        if uid is not None and (service is None or service.meta.uid != uid):
            self._forget(key, uid)
        if service is None:
            return None
        self._uids[key] = service.meta.uid
        self._children.turns_over()
        for waiting in self._gatherer.audiences.put(service, self._gatherer.ledger(service)):
            self._wake(waiting)
        return await self.one(key, service)

    # --- what is of ProtectedServices alone --------------------------------------------------------------------------

    def find(self, key: Key) -> ProtectedService | None:
        """The service as the watch last showed it."""
        return self._gatherer.service(key)

    async def learn(self, service: ProtectedService) -> None:
        """What it brings for its client, and what stands behind its upstream, read now."""
        await self._brought.learn(service)
        await self._upstreams.learn(service)
        if service.isolated_upstream is None:
            self._trials.forget(service.meta.uid)

    def observe(self, service: ProtectedService) -> Observed:
        """Everything its plan may look at."""
        return self._gatherer.observe(service)

    def next_step(self, observed: Observed, settled: Mapping[str, Outcome]) -> steps.Step | steps.Blocked | None:
        """What its plan says."""
        return plan.next_step(observed, self._settings, self._wall(), settled)

    def status(self, observed: Observed, settled: Mapping[str, Outcome]) -> dict[str, Any]:
        """The whole status that it should show now."""
        return status.status(observed, self._settings, settled, self._wall())

    def next_look(self, observed: Observed) -> float | None:
        """When its next proof, a look at its upstream or a trial of that is due, too."""
        service = observed.service
        if service.meta.deletion_timestamp is not None:
            return None
        times = (
            self._verifier.next_due(service.meta.uid),
            self._trials.next_due(service.meta.uid),
            LOOK_AGAIN if service.isolated_upstream is not None else None,
            super().next_look(observed),
        )
        return min((time for time in times if time is not None), default=None)

    async def act_alone(self, step: steps.Step, observed: Observed) -> None:
        """The effects on its workload."""
        tell = self._events.about(observed.service.kind, observed.service.meta)
        match step:
            case steps.Apply():
                await self._children.apply(step, observed, tell)
            case steps.Evict():
                await self._children.evict(step, observed, tell)
            case steps.Prune():
                await self._children.prune(step, observed)
            case steps.Prove():
                self._prove(step, observed)
            case steps.Try():
                self._try(step, observed)
            case _:
                await super().act_alone(step, observed)

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

        async def tls() -> ssl.SSLContext:
            return pinned(await self._cluster.get(SECRET, service.meta.namespace, service.workload.tls_secret or ""))

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
                tls=None if service.workload.tls_secret is None else tls,
            )
        )

    # --- an isolated upstream ----------------------------------------------------------------------------------------

    def _try(self, step: steps.Try, observed: Observed) -> None:
        service, upstream = observed.service, observed.upstream
        if not isinstance(upstream, Isolated):
            raise TypeError("a trial without an upstream")
        self._trials.start(
            trials_of_upstreams.Subject(
                key=service.key,
                uid=service.meta.uid,
                policy=step.policy,
                targets=upstream.targets,
                servers=lambda: self._gatherer.ready_pods(service),
                management_port=manifests.MANAGEMENT_PORT,
            )
        )

    def _observed(self, key: Key) -> ObservedClient | None:
        """What there is to know about the client of an object of either kind."""
        if key.kind == SERVICE_CLIENT.kind:
            caller = self._service_clients.find(key)
            return self._service_clients.observe(caller) if caller is not None else None
        service = self.find(key)
        return self.observe(service) if service is not None else None

    # --- small things ------------------------------------------------------------------------------------------------

    def _forget(self, key: Key, uid: str) -> None:
        self._uids.pop(key, None)
        self._verifier.forget(uid)
        self._brought.forget(uid)
        self._adoptions.forget(uid)
        self._checks.forget(uid)
        self._upstreams.forget(uid)
        self._trials.forget(uid)
        for waiting in self._gatherer.audiences.remove(uid):
            self._wake(waiting)
        self._children.forget(uid)
