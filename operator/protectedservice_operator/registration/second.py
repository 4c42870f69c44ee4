"""A second client, which a rotation made or replaced: kept as spec says, and ended. The client in use is not touched.

As in `registrar.py`, `kill -9` may fall between any two statements: that a deletion began is written down first.
"""

from __future__ import annotations

from dataclasses import replace

from .. import reasons
from ..errors import AdministratorMustAct, UserMustEdit, Wait
from ..events import Tell
from .connection import Connection
from .driver import (
    AttemptSpent,
    ClientGone,
    ClientMetadata,
    ClientState,
    HandleRefused,
    RegisteredOtherwise,
    Registration,
    RegistrationRefused,
)
from .ledger import ROTATE, Entry, Intent, Refusal, Role, Second, holds_too_much
from .ledger_entries import LedgerEntries, is_manageable, open_intent


def described(entry: Entry, registration: Registration, role: Role, connection: Connection, now: float) -> Second:
    """The record of a client that the open attempt has just made."""
    intent = open_intent(entry)
    return Second(
        role=role,
        client_id=registration.client_id,
        tag_attempt=entry.record.attempt[:8],
        manageable=is_manageable(registration, connection.driver),
        registered=now,
        metadata_digest=intent.digest(),
        audiences=intent.audiences,
        scopes=intent.scopes,
    )


async def delete_client(registration: Registration, connection: Connection) -> bool:
    """True: the client is gone. False: it lives, and our handle is refused. Its deletion is on record as started."""
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


def given_up(entry: Entry, message: str) -> str:
    """What is told of a rotation that came to nothing."""
    return f"The rotation is given up, client {entry.record.client_id} serves on: {message}"


def rotation_refusal(reason: str, message: str, request: str | None, now: float) -> Refusal:
    """Why a rotation came to nothing, and which request it was for, so that it is not begun anew at once."""
    return Refusal(digest=request or "", reason=reason, message=message, user_must_edit=False, at=now)


