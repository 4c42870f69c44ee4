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
import datetime as dt
from collections.abc import Callable
from typing import Any

import httpx

from protectedservice_operator.authorization_servers import AuthorizationServers
from protectedservice_operator.cache import Cache
from protectedservice_operator.errors import Conflict, Outcome, Wait
from protectedservice_operator.events import Recorder
from protectedservice_operator.metrics import Metrics
from protectedservice_operator.observed import Settings
from protectedservice_operator.reconcile import Reconcile
from protectedservice_operator.registration.breaker import Breaker
from protectedservice_operator.registration.ledger import Entry, secret_name
from protectedservice_operator.registration.limits import Limits
from protectedservice_operator.registration.registrar import Registrar
from protectedservice_operator.registration.remote import Remote
from protectedservice_operator.resource import (
    AUTHORIZATION_SERVER,
    DEPLOYMENT,
    EVENT,
    POD,
    PROTECTED_SERVICE,
    SECRET,
    WATCHED,
    Key,
    Kind,
    Rates,
    Reference,
)
from protectedservice_operator.triggers import Triggers, readers_of_secrets
from protectedservice_operator.verification import Subject, Verifier

from .fake_authorization_server import FakeAuthorizationServer
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


class World:
    """See the module."""

    def __init__(self, *, idempotency_honoured: bool = True, settings: dict[str, Any] | None = None) -> None:
        self.now = START
        self.cluster = FakeCluster(lambda: dt.datetime.fromtimestamp(self.now, dt.UTC))
        for namespace in (OPERATOR_NAMESPACE, "tenant", "other"):
            self.cluster.add_namespace(namespace)
        self.server = FakeAuthorizationServer(idempotency_honoured=idempotency_honoured, now=lambda: self.now)
        self.cluster.insert(SECRET, registration_secret(self.server.initial_access_token))
        declared = {"idempotencyKey": "Honoured" if idempotency_honoured else "Ignored"}
        registration = {
            "dynamicClientRegistration": declared,
            "credentialsSecret": {"name": "authorization-server-registration"},
        }
        self.cluster.insert(AUTHORIZATION_SERVER, authorization_server(registration=registration))
        self.settings = Settings(
            cluster_id="cluster",
            server_image="protectedservice/resource-server:test",
            honoured_namespaces=frozenset({OPERATOR_NAMESPACE}),
            default_server=Reference(OPERATOR_NAMESPACE, "default"),
            **(settings or {}),
        )
        self.trusted: list[str | None] = []  # certificates that connections were made with
        self.effects = 0
        self.kill_before: int | None = None
        self.kill_after: int | None = None
        self.killed = False
        self.kubelet_runs = True
        self.pod_answers: Callable[[httpx.Request], httpx.Response] | None = None
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
        self.triggers = Triggers(self.cache, OPERATOR_NAMESPACE, readers_of_secrets(self.cache))
        self.dirty: dict[Key, None] = {}
        self.outcomes = {}
        clock = lambda: self.now  # noqa: E731
        events = Recorder(self.cluster, clock, lambda: dt.datetime.fromtimestamp(self.now, dt.UTC))
        self.servers = AuthorizationServers(
            self.cluster,
            self.cache,
            events,
            self.wake,
            connect=self._connect,
            honoured_namespaces=frozenset({OPERATOR_NAMESPACE}),
            clock=clock,
            wall=clock,
            jitter=lambda: 0.5,
        )
        self.verifier = _Verifier(
            self.wake, clock=clock, wall=clock, sleep=self._sleep, jitter=lambda: 0.5, transport=self._pods()
        )
        registrar = Registrar(
            self.cluster,
            self.cache,
            OPERATOR_NAMESPACE,
            uncertain=self.metrics.registration_uncertain.inc,
            wall=clock,
            sleep=self._sleep,
        )
        self.reconcile = Reconcile(
            self.cluster,
            self.cache,
            self.servers,
            self.verifier,
            registrar,
            events,
            self.settings,
            namespace=OPERATOR_NAMESPACE,
            wake=self.wake,
            metrics=self.metrics,
            wall=clock,
            clock=clock,
        )
        for kind, selector in WATCHED.items():
            for obj in self.cluster.objects(kind, selector=selector):
                self.cache.put(kind, obj)
        for kind in (AUTHORIZATION_SERVER, PROTECTED_SERVICE, SECRET):
            for entry in self.cache.all(kind):
                self.dirty |= dict.fromkeys(self.triggers.keys_for(entry))

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
        for _ in range(PASS_LIMIT):
            self._kubelet()
            if not self.dirty:
                if not self.verifier.tasks:
                    return
                await self.verifier.tasks.pop()
                continue
            key = next(iter(self.dirty))
            del self.dirty[key]
            await self._pass(key)
            if self.killed:
                await asyncio.gather(*self.verifier.tasks, return_exceptions=True)
                raise Killed
        raise AssertionError(f"the operator does not settle; still to do: {list(self.dirty)}, outcomes {self.outcomes}")

    async def _pass(self, key: Key) -> None:
        self.reconciles += 1
        self.outcomes.pop(key, None)
        try:
            delay = await self.reconcile.reconcile(key)
            assert delay is None or delay > 0, f"{key} would be looked at again and again, without a pause"
        except Conflict:
            self.wake(key)
        except Outcome as outcome:
            self.outcomes[key] = outcome

    async def later(self, seconds: float) -> None:
        """Let time pass, then look at everything again, as the queue's delays would."""
        self.now += seconds
        for kind in (AUTHORIZATION_SERVER, PROTECTED_SERVICE, SECRET):
            for entry in self.cache.all(kind):
                self.dirty |= dict.fromkeys(self.triggers.keys_for(entry))
        await self.settle()

    async def recover(self) -> None:
        """Let as much time pass as any retry of this world can need, step by step."""
        await self.settle()
        for _ in range(6):
            await self.later(31.0)

    # --- what the rest of the world does -----------------------------------------------------------------------------

    def add(self, body: dict[str, Any]) -> dict[str, Any]:
        """kubectl apply."""
        return self.cluster.insert(PROTECTED_SERVICE, body)

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

    def _pods(self) -> httpx.MockTransport:
        def answer(request: httpx.Request) -> httpx.Response:
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


class _Counted(httpx.AsyncBaseTransport):
    """Makes every request to the authorization server that changes something an effect."""

    def __init__(self, inner: httpx.AsyncBaseTransport, effect: Callable[..., None]) -> None:
        self._inner, self._effect = inner, effect

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        counts = request.method != "GET"
        self._effect(before=True, counts=counts)
        response = await self._inner.handle_async_request(request)
        self._effect(before=False, counts=counts)
        return response


def condition(body: dict[str, Any], type_: str) -> tuple[str, str] | None:
    """(status, reason) of an object's condition."""
    for item in body.get("status", {}).get("conditions", ()):
        if item["type"] == type_:
            return item["status"], item["reason"]
    return None


def registration_secret(token: str) -> dict[str, Any]:
    """The Secret that AuthorizationServer `default` refers to."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "authorization-server-registration", "namespace": OPERATOR_NAMESPACE},
        "type": "Opaque",
        "data": {"token": base64.b64encode(token.encode()).decode()},
    }


__all__ = ["Killed", "Wait", "World", "condition", "registration_secret"]
