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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

from . import reasons
from .authorization_server import AuthorizationServer, Endpoints
from .authorization_server_connection import Connect, Connection, connect, read_authorities
from .authorization_server_reports import Reports
from .authorization_server_status import (
    ending_because,
    find_refusal,
    says,
)
from .cache import Cache
from .census import Census
from .cluster_api import ClusterApi
from .conditions import find_condition, is_true
from .errors import AdministratorMustAct, Outcome, ServerUnavailable, Wait
from .events import Recorder
from .registrant import registrants
from .registration.credential import Credential
from .registration.discovery import discover
from .registration.kinds import (
    check_credential,
    make_driver,
    make_token_endpoint,
    required_endpoints,
)
from .registration.remote import Remote
from .resource import AUTHORIZATION_SERVER, SECRET, Key, Meta, Reference

logger = logging.getLogger(__name__)

PROBE_INTERVAL: Final = 30.0  # seconds (design: probed every 30 s)
FIRST_RETRY: Final = 2.0  # seconds until the second probe of a server that did not answer; doubles up to the interval
TRIAL_INTERVAL: Final = 60.0  # seconds between registrations tried with a credential that was refused


class Wake(Protocol):
    """Puts a key into the work queue."""

    def __call__(self, key: Key) -> None: ...


@dataclass
class _State:
    """What is remembered about one AuthorizationServer object between passes."""

    connection: Connection | None = None
    credential_digest: str | None = None
    credential: tuple[str, Credential] | None = None  # the last one that could be used, and the object's uid
    ca_bundle: str | None = None  # as read last
    obstacle: Outcome | None = None  # why there is no connection
    registrations: int = 0  # under way
    refused: Outcome | None = None  # the registration credential was refused
    next_trial: float = 0.0
    failures: int = 0
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
        self._cluster, self._cache, self._wake = cluster, cache, wake
        self._connect, self._honoured = connect, honoured_namespaces
        self._clock, self._jitter, self._interval = clock, jitter, probe_interval
        self._states: dict[Reference, _State] = {}
        self._reports = Reports(cluster, cache, events, Census(cache, namespace), clock=clock, wall=wall)

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

    @contextmanager
    def registering(self, server: AuthorizationServer) -> Iterator[None]:
        """While a client is asked for: an AuthorizationServer that is deleted meanwhile waits for what becomes of it.

        Raises AdministratorMustAct when it is being deleted already, which the pass may not have seen.
        """
        if self._goes(server):
            text = f"AuthorizationServer {server.reference} is being deleted: nothing is registered there any more"
            raise AdministratorMustAct(reasons.SERVER_DELETED, text)
        state = self._state(server)
        state.registrations += 1
        try:
            yield
        finally:
            state.registrations -= 1
            if self._goes(server):
                self._wake(server.key)

    def _goes(self, server: AuthorizationServer) -> bool:
        cached = self._cache.get(AUTHORIZATION_SERVER, server.meta.namespace, server.meta.name)
        return cached is None or cached.uid != server.meta.uid or Meta.parse(cached.body()).is_going

    def registers(self, server: AuthorizationServer) -> bool:
        """Whether a client is being asked for at this moment."""
        return self._state(server).registrations > 0

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

    async def reconcile(self, key: Key, *, ending: Outcome | None = None) -> float | None:
        """Probe, connect, publish. Returns the seconds until the next probe; None when the object is gone.

        `ending`: what Ready says of one that is being deleted.
        """
        reference = Reference(key.namespace, key.name)
        cached = self._cache.get(AUTHORIZATION_SERVER, key.namespace, key.name)
        if cached is None or reference.namespace not in self._honoured:
            self._reports.forget(reference)
            if (state := self._states.pop(reference, None)) is not None:
                await self._disconnect(state)
            self._wake_services(reference)
            return None
        server = AuthorizationServer.parse(cached.body())
        state = self._state(server)
        told = ending is None or says(server, ending)
        if told and state.connection is not None and (held_back := state.connection.remote.breaker.retry_after):
            return held_back  # nothing would be sent, so nothing would be learnt
        endpoints, reachable, ready = await self._probe(server, state)
        if ending is not None:
            ready = ending_because(ending, ready)
        capabilities = state.connection.driver.capabilities if state.connection else None
        if await self._reports.publish(server, endpoints, reachable, ready, capabilities):
            self._wake_services(server.reference)
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
        before = state.ca_bundle
        try:
            state.ca_bundle = await read_authorities(self._cluster, server)
        except AdministratorMustAct:
            if not server.meta.is_going or before is None:
                raise
            return  # deleted with the same command: what was read before will do until the end
        if state.ca_bundle != before:
            await self._disconnect(state)
            self._wake_services(server.reference)

    async def _credential(self, server: AuthorizationServer, state: _State) -> Credential | None:
        """The registration credential, read live each time: a corrected Secret must not wait for a watch.

        None where there is none that could be used; `state.obstacle` says why, and who waited for one is released. Of
        an AuthorizationServer that is being deleted, the last one that could be used: its Secret goes with it often.
        """
        secret = None
        if server.credentials_secret is not None:
            secret = await self._cluster.get(SECRET, server.meta.namespace, server.credentials_secret)
        credential = Credential.of(secret)
        try:
            check_credential(server, credential, exists=secret is not None)
        except AdministratorMustAct as unusable:
            if server.meta.is_going and state.credential is not None and state.credential[0] == server.meta.uid:
                return state.credential[1]
            state.obstacle = unusable
            return None
        state.credential = (server.meta.uid, credential)
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
            return min(FIRST_RETRY * 2.0 ** min(state.failures - 1, 20), self._interval) * (0.8 + 0.2 * self._jitter())
        return self._interval * (0.9 + 0.1 * self._jitter())

    def _wake_services(self, reference: Reference) -> None:
        """All objects that use this server look again: it came, went, moved, or allows others."""
        for service in registrants(self._cache):
            if reference in (service.server, service.recorded_server) or service.server is None:
                self._wake(service.key)


def _name(server: AuthorizationServer) -> str:
    return f"AuthorizationServer {server.reference}"