class SecondClients:
    """Changes and ends second clients."""

    def __init__(self, entries: LedgerEntries) -> None:
        self._entries = entries

    async def update(
        self,
        entry: Entry,
        version: str,
        metadata: ClientMetadata,
        connection: Connection,
        tell: Tell,
        *,
        attempt: str,
    ) -> None:
        """Bring the second client's metadata to `metadata`, or finish an interrupted update as it was begun.

        One that has what it may not have any more, and cannot be rid of it, is of no use from now on.

        Raises:
            RegistrationRefused: nothing is known then, and the attempt stays open.
            ServerUnavailable: likewise.
        """
        second = entry.record.second
        if second is not None and not second.manageable:
            await self.demote(entry, version, tell, reasons.HANDLE_LOST, "its server offers no way to change it")
            return
        if second is not None and second.intent is None:
            opened = _with_second(entry, intent=Intent.of("update", metadata), attempt=attempt)
            entry, version = await self._entries.write(opened, version)
        intent, registration, open_attempt = _open_update(entry)
        done = {"metadata_digest": intent.digest(), "scopes": intent.scopes, "audiences": intent.audiences}
        closed = _with_second(entry, intent=None, attempt=None, refused=None)
        try:
            registration = await connection.driver.update(registration, intent, open_attempt)
        except RegisteredOtherwise as otherwise:
            closed = replace(closed, second=otherwise.registration)
            if _is_too_much(closed, metadata):
                await self.demote(closed, version, tell, otherwise.reason, otherwise.message)
            else:
                await self._entries.store(_with_second(closed, **done), version)
        except RegistrationRefused:
            raise
        except (UserMustEdit, AdministratorMustAct) as refused:
            if _is_too_much(closed, metadata):
                await self.demote(closed, version, tell, refused.reason, refused.message)
            else:
                await self._entries.store(_with_second(closed, refused=intent.digest()), version)
        except (HandleRefused, ClientGone, AttemptSpent) as lost:
            await self.demote(closed, version, tell, reasons.HANDLE_LOST, f"it cannot be changed any more: {lost}")
        else:
            await self._entries.store(replace(_with_second(closed, **done), second=registration), version)

    async def demote(self, entry: Entry, version: str, tell: Tell, reason: str, message: str) -> None:
        """Of no use from now on: one that was to take over was made in vain, one that was in use goes early."""
        record, second, now = entry.record, entry.record.second, self._entries.wall()
        if second is None:
            raise ValueError("there is no second client")
        demoted = _with_second(entry, role=Role.SURPLUS)
        if second.role is Role.OLD:
            await self._entries.store(demoted.with_record(rotated=now), version)
            text = f"Client {second.client_id}, which {record.client_id} has replaced, goes before its time"
            await tell("Warning", reasons.OVERLAP_CUT_SHORT, f"{text}: {message}")
            return
        # The request counts as served when the client was made: it is asked for anew.
        refusal = rotation_refusal(reason, message, record.rotation_request, now)
        await self._entries.store(demoted.with_record(rotation_refusal=refusal, rotation_request=None), version)
        await tell("Warning", reasons.ROTATION_GIVEN_UP, given_up(entry, message))

    async def end(self, entry: Entry, version: str, connection: Connection, tell: Tell) -> tuple[Entry, str]:
        """Finish an interrupted attempt at a second client, then delete it. Repeatable until it is done.

        One that cannot be deleted is left behind, counted and told.
        """
        if entry.record.intent is not None and entry.record.intent.operation == ROTATE:
            entry, version = await self._finish_intent(entry, version, connection, tell)
        if entry.record.second is not None and entry.record.second.intent is not None:
            entry, version = await self._finish_update(entry, version, connection)
        second, registration = entry.record.second, entry.second
        if second is None:
            return entry, version
        what = None
        if registration is None or not is_manageable(registration, connection.driver):
            what = f"{entry.record.server} cannot delete client {second.client_id}"
        else:
            if second.deletion_started is None:
                began = second.model_copy(update={"deletion_started": self._entries.wall()})
                entry, version = await self._entries.write(entry.with_record(second=began), version)
            if not await delete_client(registration, connection):
                what = f"Client {second.client_id} is alive and its handle is lost"
        if what is not None:
            self._entries.count_uncertain()
            await tell("Warning", reasons.CLIENT_ORPHANED, f"{what}; delete it at the server by hand")
        rotated = self._entries.wall() if second.role is Role.OLD else entry.record.rotated
        uncertain = entry.record.uncertain + (what is not None)
        done = replace(entry.with_record(second=None, rotated=rotated, uncertain=uncertain), second=None)
        entry, version = await self._entries.store(done, version)
        if second.role is Role.OLD:
            gone = f"deleted client {second.client_id}" if what is None else f"left client {second.client_id} behind"
            await tell("Normal", reasons.ROTATED, f"Client {entry.record.client_id} is in use, {gone}")
        return entry, version

    async def leave_behind(self, entry: Entry, tell: Tell) -> Entry:
        """Count and tell what cannot be deleted, without asking."""
        if entry.record.intent is not None and entry.record.intent.operation == ROTATE:
            await self._entries.report_uncertain(tell, "a rotation was interrupted")
            entry = entry.with_record(intent=None, uncertain=entry.record.uncertain + 1)
        if (second := entry.record.second) is not None:
            self._entries.count_uncertain()
            text = f"{entry.record.server} cannot delete client {second.client_id}; delete it at the server by hand"
            await tell("Warning", reasons.CLIENT_ORPHANED, text)
            entry = entry.with_record(uncertain=entry.record.uncertain + 1)
        return entry

    async def _finish_intent(self, entry: Entry, version: str, connection: Connection, tell: Tell) -> tuple[Entry, str]:
        """Repeat the interrupted attempt, to learn which client to delete; one whose id we chose is deleted at once."""
        registration: Registration | None = None
        uncertain = None
        if entry.chosen is not None:
            if connection.driver.capabilities.caller_chosen_id:
                await connection.driver.delete(entry.chosen)  # made or not
            else:
                uncertain = (
                    f"client {entry.chosen.client_id} was to be made before the kind of registration was changed"
                )
        else:
            try:
                registration = await connection.driver.register(open_intent(entry), entry.record.attempt)
            except RegisteredOtherwise as otherwise:
                registration = otherwise.registration
            except AttemptSpent as spent:
                uncertain = str(spent)
            except UserMustEdit:
                pass  # nothing was made
        if uncertain is not None:
            await self._entries.report_uncertain(tell, uncertain)
        second = None
        if registration is not None:
            second = described(entry, registration, Role.SURPLUS, connection, self._entries.wall())
        counted = entry.record.uncertain + (uncertain is not None)
        finished = entry.with_record(intent=None, second=second, uncertain=counted)
        return await self._entries.store(replace(finished, chosen=None, second=registration), version)

    async def _finish_update(self, entry: Entry, version: str, connection: Connection) -> tuple[Entry, str]:
        """Repeat an interrupted PUT, to hold the present handle; failing that, the last one is all there is."""
        intent, registration, attempt = _open_update(entry)
        if is_manageable(registration, connection.driver):
            try:
                registration = await connection.driver.update(registration, intent, attempt)
            except RegisteredOtherwise as otherwise:
                registration = otherwise.registration
            except (HandleRefused, ClientGone, AttemptSpent, UserMustEdit):
                pass
        closed = _with_second(entry, intent=None, attempt=None)
        return await self._entries.store(replace(closed, second=registration), version)


def _is_too_much(entry: Entry, metadata: ClientMetadata) -> bool:
    return entry.record.second is not None and holds_too_much(entry.record.second, metadata)


def _with_second(entry: Entry, **changes: object) -> Entry:
    """The same entry with some of what it says of the second client changed."""
    second = entry.record.second
    if second is None:
        raise ValueError("there is no second client")
    return entry.with_record(second=second.model_copy(update=changes))


def _open_update(entry: Entry) -> tuple[ClientMetadata, Registration, str]:
    """What the open PUT about the second client sends, with which handle, and its id."""
    second, registration = entry.record.second, entry.second
    if second is None or second.intent is None or second.attempt is None or registration is None:
        raise ValueError("no update of a second client is open")
    return second.intent.metadata(), registration, second.attempt
