"""The write order that loses no client: what is written in the ledger before and after each call to a server.

`kill -9` may fall between any two statements here. Each method therefore begins from the ledger as it is in the
cluster, writes down what it is about to ask before it asks, and stores what it got before anything else happens.
Registering and storing are shielded together from cancellation, so that an operator that is asked to stop finishes
that step.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, Protocol, TypeVar

from .. import reasons
from ..cache import Cache
from ..cluster_api import ClusterApi
from ..errors import (
    AdministratorMustAct,
    AlreadyExists,
    ClusterUnavailable,
    Conflict,
    NotFound,
    ServerUnavailable,
    UserMustEdit,
    Wait,
)
from ..events import Tell
from ..resource import (
    COMPONENT_LEDGER,
    LABEL_COMPONENT,
    LABEL_MANAGED_BY,
    LABEL_WATCH,
    MANAGED_BY,
    SECRET,
    Endpoints,
    Meta,
)
from .driver import (
    AttemptSpent,
    ClientGone,
    ClientMetadata,
    ClientState,
    Driver,
    HandleRefused,
    RegisteredOtherwise,
    Registration,
    RegistrationRefused,
)
from .ledger import RETAINABLE, Entry, Intent, Record, Refusal, State, secret_name
from .names import client_id
from .token import TokenEndpoint

logger = logging.getLogger(__name__)

T = TypeVar("T")

STORE_ATTEMPTS: Final = 5  # of writing what the server gave us, before it is left to the next pass
STORE_PAUSE: Final = 0.5  # seconds, doubling
LABELS: Final = {LABEL_COMPONENT: COMPONENT_LEDGER, LABEL_MANAGED_BY: MANAGED_BY, LABEL_WATCH: "true"}


class Connection(Protocol):
    """What is needed of a connection to an authorization server."""

    @property
    def driver(self) -> Driver: ...

    @property
    def tokens(self) -> TokenEndpoint: ...

    @property
    def endpoints(self) -> Endpoints: ...


def new_attempt() -> str:
    """An id that no other attempt has: 128 random bits, hexadecimal."""
    return secrets.token_hex(16)


def new_secret() -> str:
    """A client secret of our own choice: 256 random bits, in characters that need no encoding anywhere."""
    return secrets.token_urlsafe(32)


class Registrar:
    """Moves ledger entries. `wall` is seconds since the epoch; `attempt` makes ids; `uncertain` counts leaks."""

    def __init__(
        self,
        cluster: ClusterApi,
        cache: Cache,
        namespace: str,
        *,
        uncertain: Callable[[], None] = lambda: None,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        attempt: Callable[[], str] = new_attempt,
    ) -> None:
        self._cluster, self._cache, self._namespace = cluster, cache, namespace
        self._uncertain, self._wall, self._sleep, self._attempt = uncertain, wall, sleep, attempt
        self._shielded: set[asyncio.Task[Any]] = set()

    async def read(self, uid: str) -> tuple[Entry, str] | None:
        """The entry of the object with this uid, live, with its resourceVersion; None when there is none."""
        secret = await self._cluster.get(SECRET, self._namespace, secret_name(uid))
        if secret is None:
            return None
        self._cache.put(SECRET, secret)
        return Entry.from_secret(secret), secret["metadata"]["resourceVersion"]

    # --- register ----------------------------------------------------------------------------------------------------

    async def register(
        self,
        owner: Meta,
        server: str,
        metadata: Callable[[str], ClientMetadata],
        connection: Connection,
        tell: Tell,
        *,
        attempt: str | None,
        abandoned: bool,
    ) -> None:
        """Make the object's client. `attempt` continues that intent; `abandoned` gives an older one up.

        Raises what the driver raises, and Conflict when the ledger is not as the plan saw it.
        """
        found = await self.read(owner.uid)
        chooses = connection.driver.capabilities.caller_chosen_id
        if found is not None and found[0].chosen is not None and not chooses:
            what = f"client {found[0].chosen.client_id} was to be made before the kind of registration was changed"
            await self._report_uncertain(tell, what)
        if attempt is None:
            entry, version = await self._open_intent(
                owner, server, metadata, found, abandoned=abandoned, chooses=chooses
            )
            if abandoned:
                await self._report_uncertain(tell, "an interrupted registration was given up after 60 s")
        else:
            if found is None or found[0].record.attempt != attempt or found[0].record.state is not State.REGISTERING:
                raise _moved(owner)
            entry, version = found
            if entry.chosen is not None and chooses:
                # Whatever the interrupted request made is overwritten, so that it can be what spec says by now.
                entry = entry.with_record(intent=Intent.of("register", metadata(entry.record.tag_attempt)))
        await self._shield(self._register_and_store(entry, version, connection, tell, fresh=attempt is None))

    async def _open_intent(
        self,
        owner: Meta,
        server: str,
        metadata: Callable[[str], ClientMetadata],
        found: tuple[Entry, str] | None,
        *,
        abandoned: bool,
        chooses: bool,
    ) -> tuple[Entry, str]:
        attempt = self._attempt()
        chosen = Registration(client_id(owner.uid, attempt[:8]), new_secret()) if chooses else None
        if chooses and found is not None and found[0].chosen is not None:
            # An attempt that was refused may have made a part of what it was to make: the next one has the same id.
            attempt, chosen = found[0].record.attempt, found[0].chosen
        intent = Intent.of("register", metadata(attempt[:8]))
        if found is None:
            record = Record(
                state=State.REGISTERING,
                owner_namespace=owner.namespace,
                owner_name=owner.name,
                owner_uid=owner.uid,
                server=server,
                attempt=attempt,
                attempt_started=self._wall(),
                tag_attempt=attempt[:8],
                intent=intent,
            )
            return await self._write(Entry(record, chosen=chosen), None)
        entry, version = found
        expected = State.REGISTERING if abandoned else State.IDLE
        if entry.record.state is not expected:
            raise _moved(owner)
        entry = entry.with_record(
            state=State.REGISTERING,
            attempt=attempt,
            attempt_started=self._wall(),
            tag_attempt=attempt[:8],
            intent=intent,
            manageable=True,
            server=server,
            fault=None,
            uncertain=entry.record.uncertain + abandoned,
        )
        return await self._write(replace(entry, chosen=chosen), version)

    async def _register_and_store(
        self, entry: Entry, version: str, connection: Connection, tell: Tell, *, fresh: bool
    ) -> None:
        intent = _intent(entry)
        fault: Refusal | None = None
        try:
            registration = await connection.driver.register(intent, entry.record.attempt, entry.chosen)
        except RegisteredOtherwise as otherwise:
            registration, fault = otherwise.registration, self._refusal(intent, otherwise)
        except AttemptSpent as spent:
            await self._give_up(entry, version, tell, spent)
            return
        except ServerUnavailable as failure:
            if fresh and not failure.uncertain:
                await self._idle(entry, version)
            raise
        except (UserMustEdit, AdministratorMustAct) as refused:
            # Refused: this request made nothing. An intent of an earlier pass stays open all the same: its own request
            # may have gone through before, say, the credential was changed.
            if fresh:
                await self._idle(entry, version, self._refusal(intent, refused))
            raise
        stored = entry.with_record(
            state=State.REGISTERED,
            client_id=registration.client_id,
            manageable=_is_manageable(registration, connection.driver),
            registered=self._wall(),
            registration_endpoint=connection.endpoints.registration,
            audience=intent.audience,
            metadata_digest=intent.digest(),
            intent=None,
            refusal=None,
            fault=fault,
        )
        await self._store(Entry(stored.record, registration), version)

    async def _give_up(self, entry: Entry, version: str, tell: Tell, spent: AttemptSpent) -> None:
        """The server has an answer to this attempt and will not tell it again: whatever it made is out of reach."""
        await self._report_uncertain(tell, str(spent))
        record = entry.record.model_copy(update={"uncertain": entry.record.uncertain + 1})
        await self._idle(Entry(record, entry.registration), version)

    async def _idle(self, entry: Entry, version: str, refusal: Refusal | None = None) -> None:
        await self._store(entry.with_record(state=State.IDLE, intent=None, refusal=refusal), version)

    def _refusal(self, intent: ClientMetadata, outcome: UserMustEdit | AdministratorMustAct) -> Refusal | None:
        if isinstance(outcome, RegistrationRefused):
            return None  # that concerns the whole server, and is remembered there
        return Refusal(
            digest=intent.digest(),
            reason=outcome.reason,
            message=outcome.message,
            user_must_edit=isinstance(outcome, UserMustEdit),
            at=self._wall(),
        )

    # --- update ------------------------------------------------------------------------------------------------------

    async def update(
        self, owner: Meta, metadata: ClientMetadata, connection: Connection, tell: Tell, *, attempt: str | None
    ) -> None:
        """Bring the client's metadata to `metadata`, or finish an interrupted update as it was begun."""
        found = await self.read(owner.uid)
        expected = State.REGISTERED if attempt is None else State.UPDATING
        if found is None or found[0].record.state is not expected or found[0].registration is None:
            raise _moved(owner)
        entry, version = found
        if attempt is None:
            entry, version = await self._write(
                entry.with_record(
                    state=State.UPDATING,
                    attempt=self._attempt(),
                    attempt_started=self._wall(),
                    intent=Intent.of("update", metadata),
                ),
                version,
            )
        await self._shield(self._update_and_store(entry, version, connection, tell))

    async def _update_and_store(self, entry: Entry, version: str, connection: Connection, tell: Tell) -> None:
        intent, registration = _intent(entry), entry.registration
        fault: Refusal | None = None
        if registration is None:
            raise ValueError("an update needs a registered client")
        try:
            registration = await connection.driver.update(registration, intent, entry.record.attempt)
        except RegisteredOtherwise as otherwise:
            registration, fault = otherwise.registration, self._refusal(intent, otherwise)
        except (UserMustEdit, AdministratorMustAct) as refused:
            refusal = self._refusal(intent, refused)
            await self._store(entry.with_record(state=State.REGISTERED, intent=None, refusal=refusal), version)
            raise
        except (HandleRefused, ClientGone, AttemptSpent) as lost:
            await self._replace_client(entry, version, connection, tell, certainly_gone=isinstance(lost, ClientGone))
            return
        stored = entry.with_record(
            state=State.REGISTERED,
            audience=intent.audience,
            metadata_digest=intent.digest(),
            intent=None,
            refusal=None,
            fault=fault,
        )
        await self._store(Entry(stored.record, registration), version)
        await tell(
            "Normal", reasons.CLIENT_UPDATED, f"Updated client {registration.client_id} at {entry.record.server}"
        )

    async def _replace_client(
        self, entry: Entry, version: str, connection: Connection, tell: Tell, *, certainly_gone: bool
    ) -> None:
        """The handle is good no more: find out about the client, and have another one made in its place."""
        registration = entry.registration
        if registration is None:
            raise ValueError("only a registered client can be replaced")
        if not entry.record.manageable:
            text = f"client {registration.client_id} cannot be changed at this server; a new one takes its place"
            await self._report_uncertain(tell, text)
        elif not certainly_gone:
            state = await connection.tokens.probe(registration.client_id, registration.client_secret)
            if state is ClientState.UNKNOWN:
                text = f"the server refuses the handle of client {registration.client_id}, which may be alive or not"
                raise Wait(reasons.HANDLE_LOST, text)
            alive = (
                "is alive, and nobody holds its handle" if state is ClientState.ALIVE else "is not known by our secret"
            )
            await self._report_uncertain(tell, f"client {registration.client_id} {alive}; a new one takes its place")
        uncertain = entry.record.uncertain + (not certainly_gone)
        await self._store(entry.with_record(state=State.IDLE, intent=None, uncertain=uncertain), version)

    # --- delete ------------------------------------------------------------------------------------------------------

    async def start_deletion(self, owner: Meta) -> None:
        """Write down that the client is about to be deleted, and since when."""
        found = await self.read(owner.uid)
        if found is None or found[0].record.state is State.DELETING:
            raise _moved(owner)
        entry, version = found
        # An open attempt is kept: it is finished first, to learn which client to delete, or by which handle.
        await self._write(entry.with_record(state=State.DELETING, deletion_started=self._wall()), version)

    async def retain(self, owner: Meta) -> None:
        """Write down that the client stays when its object goes: from here on nothing deletes it.

        An interrupted update stays in the entry, should anybody take the client up again.
        """
        found = await self.read(owner.uid)
        if found is None or found[0].record.state not in RETAINABLE or found[0].record.client_id is None:
            raise _moved(owner)
        entry, version = found
        await self._write(entry.with_record(state=State.RETAINED, deletion_started=self._wall()), version)

    async def unregister(self, owner_uid: str, connection: Connection, tell: Tell) -> None:
        """Delete the client at the server, then the ledger entry. Repeatable until it is done.

        A client that lives and whose handle is lost cannot be deleted by anyone but the server's administrator: its
        entry becomes `orphaned` and stays as the record, and nothing waits for it.
        """
        found = await self.read(owner_uid)
        if found is None:
            return
        entry, version = found
        if entry.record.state is not State.DELETING:
            raise Conflict(reasons.DELETING, "the ledger entry is not being deleted")
        if entry.record.intent is not None and not connection.driver.capabilities.caller_chosen_id:
            entry, version = await self._shield(self._finish_intent(entry, version, connection.driver, tell))
            if entry.record.state is State.ORPHANED:
                return
        registration = entry.registration
        if entry.chosen is not None:
            if not connection.driver.capabilities.caller_chosen_id:
                what = f"{entry.record.server} is registered at in another way by now: client {entry.chosen.client_id}"
                await self._orphan(entry, version, f"{what} may be left", tell)
                return
            await connection.driver.delete(entry.chosen)  # made or not: its id is known, and after this it is gone
        if registration is not None and not _is_manageable(registration, connection.driver):
            what = f"{entry.record.server} cannot delete client {registration.client_id}"
            await self._orphan(entry, version, what, tell)
            return
        if registration is not None and not await self._delete_client(registration, connection):
            what = f"Client {registration.client_id} is alive and its handle is lost"
            await self._orphan(entry, version, what, tell)
            return
        await self._forget(entry, version)
        if registration is not None:
            await tell("Normal", reasons.CLIENT_DELETED, f"Deleted client {registration.client_id}")

    async def leave_behind(self, owner: Meta, tell: Tell) -> None:
        """Give up a client that its server cannot delete, without asking: the entry becomes `orphaned` and stays."""
        found = await self.read(owner.uid)
        if found is None or found[0].record.state is not State.DELETING or found[0].record.manageable:
            raise _moved(owner)
        entry, version = found
        await self._orphan(entry, version, f"{entry.record.server} cannot delete client {entry.record.client_id}", tell)

    async def _orphan(self, entry: Entry, version: str, what: str, tell: Tell) -> None:
        # Told first: once the entry says so, no pass comes back to it.
        self._uncertain()
        await tell("Warning", reasons.CLIENT_ORPHANED, f"{what}; delete it at the server by hand")
        orphaned = entry.with_record(state=State.ORPHANED, intent=None, uncertain=entry.record.uncertain + 1)
        await self._write(orphaned, version)

    async def _finish_intent(self, entry: Entry, version: str, driver: Driver, tell: Tell) -> tuple[Entry, str]:
        """Repeat an interrupted POST or PUT, to hold the client's present handle."""
        intent, registration = entry.record.intent, entry.registration
        try:
            if intent is not None and intent.operation == "update" and registration is not None:
                registration = await driver.update(registration, intent.metadata(), entry.record.attempt)
            else:
                registration = None  # of a client that was being replaced: it was counted when its handle was lost
                registration = await driver.register(_intent(entry), entry.record.attempt)
        except RegisteredOtherwise as otherwise:
            registration = otherwise.registration
        except AttemptSpent as spent:
            if registration is None:
                await self._report_uncertain(tell, str(spent))
                orphaned = entry.with_record(state=State.ORPHANED, intent=None, uncertain=entry.record.uncertain + 1)
                return await self._store(Entry(orphaned.record, None), version)
        except (HandleRefused, ClientGone, UserMustEdit):
            # Of a PUT: the handle at hand is the last one there is. Of a POST: nothing was made.
            pass
        client_id = registration.client_id if registration else None
        record = entry.record.model_copy(update={"client_id": client_id, "intent": None})
        return await self._store(Entry(record, registration), version)

    async def _delete_client(self, registration: Registration, connection: Connection) -> bool:
        """True: the client is gone. False: it lives, and our handle is refused."""
        try:
            await connection.driver.delete(registration)
        except ClientGone:
            return True
        except HandleRefused as refused:
            state = await connection.tokens.probe(registration.client_id, registration.client_secret)
            if state is ClientState.UNKNOWN:
                text = f"the server refuses the handle of client {registration.client_id}, which may be alive or not"
                raise Wait(reasons.HANDLE_LOST, text) from refused
            # REFUSED: our own DELETE was recorded as started, and the server knows the client no more.
            return state is ClientState.REFUSED
        return True

    async def discard(self, owner: Meta) -> None:
        """Drop an entry that never had a client and has no attempt open."""
        found = await self.read(owner.uid)
        if (
            found is not None
            and found[0].registration is None
            and found[0].chosen is None
            and found[0].record.intent is None
        ):
            await self._forget(*found)

    async def abandon(self, owner: Meta, tell: Tell) -> None:
        """Drop an intent that cannot be continued, with its object: a client may be left behind, and is counted."""
        found = await self.read(owner.uid)
        if found is None:
            return
        entry, version = found
        await self._report_uncertain(tell, "the object was deleted while its registration was interrupted")
        await self._forget(entry, version)

    # --- writing -----------------------------------------------------------------------------------------------------

    async def _write(self, entry: Entry, version: str | None) -> tuple[Entry, str]:
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

    async def _store(self, entry: Entry, version: str) -> tuple[Entry, str]:
        """Write what the server gave us. Tried several times: what is lost here is lost at the server, too.

        Somebody else's touch in between (a label, an annotation, even a deletion) does not count as an objection, as
        long as the entry still tells of the same attempt.
        """
        for attempt in range(STORE_ATTEMPTS):
            try:
                return await self._write(entry, version)
            except (Conflict, NotFound):
                found = await self.read(entry.record.owner_uid)
                if found is None:
                    return await self._write(entry, None)
                if found[0].record.attempt != entry.record.attempt or attempt == STORE_ATTEMPTS - 1:
                    raise
                version = found[1]
            except ClusterUnavailable:
                if attempt == STORE_ATTEMPTS - 1:
                    raise
                await self._sleep(STORE_PAUSE * 2**attempt)
        raise AssertionError("unreachable")

    async def _forget(self, entry: Entry, version: str) -> None:
        name = secret_name(entry.record.owner_uid)
        cached = self._cache.get(SECRET, self._namespace, name)
        await self._cluster.delete(SECRET, self._namespace, name, resource_version=version)
        if cached is not None:
            self._cache.remove(SECRET, cached.body())

    async def _report_uncertain(self, tell: Tell, what: str) -> None:
        self._uncertain()
        text = f"A client may be left at the authorization server: {what}; look for clients with this object's tag"
        await tell("Warning", reasons.REGISTRATION_UNCERTAIN, text)

    async def _shield(self, step: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(step)
        self._shielded.add(task)
        task.add_done_callback(self._shielded.discard)
        return await asyncio.shield(task)

    async def drain(self) -> None:
        """Wait for the steps that a cancellation left running."""
        await asyncio.gather(*self._shielded, return_exceptions=True)


def _is_manageable(registration: Registration, driver: Driver) -> bool:
    has_handle = None not in (registration.registration_client_uri, registration.registration_access_token)
    return driver.capabilities.caller_chosen_id or has_handle


def _intent(entry: Entry) -> ClientMetadata:
    if entry.record.intent is None:
        raise ValueError("the ledger entry has no open attempt")
    return entry.record.intent.metadata()


def _moved(owner: Meta) -> Conflict:
    return Conflict(reasons.PENDING, f"the ledger entry of {owner.namespace}/{owner.name} is not as it was seen")
