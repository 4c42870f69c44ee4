"""The operator's reconcile in a world of its own: cluster, authorization server, kubelets, and time, all in memory.

    world = World()
    world.add(protected_service("orders"))
    await world.settle()
    assert world.condition("orders", "Ready") == "True"

Everything outlives the operator: `world.kill_at(n)` makes the n-th effect the last one, and `world.restart()` begins
anew from what the cluster and the authorization server hold.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import datetime as dt
import errno
import functools
import ssl
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from protectedservice_operator.authorization_server import Rates
from protectedservice_operator.authorization_servers import AuthorizationServers
from protectedservice_operator.cache import Cache
from protectedservice_operator.client_checks import ClientChecks
from protectedservice_operator.errors import AdministratorMustAct, Conflict, Outcome, UserMustEdit, Wait
from protectedservice_operator.events import Recorder
from protectedservice_operator.manifests import MANAGEMENT_PORT
from protectedservice_operator.metrics import Metrics
from protectedservice_operator.observed import Settings
from protectedservice_operator.reconcile import Reconcile
from protectedservice_operator.registration.breaker import Breaker
from protectedservice_operator.registration.deregistrar import Deregistrar
from protectedservice_operator.registration.ledger import Entry, secret_name
from protectedservice_operator.registration.ledger_entries import LedgerEntries
from protectedservice_operator.registration.limits import Limits
from protectedservice_operator.registration.remote import Remote
from protectedservice_operator.resource import (
    AUTHORIZATION_SERVER,
    DEPLOYMENT,
    EVENT,
    NETWORK_POLICY,
    OWNERS,
    POD,
    PROTECTED_SERVICE,
    SECRET,
    SWEEP,
    WATCHED,
    Key,
    Kind,
    Reference,
)
from protectedservice_operator.sweep import OrphanSweep
from protectedservice_operator.trials import Subject as TrialSubject
from protectedservice_operator.trials import Trials
from protectedservice_operator.triggers import Triggers, related_by_content
from protectedservice_operator.verification import Subject, Verifier

from . import servers
from .fake_cluster import FakeCluster, Write
from .objects import OPERATOR_NAMESPACE, authorization_server

START = 1_790_000_000.0
PASS_LIMIT = 400


class Killed(BaseException):
    """The operator's process ended here. Not an Exception: nothing of the operator may catch it."""


class _Verifier(Verifier):
    """Keeps the tasks of its proofs, so that the world can await them and their deaths."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.tasks: list[asyncio.Task[None]] = []

    def start(self, subject: Subject) -> None:
        super().start(subject)
        task = self._records[subject.uid].task
        if task is not None and task not in self.tasks:
            self.tasks.append(task)
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # a death is no news here


class _Trials(Trials):
    """The same for the trials of isolated upstreams."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.tasks: list[asyncio.Task[None]] = []

    def start(self, subject: TrialSubject) -> None:
        super().start(subject)
        task = self._records[subject.uid].task
        if task is not None and task not in self.tasks:
            self.tasks.append(task)
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())


