"""One pass over an AuthorizationServer: held while clients of ours live there, looked at, and let go.

    hold ── look ──deleted──> (services end their clients) ──none left, or deadline──> release

Held by a finalizer, because without the object nobody knows where its clients live. Who ends them is each object's own
pass (`plan_withdrawal.py`); here only the clients are ended whose objects are gone. What is left at the deadline stays
in the ledger, and goes when an AuthorizationServer of that name and issuer is there again.

Everything follows from the object and the ledger, so that the next process goes on where this one ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import islice
from typing import Final

from . import plan_withdrawal, reasons
from .authorization_server import AuthorizationServer
from .census import Census
from .conditions import seconds, timestamp
from .errors import AdministratorMustAct, Conflict, NotFound, Rejected, foreign_text
from .observed import ObservedClient, is_repeatable
from .passes import Parts
from .registration.deregistrar import Deregistrar
from .registration.ledger import Record, State, has_second
from .resource import AUTHORIZATION_SERVER, LEDGER, NAMESPACE, OWNERS, SERVER_FINALIZER, Key, Reference

logger = logging.getLogger(__name__)

NAMED: Final = 5  # of the clients that are left, in one message


class AuthorizationServerPasses:
    """All of them. `observe`: what there is to know about the client of the object with this key."""

    def __init__(self, parts: Parts, deregistrar: Deregistrar, observe: Callable[[Key], ObservedClient | None]) -> None:
        self._cluster, self._cache, self._servers = parts.cluster, parts.cache, parts.servers
        self._events, self._settings, self._namespace = parts.events, parts.settings, parts.namespace
        self._wake, self._wall = parts.wake, parts.wall
        self._deregistrar, self._observe = deregistrar, observe
        self._census = Census(parts.cache, parts.namespace)
        self._look_due: dict[Reference, float] = {}  # of those that are being deleted

    async def one(self, key: Key) -> float | None:
        """One pass. Returns the seconds after which to look again; None when the object is gone.

        Raises errors.Outcome.
        """
        reference = Reference(key.namespace, key.name)
        cached = self._cache.get(AUTHORIZATION_SERVER, key.namespace, key.name)
        if cached is None:
            self._look_due.pop(reference, None)
            return await self._servers.reconcile(key)
        server = AuthorizationServer.parse(cached.body())
        held = SERVER_FINALIZER in server.meta.finalizers
        if not self._holds(server):
            if held:
                await self._set_held(server, False)
            return await self._servers.reconcile(key)
        if not server.meta.is_going:
            if not held:
                await self._hold(server)
            return await self._servers.reconcile(key)
        try:
            return await self._end(server, key, held=held)
        except Rejected as rejected:
            text = f"AuthorizationServer {reference} cannot be released: {foreign_text(rejected.message)}"
            raise AdministratorMustAct(reasons.REJECTED_BY_CLUSTER, text) from rejected

    def _holds(self, server: AuthorizationServer) -> bool:
        """Whether it may be made to wait: the operator honours it, and will be there to let it go.

        With the operator's own namespace the ledger ends too, and the process.
        """
        if server.meta.namespace not in self._settings.honoured_namespaces:
            return False
        home = self._cache.get(NAMESPACE, None, self._namespace)
        ends = home is not None and bool(home.body()["metadata"].get("deletionTimestamp"))
        return not (ends and server.meta.namespace == self._namespace)

    async def _hold(self, server: AuthorizationServer) -> None:
        """A right that is missing (an older ClusterRole) costs the order of a deletion, not the services."""
        try:
            await self._set_held(server, True)
        except Rejected as rejected:
            text = (
                "cannot be held while it has clients, so that its deletion would leave them behind: "
                f"{foreign_text(rejected.message)}"
            )
            logger.warning("AuthorizationServer %s: %s", server.reference, text)
            await self._events.about(AUTHORIZATION_SERVER, server.meta)("Warning", reasons.REJECTED_BY_CLUSTER, text)

    async def _set_held(self, server: AuthorizationServer, held: bool) -> None:
        meta = server.meta
        finalizers = [name for name in meta.finalizers if name != SERVER_FINALIZER] + [SERVER_FINALIZER] * held
        patch = {"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": finalizers}}
        try:
            body = await self._cluster.patch(AUTHORIZATION_SERVER, meta.namespace, meta.name, patch)
        except NotFound:
            return
        if finalizers or not meta.is_going:
            self._cache.put(AUTHORIZATION_SERVER, body)

    # --- its end -----------------------------------------------------------------------------------------------------

    async def _end(self, server: AuthorizationServer, key: Key, *, held: bool) -> float | None:
        now = self._wall()
        until = seconds(server.meta.deletion_timestamp or "") + self._settings.deletion_deadline
        waits = self._servers.registers(server) or any(
            self._waits_for(record) for _, record in self._census.entries(server.reference)
        )
        if held and (not waits or now >= until):
            await self._release(server)
            return None
        due = self._look_due.get(server.reference, now)
        if now >= due:
            await self._end_orphans(server)
            delay = await self._servers.reconcile(key, ending=_ending(until))
            if delay is None:
                return None
            due = self._look_due[server.reference] = now + delay
        return max(min(due, until if until > now else due) - now, 1.0)

    def _waits_for(self, record: Record) -> bool:
        """Whether something is to be done at the server about this entry's client."""
        if record.state is State.ORPHANED:
            return False
        if record.state is State.RETAINED:
            return has_second(record)
        owner = self._owner(record)
        return owner is None or owner.service.meta.is_going or not plan_withdrawal.stays(owner)

    def _owner(self, record: Record) -> ObservedClient | None:
        """The living object that the entry belongs to."""
        kind = OWNERS.get(record.owner_kind)
        if kind is None:
            return None
        observed = self._observe(Key(kind.kind, record.owner_namespace, record.owner_name))
        return observed if observed is not None and observed.service.meta.uid == record.owner_uid else None

    async def _end_orphans(self, server: AuthorizationServer) -> None:
        """Begin the deletion of clients whose object is gone: nobody else does, and later nobody can."""
        for name, record in list(self._census.entries(server.reference)):
            kind = OWNERS.get(record.owner_kind)
            if kind is None or record.state in _ENDED or self._owner(record) is not None:
                continue
            body = await self._cluster.get(kind, record.owner_namespace, record.owner_name)
            if body is not None and body["metadata"]["uid"] == record.owner_uid:
                continue
            try:
                await self._deregistrar.start_orphans_deletion(
                    record.owner_uid,
                    repeatable=lambda seen: is_repeatable(server, self._wall() - seen.attempt_started),
                    tell=self._events.about(AUTHORIZATION_SERVER, server.meta),
                )
            except Conflict:
                continue  # it changed meanwhile: looked at again
            self._wake(Key(LEDGER, self._namespace, name))

    async def _release(self, server: AuthorizationServer) -> None:
        left = [
            record.client_id or f"of {record.owner_namespace}/{record.owner_name}"
            for _, record in self._census.entries(server.reference)
            if self._waits_for(record)
        ]
        if left:
            named = ", ".join(islice(left, NAMED)) + (f" and {len(left) - NAMED} more" if len(left) > NAMED else "")
            text = (
                f"Released at the deletion deadline with clients still registered ({named}): they go when an "
                "AuthorizationServer of this name and issuer is there again; see `protectedservice-operator orphans`"
            )
            logger.warning("AuthorizationServer %s: %s", server.reference, text)
            await self._events.about(AUTHORIZATION_SERVER, server.meta)("Warning", reasons.CLIENT_ORPHANED, text)
        await self._set_held(server, False)
        logger.info("Released AuthorizationServer %s, which is being deleted", server.reference)


def _ending(until: float) -> AdministratorMustAct:
    text = f"is being deleted: it goes after its clients, at {timestamp(until)} at the latest"
    return AdministratorMustAct(reasons.SERVER_DELETED, text)


_ENDED: Final = frozenset({State.DELETING, State.ORPHANED, State.RETAINED})
