"""Whether an authorization server lets one client introspect another one's token: asked once, told as a condition.

A service's own client mints the token of its proof, so no proof shows whether a caller's token can be introspected.
Keycloak from 26.6.2 on says `active: false` to a client that the token's `aud` does not name. So, once the first
service is registered at a server, a probe client is registered beside it, mints one token, the service's client asks
about it, and the probe client is deleted again. It has a ledger entry like any client, under the AuthorizationServer's
uid.

    condition of this spec and these endpoints? ──yes──> end the probe client, if one is left ──> silence
         │ no
         └──> register ──> mint, ask ──> write the condition ──> delete

What was found stands in status, and holds until spec or the endpoints change (`AuthorizationServers` drops it then): no
restart asks again. Nothing waits for the check, and no service is less ready for what it finds.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from . import reasons
from .authorization_server import AuthorizationServer, RegistrationKind
from .authorization_servers import AuthorizationServers
from .cache import Cache
from .cluster_api import ClusterApi
from .conditions import find_condition, merge_conditions
from .errors import AdministratorMustAct, NotFound, Outcome, Rejected, ServerUnavailable, UserMustEdit
from .events import Recorder
from .gather import ledger_record
from .observed import Settings, is_repeatable
from .plan import INTENT_REST
from .registration.connection import Connection
from .registration.deregistrar import Deregistrar
from .registration.driver import ClientMetadata, Registration, RegistrationRefused
from .registration.ledger import SECRET_PREFIX, Record, State, secret_name
from .registration.ledger_entries import LedgerEntries
from .registration.names import client_name, tag
from .registration.registrar import Registrar
from .registration.token import TokenRefused
from .resource import AUTHORIZATION_SERVER, PROTECTED_SERVICE, SECRET, Key
from .tenancy import OWN_PREFIX

logger = logging.getLogger(__name__)

FIRST_RETRY: Final = 60.0  # seconds after a check that got no answer; doubles
LONGEST_RETRY: Final = 3600.0
NAME: Final = "cross-client check"  # what the probe client is called before its tag
# Reasons that follow from what is known, without a question: looked at anew in each pass.
_PRELIMINARY: Final = frozenset({reasons.NO_CLIENT_YET, reasons.NOBODY_REGISTERS, reasons.CANNOT_DELETE})


@dataclass(frozen=True, slots=True)
class Finding:
    """What the condition is to say."""

    status: str
    reason: str
    message: str


class CrossClientCheck:
    """All checks. `clock` is monotonic seconds, `wall` seconds since the epoch."""

    def __init__(
        self,
        cluster: ClusterApi,
        cache: Cache,
        servers: AuthorizationServers,
        entries: LedgerEntries,
        events: Recorder,
        settings: Settings,
        *,
        namespace: str,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._cluster, self._cache, self._servers, self._entries = cluster, cache, servers, entries
        self._registrar, self._deregistrar = Registrar(entries), Deregistrar(entries)
        self._events, self._settings, self._namespace = events, settings, namespace
        self._clock, self._wall = clock, wall
        self._rests: dict[str, tuple[float, float]] = {}  # uid -> when to try again, and the pause after that

    async def look(self, key: Key) -> None:
        """Whatever is due about this AuthorizationServer. What cannot be done now is left for a later pass."""
        cached = self._cache.get(AUTHORIZATION_SERVER, key.namespace, key.name)
        if cached is None or key.namespace not in self._settings.honoured_namespaces:
            return
        server = AuthorizationServer.parse(cached.body())
        due, pause = self._rests.get(server.meta.uid, (0.0, FIRST_RETRY))
        if self._servers.unreachable(server) is not None:
            return
        if self._clock() < due and not server.meta.is_going:
            return  # one that is being deleted waits for its probe client
        try:
            await self._advance(server)
            self._rests.pop(server.meta.uid, None)
        except RegistrationRefused as refused:
            self._servers.registration_refused(server, refused)
        except (Outcome, NotFound, Rejected) as failure:
            logger.info("The cross-client check of %s is tried again in %.0f s: %s", key, pause, failure)
            self._rests[server.meta.uid] = (self._clock() + pause, min(2 * pause, LONGEST_RETRY))

    async def _advance(self, server: AuthorizationServer) -> None:
        found = None
        if not server.meta.is_going and self._settings.cross_client_check and not _is_settled(server):
            subject = self._subject(server)
            found = _known_beforehand(server, has_client=subject is not None)
            if found is None and subject is not None:
                if self._servers.refused(server) is not None:
                    return
                found = await self._check(server, subject)
                if found is None:
                    return
            if found is not None:
                await self._write(server, found)
        await self._end(server)

    def _subject(self, server: AuthorizationServer) -> Record | None:
        """The client of a service that is to ask; any will do, and the same one as long as it is there."""
        found = []
        for entry in self._cache.all(SECRET):
            if entry.namespace != self._namespace or not entry.name.startswith(SECRET_PREFIX):
                continue
            try:
                record = ledger_record(entry.body())
            except (ValueError, KeyError):
                continue  # not written by us
            serves = record.owner_kind == PROTECTED_SERVICE.kind and record.server == str(server.reference)
            if serves and record.state is State.REGISTERED and _scope(record) is not None:
                found.append(record)
        return min(found, key=lambda record: record.owner_uid, default=None)

    def _probe(self, server: AuthorizationServer) -> Record | None:
        cached = self._cache.get(SECRET, self._namespace, secret_name(server.meta.uid))
        return ledger_record(cached.body()) if cached is not None else None

    # --- the check ---------------------------------------------------------------------------------------------------

    async def _check(self, server: AuthorizationServer, subject: Record) -> Finding | None:
        """Register the probe client, unless it is there, and ask. None: an interrupted attempt is left to rest."""
        connection = await self._servers.connection(server)
        connection.remote.breaker.check()  # before anything is written down
        probe = self._probe(server)
        if probe is not None and probe.state in (State.DELETING, State.ORPHANED):
            await self._end(server)
            if self._probe(server) is not None:
                text = "an earlier probe client could not be deleted: delete it at the server by hand, then its entry"
                return Finding("Unknown", reasons.CHECK_INCONCLUSIVE, text)
            probe = None
        if probe is None or probe.state is not State.REGISTERED:
            try:
                if not await self._register(server, connection, probe, _scope(subject) or ""):
                    return None
            except (RegistrationRefused, ServerUnavailable):
                raise
            except (AdministratorMustAct, UserMustEdit) as refused:
                text = f"no probe client was registered: {refused.message}"
                return Finding("Unknown", reasons.CHECK_INCONCLUSIVE, text)
        own, asking = await self._entries.read(server.meta.uid), await self._entries.read(subject.owner_uid)
        if own is None or own[0].registration is None or asking is None or asking[0].registration is None:
            return None  # it changed meanwhile: looked at again in the next pass
        return await _ask(connection, own[0].registration, asking[0].registration, _scope(subject) or "", server)

    async def _register(
        self, server: AuthorizationServer, connection: Connection, probe: Record | None, scope: str
    ) -> bool:
        attempt, abandoned = None, False
        if probe is not None and probe.state is State.REGISTERING:
            age = self._wall() - probe.attempt_started
            if is_repeatable(server, age):
                attempt = probe.attempt
            elif age < INTENT_REST:
                return False
            else:
                abandoned = True

        def metadata(attempt8: str) -> ClientMetadata:
            meta = server.meta
            mark = tag(self._settings.cluster_id, meta.namespace, meta.name, meta.uid, attempt8)
            method = server.token_authentication
            return ClientMetadata(client_name(NAME, mark), (scope,), token_endpoint_auth_method=method, tag=mark)

        self._servers.claim_trial(server)
        await self._registrar.register(
            server.meta,
            AUTHORIZATION_SERVER.kind,
            str(server.reference),
            metadata,
            connection,
            self._events.about(AUTHORIZATION_SERVER, server.meta),
            attempt=attempt,
            abandoned=abandoned,
        )
        self._servers.registration_accepted(server)
        return True

    async def _end(self, server: AuthorizationServer) -> None:
        """Delete the probe client, if there is one."""
        probe = self._probe(server)
        if probe is None or probe.state is State.ORPHANED:
            return
        tell = self._events.about(AUTHORIZATION_SERVER, server.meta)
        connection = await self._servers.connection(server)
        connection.remote.breaker.check()
        if probe.state is not State.DELETING:
            await self._deregistrar.start_orphans_deletion(
                server.meta.uid,
                repeatable=lambda record: is_repeatable(server, self._wall() - record.attempt_started),
                tell=tell,
            )
        if self._probe(server) is not None:
            await self._deregistrar.unregister(server.meta.uid, connection, tell)

    async def _write(self, server: AuthorizationServer, found: Finding) -> None:
        old = list(server.status.get("conditions") or ())
        before = find_condition(old, reasons.CROSS_CLIENT_INTROSPECTION)
        new: dict[str, Any] = {
            "type": reasons.CROSS_CLIENT_INTROSPECTION,
            "status": found.status,
            "reason": found.reason,
            "message": found.message,
            "observedGeneration": server.meta.generation,
        }
        if before is not None and {**new, "lastTransitionTime": before["lastTransitionTime"]} == before:
            return
        others = [condition for condition in old if condition is not before]
        patch = {
            "metadata": {"uid": server.meta.uid},
            "status": {"conditions": merge_conditions(old, [*others, new], self._wall())},
        }
        place = (server.meta.namespace, server.meta.name)
        self._cache.put(
            AUTHORIZATION_SERVER,
            await self._cluster.patch(AUTHORIZATION_SERVER, *place, patch, subresource="status"),
        )
        if found.status == "Unknown" and found.reason in _PRELIMINARY:
            return
        logger.info("AuthorizationServer %s: %s: %s", server.reference, new["type"], found.message)
        tell = self._events.about(AUTHORIZATION_SERVER, server.meta)
        await tell("Warning" if found.status == "False" else "Normal", found.reason, found.message)


def _is_settled(server: AuthorizationServer) -> bool:
    """Whether the answer for this spec is known."""
    told = find_condition(server.status.get("conditions") or (), reasons.CROSS_CLIENT_INTROSPECTION)
    if told is None or told.get("observedGeneration") != server.meta.generation:
        return False
    return told["reason"] not in _PRELIMINARY


def _scope(record: Record) -> str | None:
    """One that the server is known to grant."""
    return next((scope for scope in record.scopes if not scope.startswith(OWN_PREFIX)), None)


def _known_beforehand(server: AuthorizationServer, *, has_client: bool) -> Finding | None:
    """What needs no question, or allows none."""
    if server.introspection_authentication == "none":
        text = "introspection asks for no credential: every client's token is told about alike"
        return Finding("True", reasons.INTROSPECTION_OPEN, text)
    if server.registration is RegistrationKind.NONE:
        text = "nobody registers clients at this server, so that there is no probe client; compare two clients by hand"
        return Finding("Unknown", reasons.NOBODY_REGISTERS, text)
    if not has_client:
        text = "looked at when the first service is registered there"
        return Finding("Unknown", reasons.NO_CLIENT_YET, text)
    if not (server.status.get("capabilities") or {}).get("delete"):
        text = "a probe client could not be deleted at this server, so that none is made; compare two clients by hand"
        return Finding("Unknown", reasons.CANNOT_DELETE, text)
    return None


async def _ask(
    connection: Connection, probe: Registration, service: Registration, scope: str, server: AuthorizationServer
) -> Finding:
    """The question itself. Raises ServerUnavailable where there is no trustworthy answer."""
    tokens = connection.tokens
    try:
        token = await tokens.mint(probe.client_id, probe.client_secret, (scope,))
        try:
            told = await tokens.introspect(service.client_id, service.client_secret, token.value)
            alive = told or await tokens.introspect(probe.client_id, probe.client_secret, token.value)
        finally:
            await tokens.revoke_at_best(probe.client_id, probe.client_secret, token)
    except TokenRefused as refused:
        return Finding("Unknown", reasons.CHECK_INCONCLUSIVE, f"the check was not possible: {refused}")
    if told:
        text = "a service's client may introspect a token that another client minted"
        return Finding("True", reasons.INTROSPECTED, text)
    if not alive:
        text = "the server calls a fresh token inactive even to the client that minted it"
        return Finding("Unknown", reasons.CHECK_INCONCLUSIVE, text)
    if server.names_introspectors:
        reason = reasons.AUDIENCE_NOT_NAMED
        text = (
            "Keycloak (from 26.6.2 on) says active: false to a client that the token's audience does not name: callers "
            "get 401 until their client has the service's client scope (named as the service's status.clientId) as a "
            "default client scope; a ServiceClient that names the service gets it by itself"
        )
    else:
        reason = reasons.TOKENS_OF_OTHERS_HIDDEN
        text = (
            "the server says active: false to a service's client about a token that another client minted: callers get "
            "401; let the clients of services introspect all tokens at the server"
        )
    return Finding("False", reason, text)