class World:
    """See the module."""

    def __init__(
        self,
        *,
        idempotency_honoured: bool = True,
        kind: str = "dynamic",
        spec: Mapping[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        probe_interval: float = 30.0,
    ) -> None:
        """`kind`: dynamic, register-only, hydra, keycloak or none; `idempotency_honoured` is for the first two.

        `spec` describes a real server instead, which is called over the network: an AuthorizationServer's spec, and
        as `credential` what the registration Secret is to hold. `server` then knows nothing.
        """
        self.look_jitter: Callable[[], float] = lambda: 0.5  # of the hourly looks at clients
        self.now, self.probe_interval = START, probe_interval
        self.cluster = FakeCluster(lambda: dt.datetime.fromtimestamp(self.now, dt.UTC))
        for namespace in (OPERATOR_NAMESPACE, "tenant", "other"):
            self.cluster.add_namespace(namespace)
        self.real = spec is not None
        self.server, described = servers.make(kind, idempotency_honoured=idempotency_honoured, now=lambda: self.now)
        described = copy.deepcopy(dict(spec)) if spec is not None else described
        credential = {"token": self.server.initial_access_token, **described.pop("credential", {})}
        self.cluster.insert(SECRET, registration_secret(**credential))
        self.cluster.insert(AUTHORIZATION_SERVER, authorization_server(**described))
        self.settings = Settings(
            cluster_id="cluster",
            server_image="protectedservice/resource-server:test",
            honoured_namespaces=frozenset({OPERATOR_NAMESPACE}),
            default_server=Reference(OPERATOR_NAMESPACE, "default"),
            **{"cross_client_check": False, **(settings or {})},
        )
        self.trusted: list[str | None] = []  # certificates that connections were made with
        self.effects = 0
        self.kill_before: int | None = None
        self.kill_after: int | None = None
        self.killed = False
        self.patience = PASS_LIMIT  # passes until it is said that nothing settles
        self.sweeps = False  # whether the sweep of the next process deletes
        self.kubelet_runs = True
        self.pod_answers: Callable[[httpx.Request], httpx.Response] | None = None
        self.enforces_policies = True  # the network: a pod that a NetworkPolicy selects takes no direct connection
        self.through = 204  # what the resource server's pods say of their upstream
        self.connected: list[tuple[str, int]] = []  # whom the operator connected to directly
        self.outcomes: dict[Key, Outcome] = {}
        self.reconciles = 0
        self.cluster.before_effect = lambda write: self._effect(before=True, counts=write.kind is not EVENT)
        self.cluster.after_effect = lambda write: self._effect(before=False, counts=write.kind is not EVENT)
        self.cluster.on_change(self._watch, WATCHED)
        self.start()

    # --- the operator's process --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin a process: empty memory, caches filled from the cluster, every key to be looked at."""
        self.cache, self.metrics = Cache(), Metrics()
        self.triggers = Triggers(self.cache, OPERATOR_NAMESPACE, related_by_content(self.cache))
        self.dirty: dict[Key, None] = {}
        self.outcomes = {}
        self.due: dict[Key, float] = {}
        self.failures: dict[Key, int] = {}
        clock = lambda: self.now  # noqa: E731
        events = Recorder(self.cluster, clock, lambda: dt.datetime.fromtimestamp(self.now, dt.UTC))
        self.servers = AuthorizationServers(
            self.cluster,
            self.cache,
            events,
            self.wake,
            connect=self._connect,
            namespace=OPERATOR_NAMESPACE,
            honoured_namespaces=frozenset({OPERATOR_NAMESPACE}),
            clock=clock,
            wall=clock,
            jitter=lambda: 0.5,
            probe_interval=self.probe_interval,
        )
        self.verifier = _Verifier(
            self.wake, clock=clock, wall=clock, sleep=self._sleep, jitter=lambda: 0.5, transport=self._pods()
        )
        self.trials = _Trials(
            self.wake, clock=clock, jitter=lambda: 0.5, connect=self._connect_directly, transport=self._pods()
        )
        entries = LedgerEntries(
            self.cluster,
            self.cache,
            OPERATOR_NAMESPACE,
            uncertain=self.metrics.registration_uncertain.inc,
            wall=clock,
            sleep=self._sleep,
        )
        self.sweep = OrphanSweep(
            self.cluster,
            self.cache,
            Deregistrar(entries),
            events,
            self.wake,
            namespace=OPERATOR_NAMESPACE,
            deletes=self.sweeps,
            metrics=self.metrics,
            clock=clock,
            wall=clock,
            jitter=lambda: 0.5,
        )
        self.reconcile = Reconcile(
            self.cluster,
            self.cache,
            self.servers,
            self.verifier,
            entries,
            events,
            self.settings,
            self.sweep,
            namespace=OPERATOR_NAMESPACE,
            wake=self.wake,
            metrics=self.metrics,
            checks=ClientChecks(clock=clock, jitter=self.look_jitter),
            trials=self.trials,
            wall=clock,
            clock=clock,
        )
        for kind, selector in WATCHED.items():
            for obj in self.cluster.objects(kind, selector=selector):
                self.cache.put(kind, obj)
        for kind in (AUTHORIZATION_SERVER, *OWNERS.values(), SECRET):
            for entry in self.cache.all(kind):
                self.dirty |= dict.fromkeys(self.triggers.keys_for(entry))
        self.dirty[Key(SWEEP, OPERATOR_NAMESPACE, "orphans")] = None

    def restart(self) -> None:
        """After a kill, or instead of a clean end."""
        self.kill_before = self.kill_after = None
        self.killed = False
        self.start()

    def kill_at(self, effect: int, *, after: bool) -> None:
        """End the process at this effect (counted from 1, from now on), before or after it takes place."""
        self.effects = 0
        self.kill_before, self.kill_after = (None, effect) if after else (effect, None)

    def _effect(self, *, before: bool, counts: bool = True) -> None:
        if not counts:
            return
        if before:
            self.effects += 1
            if self.effects == self.kill_before:
                self.killed = True
        elif self.effects == self.kill_after:
            self.killed = True
        if self.killed:  # a dead process has no further effects
            raise Killed

    # --- driving it --------------------------------------------------------------------------------------------------

    def wake(self, key: Key) -> None:
        self.dirty[key] = None

    async def settle(self) -> None:
        """Work until nothing is left to do at this moment, proofs included. Outcomes are kept in `outcomes`."""
        for _ in range(self.patience):
            self._kubelet()
            if not self.dirty:
                tasks = self.verifier.tasks or self.trials.tasks
                if not tasks:
                    return
                await tasks.pop()
                continue
            key = next(iter(self.dirty))
            del self.dirty[key]
            await self._pass(key)
            if self.killed:
                await asyncio.gather(*self.verifier.tasks, *self.trials.tasks, return_exceptions=True)
                raise Killed
        raise AssertionError(f"the operator does not settle; still to do: {list(self.dirty)}, outcomes {self.outcomes}")

    async def _pass(self, key: Key) -> None:
        self.reconciles += 1
        self.outcomes.pop(key, None)
        self.due.pop(key, None)
        delay: float | None
        try:
            delay = await self.reconcile.reconcile(key)
            assert delay is None or delay > 0, f"{key} would be looked at again and again, without a pause"
            self.failures.pop(key, None)
        except Conflict:
            self.wake(key)
            return
        except Outcome as outcome:
            self.outcomes[key] = outcome
            delay = self._retry(key, outcome)
        if delay is not None:
            self.due[key] = self.now + delay

    def _retry(self, key: Key, outcome: Outcome) -> float:
        """When the workers look again (workers.py), without their jitter."""
        return min(self._backoff(key, outcome), outcome.at_latest or float("inf"))

    def _backoff(self, key: Key, outcome: Outcome) -> float:
        if isinstance(outcome, UserMustEdit):
            return 3600.0
        if isinstance(outcome, AdministratorMustAct):
            return 60.0
        self.failures[key] = self.failures.get(key, 0) + 1
        backoff = min(0.2 * 2.0 ** min(self.failures[key], 20), 300.0)
        return max(backoff, outcome.retry_after or 0.0) if isinstance(outcome, Wait) else backoff

    async def later(self, seconds: float) -> None:
        """Let time pass: keys are looked at when their time comes, as the queue's delays have it, and not before."""
        until = self.now + seconds
        await self.settle()
        while due := [(time, key) for key, time in self.due.items() if time <= until]:
            time, key = min(due)
            self.now = max(self.now, time)
            self.wake(key)
            await self.settle()
        self.now = max(self.now, until)

    async def recover(self) -> None:
        """Let as much time pass as any retry of this world can need."""
        await self.later(310.0)

    # --- what the rest of the world does -----------------------------------------------------------------------------

    def add(self, body: dict[str, Any]) -> dict[str, Any]:
        """kubectl apply."""
        return self.cluster.insert(OWNERS[body["kind"]], body)

    def _watch(self, kind: Kind, type_: str, obj: dict[str, Any]) -> None:
        before = self.cache.get(kind, obj["metadata"].get("namespace"), obj["metadata"]["name"])
        changed = self.cache.remove(kind, obj) if type_ == "DELETED" else self.cache.put(kind, obj)
        after = self.cache.get(kind, obj["metadata"].get("namespace"), obj["metadata"]["name"])
        if changed:
            self.dirty |= dict.fromkeys(sorted(self.triggers.keys_for(before, after)))

    def _kubelet(self) -> None:
        """Deployments become what they say, with one ready pod per replica; dead owners' children go."""
        self.cluster.collect_garbage()
        if not self.kubelet_runs:
            return
        for deployment in self.cluster.objects(DEPLOYMENT):
            self._run(deployment)

    def _run(self, deployment: dict[str, Any]) -> None:
        meta, spec = deployment["metadata"], deployment["spec"]
        replicas = spec.get("replicas", 1)
        status = {
            "observedGeneration": meta["generation"],
            "replicas": replicas,
            "updatedReplicas": replicas,
            "availableReplicas": replicas,
        }
        if deployment.get("status") != status:
            self._replace_pods(deployment, replicas)
            self.cluster.set_status(DEPLOYMENT, meta["namespace"], meta["name"], status)

    def _replace_pods(self, deployment: dict[str, Any], replicas: int) -> None:
        meta, template = deployment["metadata"], deployment["spec"]["template"]
        prefix = f"{meta['name']}-"
        for pod in self.cluster.objects(POD, meta["namespace"]):
            if pod["metadata"]["name"].startswith(prefix):
                self.cluster.remove(POD, meta["namespace"], pod["metadata"]["name"])
        for index in range(replicas):
            self.cluster.insert(
                POD,
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "metadata": {
                        "name": f"{prefix}{meta['generation']}-{index}",
                        "namespace": meta["namespace"],
                        "labels": template["metadata"]["labels"],
                    },
                    "spec": template["spec"],
                },
                status={"podIP": f"10.0.0.{index + 1}", "conditions": [{"type": "Ready", "status": "True"}]},
            )

    async def _sleep(self, seconds: float) -> None:
        self.now += seconds

    def _connect(self, name: str, rates: Rates, ca_bundle: str | None, /) -> Remote:
        self.trusted.append(ca_bundle)
        clock = lambda: self.now  # noqa: E731
        if self.real:
            # As Remote's own: no connection is used twice.
            limits = httpx.Limits(max_keepalive_connections=0)
            network = httpx.AsyncHTTPTransport(limits=limits, verify=_tls())
            return Remote(name, transport=_Counted(network, self._effect))
        return Remote(
            name,
            transport=_Counted(self.server.transport(), self._effect),
            limits=Limits(
                rate=rates.requests_per_second,
                burst=rates.burst,
                concurrency=rates.concurrency,
                clock=clock,
                sleep=self._sleep,
            ),
            breaker=Breaker(clock=clock, jitter=lambda: 0.0),
            clock=clock,
        )

    async def _connect_directly(self, ip: str, port: int) -> None:
        self.connected.append((ip, port))
        for policy in self.cluster.objects(NETWORK_POLICY) if self.enforces_policies else ():
            wanted = policy["spec"]["podSelector"].get("matchLabels") or {}
            for pod in self.cluster.objects(POD, policy["metadata"]["namespace"]):
                if pod["status"].get("podIP") == ip and wanted.items() <= (pod["metadata"].get("labels") or {}).items():
                    raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")

    def _pods(self) -> httpx.MockTransport:
        def answer(request: httpx.Request) -> httpx.Response:
            if request.url.port == MANAGEMENT_PORT:
                return httpx.Response(self.through)
            if self.pod_answers is not None:
                return self.pod_answers(request)
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            if token and self.server.is_active(token):
                return httpx.Response(204)
            return httpx.Response(401, headers={"WWW-Authenticate": 'Bearer realm="test"'})

        return httpx.MockTransport(answer)

    # --- asking it ---------------------------------------------------------------------------------------------------

    def service(self, name: str = "orders", namespace: str = "tenant") -> dict[str, Any]:
        return self.cluster.read(PROTECTED_SERVICE, namespace, name)

    def condition(self, name: str, type_: str, namespace: str = "tenant") -> tuple[str, str] | None:
        """(status, reason) of a ProtectedService's condition."""
        return condition(self.service(name, namespace), type_)

    def message(self, name: str, type_: str, namespace: str = "tenant") -> str:
        conditions = self.service(name, namespace)["status"]["conditions"]
        return str(next(c["message"] for c in conditions if c["type"] == type_))

    def server_condition(self, type_: str) -> tuple[str, str] | None:
        return condition(self.cluster.read(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default"), type_)

    def ledger(self, uid: str) -> Entry | None:
        found = [
            s for s in self.cluster.objects(SECRET, OPERATOR_NAMESPACE) if s["metadata"]["name"] == secret_name(uid)
        ]
        return Entry.from_secret(found[0]) if found else None

    def ledgers(self) -> list[Entry]:
        names = [
            s for s in self.cluster.objects(SECRET, OPERATOR_NAMESPACE) if s["metadata"]["name"].startswith("psvc-")
        ]
        return [Entry.from_secret(secret) for secret in names]

    def credentials(self, name: str = "orders-oauth2-client", namespace: str = "tenant") -> dict[str, str]:
        """The tenant's Secret, decoded."""
        data = self.cluster.read(SECRET, namespace, name)["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    def events(self) -> list[tuple[str, str]]:
        """(reason, message) of all Events."""
        return [(event["reason"], event["message"]) for event in self.cluster.objects(EVENT)]

    def writes(self) -> list[Write]:
        """All that was written, Events excepted."""
        return [write for write in self.cluster.writes if write.kind is not EVENT]

    @property
    def uncertain(self) -> int:
        """Attempts that the ledger or the operator counted as perhaps leaking a client."""
        return int(self.metrics.registration_uncertain._value.get())


@functools.cache
def _tls() -> ssl.SSLContext:
    """Read once: it takes longer than all calls of a pass."""
    return ssl.create_default_context()


class _Counted(httpx.AsyncBaseTransport):
    """Makes every request to the authorization server that changes something an effect."""

    def __init__(self, inner: httpx.AsyncBaseTransport, effect: Callable[..., None]) -> None:
        self._inner, self._effect = inner, effect

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        counts = request.method != "GET"
        self._effect(before=True, counts=counts)
        response = await self._inner.handle_async_request(request)
        try:
            self._effect(before=False, counts=counts)
        except Killed:
            await response.aclose()  # the kernel would
            raise
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


def condition(body: dict[str, Any], type_: str) -> tuple[str, str] | None:
    """(status, reason) of an object's condition."""
    for item in body.get("status", {}).get("conditions", ()):
        if item["type"] == type_:
            return item["status"], item["reason"]
    return None


def registration_secret(token: str, **more: str) -> dict[str, Any]:
    """The Secret that AuthorizationServer `default` refers to."""
    content = {"token": token, **more}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "authorization-server-registration", "namespace": OPERATOR_NAMESPACE},
        "type": "Opaque",
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in content.items()},
    }


__all__ = ["Killed", "Wait", "World", "condition", "registration_secret"]
