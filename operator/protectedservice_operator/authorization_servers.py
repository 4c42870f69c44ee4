"""The authorization servers that AuthorizationServer objects describe: connection, probe, status.

One connection per object, remade when its spec or its registration credential changes. Each is probed every 30 s (the
only calls in steady state); what the probe finds goes to the object's status, and services plan from that status, so
that an operator that just started knows what its predecessor knew and calls nobody.

An outage wakes nobody up: services that wait for the server are parked here and released when the breaker closes, the
credential changes, or the status flips back.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from . import reasons
from .authorization_server import AuthorizationServer, Endpoints, Rates
from .authorization_server_status import (
    concerns_services,
    exposure,
    find_refusal,
    replacing,
    server_condition,
    spelt_capabilities,
    still_known,
)
from .cache import Cache
from .census import Census
from .cluster_api import ClusterApi
from .conditions import Condition, find_condition, is_true, merge_conditions
from .errors import AdministratorMustAct, NotFound, Outcome, ServerUnavailable, Wait
from .events import EventType, Recorder
from .registrant import registrants
from .registration import trust
from .registration.credential import Credential
from .registration.discovery import discover
from .registration.driver import Driver
from .registration.kinds import (
    admin_api_exposed,
    check_credential,
    make_driver,
    make_token_endpoint,
    required_endpoints,
)
from .registration.limits import Limits
from .registration.remote import Observe, Remote
from .registration.token import TokenEndpoint
from .resource import AUTHORIZATION_SERVER, SECRET, Key, Reference

logger = logging.getLogger(__name__)

PROBE_INTERVAL: Final = 30.0  # seconds (design: probed every 30 s)
FIRST_RETRY: Final = 2.0  # seconds until the second probe of a server that did not answer; doubles up to the interval
TRIAL_INTERVAL: Final = 60.0  # seconds between registrations tried with a credential that was refused
COUNT_INTERVAL: Final = 60.0  # seconds: status.registeredClients is written at most this often


class Wake(Protocol):
    """Puts a key into the work queue."""

    def __call__(self, key: Key) -> None: ...


class Connect(Protocol):
    """Makes the door to one authorization server; `name` is how messages call it."""

    def __call__(self, name: str, rates: Rates, ca_bundle: str | None, /) -> Remote: ...


def connect(name: str, rates: Rates, ca_bundle: str | None, /, *, observe: Observe | None = None) -> Remote:
    """Over the network. `ca_bundle`: the certificates to trust (PEM); `observe` receives the figures of each call."""
    limits = Limits(rate=rates.requests_per_second, burst=rates.burst, concurrency=rates.concurrency)
    verify = None if ca_bundle is None else trust.context(ca_bundle)
    return Remote(name, limits=limits, observe=observe, verify=verify)


@dataclass
class Connection:
    """One authorization server, ready to be talked to."""

    fingerprint: str
    remote: Remote
    endpoints: Endpoints
    driver: Driver
    tokens: TokenEndpoint


@dataclass
class _State:
    """What is remembered about one AuthorizationServer object between passes."""

    connection: Connection | None = None
    credential_digest: str | None = None
    ca_bundle: str | None = None  # as read last
    obstacle: Outcome | None = None  # why there is no connection
    refused: Outcome | None = None  # the registration credential was refused
    next_trial: float = 0.0
    failures: int = 0
    counted: float = float("-inf")
    parked: set[Key] = field(default_factory=set)


class AuthorizationServers:
    """All of them. `clock` is monotonic seconds, `wall` seconds since the epoch."""

    def __init__(
        self,
        cluster: ClusterApi,
        cache: Cache,
        events: Recorder,
        wake: Wake,
        *,
        connect: Connect = connect,
        namespace: str,
        honoured_namespaces: frozenset[str],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
        probe_interval: float = PROBE_INTERVAL,
    ) -> None:
        self._cluster, self._cache, self._events, self._wake = cluster, cache, events, wake
        self._connect, self._honoured = connect, honoured_namespaces
        self._clock, self._wall, self._jitter, self._interval = clock, wall, jitter, probe_interval
        self._states: dict[Reference, _State] = {}
        self._census = Census(cache, namespace)

    async def aclose(self) -> None:
        """Close all connections."""
        for state in self._states.values():
            await self._disconnect(state)

    # --- what services ask -------------------------------------------------------------------------------------------

    def unreachable(self, server: AuthorizationServer) -> Outcome | None:
        """Why the server must not be called now, from its status and its breaker; None: go ahead."""
        condition = find_condition(server.status.get("conditions") or (), reasons.REACHABLE)
        name = f"AuthorizationServer {server.reference}"
        if condition is None:
            return Wait(reasons.NOT_PROBED, f"{name} has not been probed yet")
        if condition["status"] != "True":
            text = f"{name} does not answer; see its conditions; work goes on by itself when it does"
            return ServerUnavailable(reasons.UNREACHABLE, text, retry_after=self._interval)
        return None

    def refused(self, server: AuthorizationServer) -> Outcome | None:
        """Why no new client can be registered now; every minute one trial may be claimed."""
        state = self._state(server)
        if state.obstacle is not None:
            return state.obstacle
        if state.refused is None or self._clock() >= state.next_trial:
            return None
        return state.refused

    def ca_bundle(self, server: AuthorizationServer) -> str | None:
        """The certificates (PEM) to trust with this server, as last read; None: it names none, or `learn` first."""
        state = self._states.get(server.reference)
        return state.ca_bundle if state is not None and server.ca_bundle is not None else None

    async def learn(self, server: AuthorizationServer | None) -> None:
        """Read the certificates of a server that names some, unless they were read before; it is not called.

        Certificates that cannot be used are told by the server's own conditions, not here.
        """
        if server is None or server.ca_bundle is None or server.reference.namespace not in self._honoured:
            return
        state = self._state(server)
        if state.ca_bundle is None:
            try:
                await self._trust(server, state)
            except AdministratorMustAct as unusable:
                logger.debug("%s", unusable)

    def park(self, server: AuthorizationServer, key: Key) -> None:
        """Wake this key when the server can be asked again."""
        self._state(server).parked.add(key)

    def _state(self, server: AuthorizationServer) -> _State:
        """What is remembered; after a start, that the last process was refused."""
        state = self._states.get(server.reference)
        if state is None:
            state = self._states[server.reference] = _State()
            if (refusal := find_refusal(server)) is not None:
                state.refused = AdministratorMustAct(refusal["reason"], refusal["message"])
                state.next_trial = self._clock() + TRIAL_INTERVAL
        return state

    async def connection(self, server: AuthorizationServer) -> Connection:
        """The connection, made now if need be, without calling the authorization server.

        Only registering needs the registration credential: without one there is a connection all the same. Raises Wait
        when the server was never probed.
        """
        state = self._state(server)
        if state.connection is None:
            endpoints = server.published_endpoints
            if endpoints is None:
                raise Wait(reasons.NOT_PROBED, f"AuthorizationServer {server.reference} has not been probed yet")
            await self._trust(server, state)
            await self._open(server, state, endpoints, await self._credential(server, state))
        if state.connection is None:  # pragma: no cover (opened just now)
            raise Wait(reasons.NOT_PROBED, f"AuthorizationServer {server.reference} is being connected")
        return state.connection

    def registration_refused(self, server: AuthorizationServer, outcome: AdministratorMustAct) -> None:
        """Take in that the server refused our registration credential: its status must say so."""
        state = self._state(server)
        state.refused, state.next_trial = outcome, self._clock() + TRIAL_INTERVAL
        self._wake(server.key)

    def claim_trial(self, server: AuthorizationServer) -> None:
        """Before a registration is sent: after a refusal, only one at a time may find out whether that has changed.

        Raises the refusal for everybody else.
        """
        state = self._state(server)
        if state.refused is not None:
            if self._clock() < state.next_trial:
                raise state.refused
            state.next_trial = self._clock() + TRIAL_INTERVAL

    def registration_accepted(self, server: AuthorizationServer) -> None:
        """Take in that a registration went through: whatever waited for that may go on."""
        state = self._state(server)
        if state.refused is not None or find_refusal(server) is not None:
            state.refused = None
            self._release(state)
            self._wake(server.key)

    def suspected(self, server: AuthorizationServer) -> None:
        """Take in that a call failed: probe now rather than at the next turn."""
        if is_true(server.status.get("conditions") or (), reasons.REACHABLE):
            self._wake(server.key)

    # --- one pass over an AuthorizationServer ------------------------------------------------------------------------

    async def reconcile(self, key: Key) -> float | None:
        """Probe, connect, publish. Returns the seconds until the next probe; None when the object is gone."""
        reference = Reference(key.namespace, key.name)
        cached = self._cache.get(AUTHORIZATION_SERVER, key.namespace, key.name)
        if cached is None or reference.namespace not in self._honoured:
            if (state := self._states.pop(reference, None)) is not None:
                await self._disconnect(state)
            self._wake_services(reference)
            return None
        server = AuthorizationServer.parse(cached.body())
        state = self._state(server)
        if state.connection is not None and (held_back := state.connection.remote.breaker.retry_after):
            return held_back  # nothing would be sent, so nothing would be learnt
        endpoints, reachable, ready = await self._probe(server, state)
        await self._publish(server, state, endpoints, reachable, ready)
        return self._delay(state)

    async def _probe(
        self, server: AuthorizationServer, state: _State
    ) -> tuple[Endpoints | None, Outcome | None, Outcome | None]:
        """(endpoints or None, why not reachable, why not ready)."""
        try:
            await self._trust(server, state)
        except AdministratorMustAct as unusable:
            await self._disconnect(state)
            return server.published_endpoints, unusable, unusable
        credential = await self._credential(server, state)
        remote = state.connection.remote if state.connection else self._remote(server)
        try:
            endpoints = await discover(
                remote,
                server.issuer,
                server.endpoints,
                allow_insecure_http=server.allow_insecure_http,
                required=required_endpoints(server),
            )
        except Outcome as outcome:
            state.failures += isinstance(outcome, ServerUnavailable)
            return server.published_endpoints, outcome, outcome
        finally:
            if state.connection is None:
                await remote.aclose()
        state.failures = 0
        await self._open(server, state, endpoints, credential)
        return endpoints, None, state.obstacle or state.refused

    async def _trust(self, server: AuthorizationServer, state: _State) -> None:
        """Read the certificates to trust, live each time; others than before mean another connection, at once.

        Raises AdministratorMustAct when they cannot be used.
        """
        source, before = server.ca_bundle, state.ca_bundle
        if source is None:
            state.ca_bundle = None
        else:
            body = await self._cluster.get(source.kind, server.meta.namespace, source.name)
            place = f"{source.kind} {server.meta.namespace}/{source.name} (spec.tls.caBundle)"
            if body is None:
                fault = "does not exist; create it with the certificates to trust"
            elif (value := (body.get("data") or {}).get(source.key)) is None:
                fault = f"has no key {source.key}; add it with the certificates to trust"
            else:
                text = b64decode(value).decode("ascii", errors="replace") if source.kind is SECRET else value
                try:
                    state.ca_bundle, fault = trust.certificates(text), None
                except ValueError as unusable:
                    fault = f"key {source.key} {unusable}"
            if fault is not None:
                raise AdministratorMustAct(reasons.CA_BUNDLE_UNUSABLE, f"{place} {fault}")
        if state.ca_bundle != before:
            await self._disconnect(state)
            self._wake_services(server.reference)

    async def _credential(self, server: AuthorizationServer, state: _State) -> Credential | None:
        """The registration credential, read live each time: a corrected Secret must not wait for a watch.

        None where there is none that could be used; `state.obstacle` says why, and who waited for one is released.
        """
        secret = None
        if server.credentials_secret is not None:
            secret = await self._cluster.get(SECRET, server.meta.namespace, server.credentials_secret)
        credential = Credential.of(secret)
        try:
            check_credential(server, credential, exists=secret is not None)
        except AdministratorMustAct as unusable:
            state.obstacle = unusable
            return None
        if state.obstacle is not None:
            state.obstacle = None
            self._release(state)
        return credential

    async def _open(
        self, server: AuthorizationServer, state: _State, endpoints: Endpoints, credential: Credential | None
    ) -> None:
        digest = (credential or Credential()).digest()
        content = f"{server.meta.uid} {server.meta.generation} {endpoints} {digest} {self.ca_bundle(server)}"
        fingerprint = hashlib.sha256(content.encode()).hexdigest()
        if state.connection is not None and state.connection.fingerprint == fingerprint:
            return
        if state.credential_digest not in (None, digest):
            state.refused = None  # another credential has not been refused
        state.credential_digest = digest
        remote = self._remote(server)
        try:
            driver = make_driver(server, remote, endpoints, credential or Credential())
        except AdministratorMustAct as unusable:
            # A kind whose every call needs the credential: an older connection is better than none.
            state.obstacle = unusable
            await remote.aclose()
            if state.connection is None:
                raise
            return
        await self._disconnect(state)
        remote.breaker.on_close = lambda: self._release(state)
        tokens = make_token_endpoint(server, remote, endpoints)
        state.connection = Connection(fingerprint, remote, endpoints, driver, tokens)
        self._release(state)

    def _remote(self, server: AuthorizationServer) -> Remote:
        return self._connect(_name(server), server.rates, self.ca_bundle(server))

    async def _disconnect(self, state: _State) -> None:
        if state.connection is not None:
            await state.connection.remote.aclose()
            state.connection = None

    def _release(self, state: _State) -> None:
        parked, state.parked = state.parked, set()
        for key in parked:
            self._wake(key)

    def _delay(self, state: _State) -> float:
        if state.failures:
            return min(FIRST_RETRY * 2.0 ** (state.failures - 1), self._interval) * (0.8 + 0.2 * self._jitter())
        return self._interval * (0.9 + 0.1 * self._jitter())

    # --- status ------------------------------------------------------------------------------------------------------

    async def _publish(
        self,
        server: AuthorizationServer,
        state: _State,
        endpoints: Endpoints | None,
        unreachable: Outcome | None,
        unready: Outcome | None,
    ) -> None:
        old = server.status
        conditions = [
            server_condition(
                server, reasons.REACHABLE, unreachable, reasons.REACHABLE_NOW, "answers its metadata request"
            ),
            server_condition(
                server, reasons.READY, unready, reasons.READY_NOW, "answers and has our registration credential"
            ),
        ]
        if endpoints is not None and (exposed := admin_api_exposed(server, endpoints)) is not None:
            conditions.append(exposure(server, exposed))
        if (known := still_known(server, endpoints)) is not None:
            conditions.append(known)
        status: dict[str, Any] = {
            "observedGeneration": server.meta.generation,
            "conditions": merge_conditions(old.get("conditions") or (), conditions, self._wall()),
            "registeredClients": self._count(server, state),
        }
        if endpoints is not None:
            status["endpoints"] = endpoints.to_status()
        capabilities = state.connection.driver.capabilities if state.connection else None
        status["capabilities"] = spelt_capabilities(capabilities) if capabilities else old.get("capabilities") or {}
        if status == {key: old.get(key) for key in status} and status.keys() >= old.keys():
            return
        # Keys that went away are removed by name: this is a merge patch.
        gone = {key: None for key in old if key not in status}
        patch = {"metadata": {"uid": server.meta.uid}, "status": {**gone, **replacing(old, status)}}
        try:
            body = await self._cluster.patch(
                AUTHORIZATION_SERVER, server.meta.namespace, server.meta.name, patch, subresource="status"
            )
        except NotFound:
            return
        self._cache.put(AUTHORIZATION_SERVER, body)
        await self._tell(server, old, conditions)
        if concerns_services(old, status):
            self._wake_services(server.reference)

    async def _tell(self, server: AuthorizationServer, old: Mapping[str, Any], conditions: list[Condition]) -> None:
        tell = self._events.about(AUTHORIZATION_SERVER, server.meta)
        for condition in conditions:
            before = find_condition(old.get("conditions") or (), condition["type"])
            if before is not None and before["status"] == condition["status"]:
                continue
            good = "False" if condition["type"] == reasons.ADMIN_API_EXPOSED else "True"
            type_: EventType = "Normal" if condition["status"] == good else "Warning"
            logger.log(
                logging.INFO if type_ == "Normal" else logging.WARNING,
                "AuthorizationServer %s: %s is %s: %s",
                server.reference,
                condition["type"],
                condition["status"],
                condition["message"],
            )
            await tell(type_, condition["reason"], condition["message"])

    def _count(self, server: AuthorizationServer, state: _State) -> int:
        """Clients in the ledger; counted at most once a minute, because each new figure is a write."""
        if (old := server.status.get("registeredClients")) is not None and (
            self._clock() - state.counted < COUNT_INTERVAL
        ):
            return int(old)
        state.counted = self._clock()
        return self._census.clients(server.reference)

    def _wake_services(self, reference: Reference) -> None:
        """All objects that use this server look again: it came, went, moved, or allows others."""
        for service in registrants(self._cache):
            if reference in (service.server, service.recorded_server) or service.server is None:
                self._wake(service.key)


def _name(server: AuthorizationServer) -> str:
    return f"AuthorizationServer {server.reference}"
