"""Ledger entries in the cluster: read live, written with a precondition, stored against the odds, forgotten.

What the registrar and the deregistrar share: the one way in which an entry changes, the shield that lets a call and the
storing of its answer end together, and the count of clients that may have been left behind.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, TypeVar

from .. import reasons
from ..cache import Cache
from ..cluster_api import ClusterApi
from ..errors import AdministratorMustAct, AlreadyExists, ClusterUnavailable, Conflict, NotFound, UserMustEdit
from ..events import Tell
from ..resource import COMPONENT_LEDGER, LABEL_COMPONENT, LABEL_MANAGED_BY, LABEL_WATCH, MANAGED_BY, SECRET, Meta
from .driver import ClientMetadata, Driver, Registration, RegistrationRefused
from .ledger import Entry, Refusal, State, secret_name

T = TypeVar("T")

STORE_ATTEMPTS: Final = 5  # of writing what the server gave us, before it is left to the next pass
STORE_PAUSE: Final = 0.5  # seconds, doubling
LABELS: Final = {LABEL_COMPONENT: COMPONENT_LEDGER, LABEL_MANAGED_BY: MANAGED_BY, LABEL_WATCH: "true"}


class LedgerEntries:
    """All entries. `wall` is seconds since the epoch; `uncertain` counts leaks."""

    def __init__(
        self,
        cluster: ClusterApi,
        cache: Cache,
        namespace: str,
        *,
        uncertain: Callable[[], None] = lambda: None,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cluster, self._cache, self._namespace = cluster, cache, namespace
        self._uncertain, self.wall, self._sleep = uncertain, wall, sleep
        self._shielded: set[asyncio.Task[Any]] = set()

    async def read(self, uid: str) -> tuple[Entry, str] | None:
        """The entry of the object with this uid, live, with its resourceVersion; None when there is none."""
        secret = await self._cluster.get(SECRET, self._namespace, secret_name(uid))
        if secret is None:
            return None
        self._cache.put(SECRET, secret)
        return Entry.from_secret(secret), secret["metadata"]["resourceVersion"]

    async def write(self, entry: Entry, version: str | None) -> tuple[Entry, str]:
        """Create (no version) or replace (with it as precondition). Raises Conflict when somebody was first."""
        secret = entry.to_secret(self._namespace, resource_version=version, labels=LABELS)
        if version is None:
            try:
                body = await self._cluster.create(SECRET, secret)
            except AlreadyExists as exists:
                await self.read(entry.record.owner_uid)
                raise Conflict(reasons.PENDING, "the ledger entry exists already") from exists
        else:
            body = await self._cluster.replace(SECRET, secret)
        self._cache.put(SECRET, body)
        return entry, body["metadata"]["resourceVersion"]

    async def store(self, entry: Entry, version: str) -> tuple[Entry, str]:
        """Write what the server gave us. Tried several times: what is lost here is lost at the server, too.

        Somebody else's touch in between (a label, an annotation, even a deletion) does not count as an objection, as
        long as the entry still tells of the same attempt.
        """
        for attempt in range(STORE_ATTEMPTS):
            try:
                return await self.write(entry, version)
            except (Conflict, NotFound):
                found = await self.read(entry.record.owner_uid)
                if found is None:
                    return await self.write(entry, None)
                if found[0].record.attempt != entry.record.attempt or attempt == STORE_ATTEMPTS - 1:
                    raise
                version = found[1]
            except ClusterUnavailable:
                if attempt == STORE_ATTEMPTS - 1:
                    raise
                await self._sleep(STORE_PAUSE * 2**attempt)
        raise AssertionError("unreachable")

    async def forget(self, entry: Entry, version: str) -> None:
        """Delete the entry, if it is still as it was read."""
        name = secret_name(entry.record.owner_uid)
        cached = self._cache.get(SECRET, self._namespace, name)
        await self._cluster.delete(SECRET, self._namespace, name, resource_version=version)
        if cached is not None:
            self._cache.remove(SECRET, cached.body())

    def count_uncertain(self) -> None:
        """One more client that may have been left behind."""
        self._uncertain()

    async def report_uncertain(self, tell: Tell, what: str) -> None:
        """Count it, and tell the object."""
        self._uncertain()
        text = f"A client may be left at the authorization server: {what}; look for clients with this object's tag"
        await tell("Warning", reasons.REGISTRATION_UNCERTAIN, text)

    async def lose_adopted(self, entry: Entry, version: str, tell: Tell) -> None:
        """The adopted client is gone, or has another secret: no other one is ever made in its place."""
        record = entry.record
        text = (
            f"Adopted client {record.client_id} is not at {record.server} any more by its secret, and no other one "
            "takes its place: have it made again under this id, or its secret written into the Secret that "
            "spec.client.adopt names"
        )
        await tell("Warning", reasons.CLIENT_LOST, text)
        await self.store(replace(entry.with_record(state=State.IDLE, intent=None, drifted=()), chosen=None), version)

    def refusal(self, intent: ClientMetadata, outcome: UserMustEdit | AdministratorMustAct) -> Refusal | None:
        """What to remember of a server's no to these metadata."""
        if isinstance(outcome, RegistrationRefused):
            return None  # that concerns the whole server, and is remembered there
        return Refusal(
            digest=intent.digest(),
            reason=outcome.reason,
            message=outcome.message,
            user_must_edit=isinstance(outcome, UserMustEdit),
            at=self.wall(),
        )

    async def shield(self, step: Coroutine[Any, Any, T]) -> T:
        """Run a step that must end once it has begun, whatever happens to its caller."""
        task = asyncio.ensure_future(step)
        self._shielded.add(task)
        task.add_done_callback(self._shielded.discard)
        return await asyncio.shield(task)

    async def drain(self) -> None:
        """Wait for the steps that a cancellation left running."""
        await asyncio.gather(*self._shielded, return_exceptions=True)


def is_manageable(registration: Registration, driver: Driver) -> bool:
    """Whether the client can be changed and deleted at all."""
    has_handle = None not in (registration.registration_client_uri, registration.registration_access_token)
    return driver.capabilities.caller_chosen_id or has_handle


def open_intent(entry: Entry) -> ClientMetadata:
    """What the open attempt sends. Raises ValueError when none is open."""
    if entry.record.intent is None:
        raise ValueError("the ledger entry has no open attempt")
    return entry.record.intent.metadata()


def moved(owner: Meta) -> Conflict:
    """The plan saw another entry than there is."""
    return Conflict(reasons.PENDING, f"the ledger entry of {owner.namespace}/{owner.name} is not as it was seen")
