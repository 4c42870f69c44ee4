"""The effects on an object's client: asked of the authorization server through the ledger, and counted.

`registration/` knows how a client is made, changed and ended; this file knows which connection that takes, and tells
the AuthorizationServer what came of it.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from . import reasons, steps
from .adoptions import Adoptions
from .authorization_server_connection import Connection
from .authorization_servers import AuthorizationServers
from .brought_credentials import BroughtCredentials
from .cache import Cache
from .cluster_api import ClusterApi
from .errors import AdministratorMustAct, ServerUnavailable
from .events import Recorder, Tell
from .gather import Gatherer, ledger_record
from .metrics import Metrics
from .observed import ObservedClient, Settings, wanted_metadata
from .registration.brought import id_digest as digest
from .registration.deregistrar import Deregistrar
from .registration.driver import Registration, RegistrationRefused
from .registration.ledger import CHOSEN_CLIENT_ID, State, has_second, secret_name
from .registration.ledger_entries import LedgerEntries
from .registration.registrar import Registrar
from .registration.rotator import Rotator
from .registration.withdrawals import note_withdrawal
from .resource import AUTHORIZATION_SERVER, LEDGER_OWNERS, SECRET, Key, Reference

logger = logging.getLogger(__name__)

ClientStep = (
    steps.Register
    | steps.Update
    | steps.Adopt
    | steps.RenewAdopted
    | steps.NoteWithdrawal
    | steps.StartDeletion
    | steps.Unregister
    | steps.Retain
    | steps.LeaveBehind
    | steps.ForgetForeign
    | steps.Abandon
    | steps.Discard
)


class Clients:
    """Does the steps that concern a client."""

    def __init__(
        self,
        cluster: ClusterApi,
        cache: Cache,
        servers: AuthorizationServers,
        registrar: Registrar,
        deregistrar: Deregistrar,
        rotator: Rotator,
        entries: LedgerEntries,
        brought: BroughtCredentials,
        adoptions: Adoptions,
        events: Recorder,
        gatherer: Gatherer,
        settings: Settings,
        *,
        namespace: str,
        metrics: Metrics | None = None,
    ) -> None:
        self._cluster, self._cache, self._servers, self._events = cluster, cache, servers, events
        self._registrar, self._deregistrar, self._rotator, self._entries = registrar, deregistrar, rotator, entries
        self._gatherer, self._brought, self._adoptions = gatherer, brought, adoptions
        self._settings, self._namespace, self._metrics = settings, namespace, metrics

    async def act(self, step: ClientStep, observed: ObservedClient, tell: Tell) -> None:
        """One effect. Raises errors.Outcome where it could not be had."""
        match step:
            case steps.Register():
                await self._register(step, observed, tell)
            case steps.Update():
                await self._update(step, observed, tell)
            case steps.Adopt() | steps.RenewAdopted():
                await self._adoptions.act(step, observed, await self._connection(observed), tell)
            case steps.Unregister():
                await self._unregister(observed, tell)
            case steps.NoteWithdrawal():
                await note_withdrawal(self._entries, observed.service.meta, step.since)
            case steps.StartDeletion():
                await self._deregistrar.start_deletion(observed.service.meta)
            case steps.Retain():
                await self._deregistrar.retain(observed.service.meta)
            case steps.LeaveBehind():
                await self._deregistrar.leave_behind(observed.service.meta, tell)
            case steps.ForgetForeign():
                await self._deregistrar.forget_foreign(observed.service.meta)
            case steps.Abandon():
                await self._deregistrar.abandon(observed.service.meta, tell)
            case steps.Discard():
                await self._deregistrar.discard(observed.service.meta)

    async def _connection(self, observed: ObservedClient) -> Connection:
        if observed.server is None:
            raise AdministratorMustAct(reasons.SERVER_NOT_FOUND, "the AuthorizationServer does not exist")
        connection = await self._servers.connection(observed.server)
        connection.remote.breaker.check()  # before anything is written down
        return connection

    async def _register(self, step: steps.Register, observed: ObservedClient, tell: Tell) -> None:
        service, server = observed.service, observed.server
        connection = await self._connection(observed)
        if server is None:
            raise TypeError("a connection without an AuthorizationServer")
        with self._servers.registering(server):
            self._servers.claim_trial(server)
            try:
                if service.brings_credentials:
                    await self._register_brought(step, observed, connection, tell)
                else:
                    await self._register_at(step, observed, connection, tell, None)
            except RegistrationRefused as refused:
                self._servers.registration_refused(server, refused)
                raise
            except ServerUnavailable:
                self._servers.suspected(server)
                raise
        self._servers.registration_accepted(server)
        self._count_registration("register")
        logger.info("Registered a client for %s at %s", service.key, server.reference)

    async def _register_brought(
        self, step: steps.Register, observed: ObservedClient, connection: Connection, tell: Tell
    ) -> None:
        """An upsert takes over whatever has the id: so first make sure that nobody else does, here and there."""
        brought = await self._brought.read(observed.service)
        with self._brought.claim(observed.service, brought.client_id):
            await self._brought.check_server(observed.service, brought.client_id, connection.driver)
            # An attempt that was interrupted before is no reason to keep what it was to make: its id may be another.
            attempt = step.attempt if observed.ledger_digests.get(CHOSEN_CLIENT_ID) == digest(brought) else None
            given_up = step.abandoned or (step.attempt is not None and attempt is None)
            again = replace(step, attempt=attempt, abandoned=given_up)
            await self._register_at(again, observed, connection, tell, brought)

    async def _register_at(
        self,
        step: steps.Register,
        observed: ObservedClient,
        connection: Connection,
        tell: Tell,
        brought: Registration | None,
    ) -> None:
        if observed.server is None:
            raise TypeError("a connection without an AuthorizationServer")
        await self._registrar.register(
            observed.service.meta,
            observed.service.kind.kind,
            str(observed.server.reference),
            lambda attempt8: wanted_metadata(observed, self._settings, attempt8),
            connection,
            tell,
            attempt=step.attempt,
            abandoned=step.abandoned,
            brought=brought,
            rotation_request=observed.service.rotation_request,
        )

    async def _update(self, step: steps.Update, observed: ObservedClient, tell: Tell) -> None:
        service, record = observed.service, observed.ledger
        connection = await self._connection(observed)
        try:
            brought = await self._brought.read(service) if step.brought and step.attempt is None else None
            if service.brings_credentials and record is not None and record.client_id is not None:
                await self._brought.check_server(service, record.client_id, connection.driver)
            if record is not None and record.adopted:
                await self._adoptions.check(service, record, connection)
            await self._registrar.update(
                service.meta, step.metadata, connection, tell, attempt=step.attempt, brought=brought
            )
        except ServerUnavailable:
            if observed.server is not None:
                self._servers.suspected(observed.server)
            raise
        self._count_registration("update")
        logger.info("Updated the client of %s", service.key)

    async def _unregister(self, observed: ObservedClient, tell: Tell) -> None:
        connection = await self._connection(observed)
        try:
            await self._deregistrar.unregister(observed.service.meta.uid, connection, tell)
        except ServerUnavailable as failure:
            if observed.server is not None:
                self._servers.suspected(observed.server)
            record = observed.ledger
            text = f"waiting to delete client {record.client_id if record else ''}: {failure.message}"
            raise ServerUnavailable(failure.reason, text, retry_after=failure.retry_after) from failure
        self._count_registration("delete")
        logger.info("Deleted the client of %s", observed.service.key)

    async def finish_leftover(self, key: Key) -> float | None:
        """A ledger entry whose object was released before its client was deleted: delete it now, or later."""
        cached = self._cache.get(SECRET, self._namespace, key.name)
        if cached is None:
            return None
        record = ledger_record(cached.body())
        if secret_name(record.owner_uid) != key.name:
            return None
        kept = record.state is State.RETAINED and has_second(record)  # beside the one that is to stay
        if record.state is not State.DELETING and not kept:
            return None
        if (kind := LEDGER_OWNERS.get(record.owner_kind)) is None:
            return None  # of a kind that only a later operator knows
        owner = await self._cluster.get(kind, record.owner_namespace, record.owner_name)
        if owner is not None and owner["metadata"]["uid"] == record.owner_uid:
            return None  # its own pass does that
        server = self._gatherer.server(Reference.parse(record.server))
        if server is None:
            text = (
                f"AuthorizationServer {record.server} was deleted before client {record.client_id}, which goes when "
                "one of that name and issuer is there again"
            )
            raise AdministratorMustAct(reasons.SERVER_DELETED, text)
        if (obstacle := self._servers.unreachable(server)) is not None:
            self._servers.park(server, key)
            raise obstacle
        connection = await self._servers.connection(server)
        tell = self._events.about(AUTHORIZATION_SERVER, server.meta)
        if kept:
            await self._rotator.end_second(record.owner_uid, connection, tell)
            logger.info("Deleted the second client of an object that is gone; %s stays", record.client_id)
            return None
        await self._deregistrar.unregister(record.owner_uid, connection, tell)
        logger.info("Deleted client %s, left behind by an object that is gone", record.client_id)
        return None

    def _count_registration(self, operation: str) -> None:
        if self._metrics:
            self._metrics.registrations.labels(op=operation).inc()
