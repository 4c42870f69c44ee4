"""The end of a second client, which a rotation made or replaced; the client in use is not touched.

As in `registrar.py`, `kill -9` may fall between any two statements: that a deletion began is written down first.
"""

from __future__ import annotations

from dataclasses import replace

from .. import reasons
from ..errors import UserMustEdit, Wait
from ..events import Tell
from .connection import Connection
from .driver import AttemptSpent, ClientGone, ClientState, HandleRefused, RegisteredOtherwise, Registration
from .ledger import ROTATE, Entry, Role, Second
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


class SecondClients:
    """Ends second clients."""

    def __init__(self, entries: LedgerEntries) -> None:
        self._entries = entries

    async def end(self, entry: Entry, version: str, connection: Connection, tell: Tell) -> tuple[Entry, str]:
        """Finish an interrupted attempt at a second client, then delete it. Repeatable until it is done.

        One that cannot be deleted is left behind, counted and told.
        """
        if entry.record.intent is not None and entry.record.intent.operation == ROTATE:
            entry, version = await self._finish_intent(entry, version, connection, tell)
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
