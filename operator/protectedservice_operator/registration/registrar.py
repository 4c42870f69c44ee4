"""The write order that loses no client: what is written in the ledger before and after each call to a server.

`kill -9` may fall between any two statements here. Each method therefore begins from the ledger as it is in the
cluster, writes down what it is about to ask before it asks, and stores what it got before anything else happens.
Registering and storing are shielded together from cancellation, so that an operator that is asked to stop finishes
that step.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import replace

from .. import reasons
from ..errors import (
    AdministratorMustAct,
    ServerUnavailable,
    UserMustEdit,
    Wait,
)
from ..events import Tell
from ..resource import Meta
from .connection import Connection
from .driver import (
    AttemptSpent,
    ClientGone,
    ClientMetadata,
    ClientState,
    HandleRefused,
    RegisteredOtherwise,
    Registration,
)
from .ledger import Entry, Intent, Record, Refusal, State
from .ledger_entries import LedgerEntries, is_manageable, moved, open_intent
from .names import client_id

logger = logging.getLogger(__name__)


def new_attempt() -> str:
    """An id that no other attempt has: 128 random bits, hexadecimal."""
    return secrets.token_hex(16)


def new_secret() -> str:
    """A client secret of our own choice: 256 random bits, in characters that need no encoding anywhere."""
    return secrets.token_urlsafe(32)


class Registrar:
    """Makes and changes clients. `attempt` makes ids."""

    def __init__(self, entries: LedgerEntries, *, attempt: Callable[[], str] = new_attempt) -> None:
        self._entries, self._attempt = entries, attempt

    # --- register ----------------------------------------------------------------------------------------------------

    async def register(
        self,
        owner: Meta,
        kind: str,
        server: str,
        metadata: Callable[[str], ClientMetadata],
        connection: Connection,
        tell: Tell,
        *,
        attempt: str | None,
        abandoned: bool,
        brought: Registration | None = None,
        rotation_request: str | None = None,
    ) -> None:
        """Make the client of `owner`, an object of this kind.

        `attempt` continues that intent; `abandoned` gives an older one up.

        `brought`: the id and secret that the client is to have, where the owner brings them.
        `rotation_request`: what a first registration serves at the same time, so that a new client is not rotated.

        Raises what the driver raises, and Conflict when the ledger is not as the plan saw it.
        """
        found = await self._entries.read(owner.uid)
        chooses = connection.driver.capabilities.caller_chosen_id
        if found is not None and found[0].chosen is not None and not chooses and brought is None:
            what = f"client {found[0].chosen.client_id} was to be made before the kind of registration was changed"
            await self._entries.report_uncertain(tell, what)
        if attempt is None:
            entry, version = await self._open_intent(
                owner,
                kind,
                server,
                metadata,
                found,
                abandoned=abandoned,
                chooses=chooses,
                brought=brought,
                rotation_request=rotation_request,
            )
            earlier = found[0].chosen if found is not None else None
            if brought is not None and earlier is not None and earlier.client_id != brought.client_id:
                await self._entries.report_uncertain(tell, "another client was brought after an attempt was refused")
            if abandoned:
                await self._entries.report_uncertain(tell, "an interrupted registration was given up after 60 s")
        else:
            if found is None or found[0].record.attempt != attempt or found[0].record.state is not State.REGISTERING:
                raise moved(owner)
            entry, version = found
            if entry.chosen is not None and chooses:
                # Whatever the interrupted request made is overwritten, so that it can be what spec says by now.
                entry = entry.with_record(intent=Intent.of("register", metadata(entry.record.tag_attempt)))
        await self._entries.shield(self._register_and_store(entry, version, connection, tell, fresh=attempt is None))

    async def _open_intent(
        self,
        owner: Meta,
        kind: str,
        server: str,
        metadata: Callable[[str], ClientMetadata],
        found: tuple[Entry, str] | None,
        *,
        abandoned: bool,
        chooses: bool,
        brought: Registration | None,
        rotation_request: str | None,
    ) -> tuple[Entry, str]:
        attempt = self._attempt()
        chosen = Registration(client_id(owner.uid, attempt[:8]), new_secret()) if chooses else None
        if brought is not None:
            chosen = brought
        elif chooses and found is not None and found[0].chosen is not None:
            # An attempt that was refused may have made a part of what it was to make: the next one has the same id.
            attempt, chosen = found[0].record.attempt, found[0].chosen
        intent = Intent.of("register", metadata(attempt[:8]))
        if found is None:
            record = Record(
                state=State.REGISTERING,
                owner_kind=kind,
                owner_namespace=owner.namespace,
                owner_name=owner.name,
                owner_uid=owner.uid,
                server=server,
                attempt=attempt,
                attempt_started=self._entries.wall(),
                tag_attempt=attempt[:8],
                intent=intent,
                brought=brought is not None,
                rotation_request=rotation_request,
            )
            return await self._entries.write(Entry(record, chosen=chosen), None)
        entry, version = found
        expected = (State.REGISTERING,) if abandoned else (State.IDLE, State.ORPHANED)
        if entry.record.state not in expected:
            raise moved(owner)
        left = entry.record.left_behind
        if entry.record.state is State.ORPHANED and entry.record.client_id is not None:
            left = (*left, entry.record.client_id)  # its server could not delete it when it was withdrawn
        entry = entry.with_record(
            state=State.REGISTERING,
            attempt=attempt,
            attempt_started=self._entries.wall(),
            tag_attempt=attempt[:8],
            intent=intent,
            manageable=True,
            server=server,
            fault=None,
            withdrawn=None,
            brought=brought is not None,
            left_behind=left,
            uncertain=entry.record.uncertain + abandoned,
        )
        return await self._entries.write(replace(entry, chosen=chosen), version)

    async def _register_and_store(
        self, entry: Entry, version: str, connection: Connection, tell: Tell, *, fresh: bool
    ) -> None:
        intent = open_intent(entry)
        fault: Refusal | None = None
        try:
            registration = await connection.driver.register(intent, entry.record.attempt, entry.chosen)
        except RegisteredOtherwise as otherwise:
            registration, fault = otherwise.registration, self._entries.refusal(intent, otherwise)
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
                await self._idle(entry, version, self._entries.refusal(intent, refused))
            raise
        stored = entry.with_record(
            state=State.REGISTERED,
            client_id=registration.client_id,
            manageable=is_manageable(registration, connection.driver),
            registered=self._entries.wall(),
            registration_endpoint=connection.endpoints.registration,
            audiences=intent.audiences,
            scopes=intent.scopes,
            metadata_digest=intent.digest(),
            intent=None,
            refusal=None,
            fault=fault,
        )
        await self._entries.store(replace(stored, registration=registration, chosen=None), version)

    async def _give_up(self, entry: Entry, version: str, tell: Tell, spent: AttemptSpent) -> None:
        """The server has an answer to this attempt and will not tell it again: whatever it made is out of reach."""
        await self._entries.report_uncertain(tell, str(spent))
        record = entry.record.model_copy(update={"uncertain": entry.record.uncertain + 1})
        await self._idle(replace(entry, record=record, chosen=None), version)

    async def _idle(self, entry: Entry, version: str, refusal: Refusal | None = None) -> None:
        await self._entries.store(entry.with_record(state=State.IDLE, intent=None, refusal=refusal), version)

    # --- update ------------------------------------------------------------------------------------------------------

    async def update(
        self,
        owner: Meta,
        metadata: ClientMetadata,
        connection: Connection,
        tell: Tell,
        *,
        attempt: str | None,
        brought: Registration | None = None,
    ) -> None:
        """Bring the client's metadata to `metadata`, or finish an interrupted update as it was begun.

        `brought`: the client with the secret that it is to have from now on, where the owner brings it.
        """
        found = await self._entries.read(owner.uid)
        expected = State.REGISTERED if attempt is None else State.UPDATING
        if found is None or found[0].record.state is not expected or found[0].registration is None:
            raise moved(owner)
        entry, version = found
        if entry.record.is_unchangeable:
            await self._leave_as_it_is(entry, version, metadata, tell)
            return
        if attempt is None:
            entry, version = await self._entries.write(
                replace(entry, chosen=brought).with_record(
                    state=State.UPDATING,
                    attempt=self._attempt(),
                    attempt_started=self._entries.wall(),
                    intent=Intent.of("update", metadata),
                ),
                version,
            )
        await self._entries.shield(self._update_and_store(entry, version, connection, tell))

    async def _leave_as_it_is(self, entry: Entry, version: str, metadata: ClientMetadata, tell: Tell) -> None:
        """An adopted client that nobody can change from here: what spec asks for is told instead of asked for."""
        record = entry.record
        text = (
            f"Client {record.client_id} is used as it is, because {record.server} gives no way to change it: see there "
            f"that it has scope {' '.join(metadata.scopes)}"
        )
        if metadata.audiences:
            text += f" and audience {' '.join(metadata.audiences)}"
        await tell("Warning", reasons.CLIENT_UNCHANGEABLE, text)
        held = entry.with_record(
            audiences=metadata.audiences, scopes=metadata.scopes, metadata_digest=metadata.digest(), refusal=None
        )
        await self._entries.write(held, version)

    async def _update_and_store(self, entry: Entry, version: str, connection: Connection, tell: Tell) -> None:
        intent, registration = open_intent(entry), entry.chosen or entry.registration
        fault: Refusal | None = None
        if registration is None:
            raise ValueError("an update needs a registered client")
        try:
            registration = await connection.driver.update(registration, intent, entry.record.attempt)
        except RegisteredOtherwise as otherwise:
            registration, fault = otherwise.registration, self._entries.refusal(intent, otherwise)
        except (UserMustEdit, AdministratorMustAct) as refused:
            refusal = self._entries.refusal(intent, refused)
            kept = replace(entry, chosen=None).with_record(state=State.REGISTERED, intent=None, refusal=refusal)
            await self._entries.store(kept, version)
            raise
        except (HandleRefused, ClientGone, AttemptSpent) as lost:
            if entry.record.adopted:
                await self._entries.lose_adopted(entry, version, tell)
                return
            await self._replace_client(entry, version, connection, tell, certainly_gone=isinstance(lost, ClientGone))
            return
        drifted = ", ".join(entry.record.drifted)
        stored = entry.with_record(
            state=State.REGISTERED,
            audiences=intent.audiences,
            scopes=intent.scopes,
            metadata_digest=intent.digest(),
            intent=None,
            refusal=None,
            fault=fault,
            drifted=(),
        )
        await self._entries.store(replace(stored, registration=registration, chosen=None), version)
        if drifted:
            text = (
                f"Put client {registration.client_id} right at {entry.record.server}: {drifted} had been changed there"
            )
            await tell("Normal", reasons.CLIENT_DRIFT_REPAIRED, text)
        elif not entry.record.is_foreign:
            text = f"Updated client {registration.client_id} at {entry.record.server}"
            await tell("Normal", reasons.CLIENT_UPDATED, text)

    async def _replace_client(
        self, entry: Entry, version: str, connection: Connection, tell: Tell, *, certainly_gone: bool
    ) -> None:
        """The handle is good no more: find out about the client, and have another one made in its place."""
        registration = entry.registration
        if registration is None:
            raise ValueError("only a registered client can be replaced")
        if not entry.record.manageable:
            text = f"client {registration.client_id} cannot be changed at this server; a new one takes its place"
            await self._entries.report_uncertain(tell, text)
        elif not certainly_gone:
            state = await connection.tokens.probe(registration.client_id, registration.client_secret)
            if state is ClientState.UNKNOWN:
                text = f"the server refuses the handle of client {registration.client_id}, which may be alive or not"
                raise Wait(reasons.HANDLE_LOST, text)
            alive = (
                "is alive, and nobody holds its handle" if state is ClientState.ALIVE else "is not known by our secret"
            )
            await self._entries.report_uncertain(
                tell, f"client {registration.client_id} {alive}; a new one takes its place"
            )
        uncertain = entry.record.uncertain + (not certainly_gone)
        idle = entry.with_record(state=State.IDLE, intent=None, uncertain=uncertain, drifted=())
        await self._entries.store(idle, version)
