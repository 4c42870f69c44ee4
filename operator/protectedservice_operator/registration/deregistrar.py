"""The end of a client, in the order that loses none: written down, deleted at the server, forgotten; or kept, or left.

As in `registrar.py`, `kill -9` may fall between any two statements.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from .. import reasons
from ..errors import Conflict, UserMustEdit, Wait
from ..events import Tell
from ..resource import Meta
from .connection import Connection
from .driver import (
    AttemptSpent,
    ClientGone,
    ClientState,
    Driver,
    Finder,
    HandleRefused,
    RegisteredOtherwise,
    Registration,
)
from .ledger import RETAINABLE, Entry, Record, State, has_second
from .ledger_entries import LedgerEntries, is_manageable, moved, open_intent
from .names import owner_uid
from .second import SecondClients, delete_client

logger = logging.getLogger(__name__)


class Deregistrar:
    """Ends clients."""

    def __init__(self, entries: LedgerEntries) -> None:
        self._entries = entries
        self._seconds = SecondClients(entries)

    async def start_deletion(self, owner: Meta) -> None:
        """Write down that the client is about to be deleted, and since when."""
        found = await self._entries.read(owner.uid)
        if found is None or found[0].record.state is State.DELETING:
            raise moved(owner)
        entry, version = found
        # An open attempt is kept: it is finished first, to learn which client to delete, or by which handle.
        await self._entries.write(
            entry.with_record(state=State.DELETING, deletion_started=self._entries.wall()), version
        )

    async def start_orphans_deletion(self, owner_uid: str, *, repeatable: Callable[[Record], bool], tell: Tell) -> None:
        """The same for a client whose object is gone already. The caller has made sure of that.

        An interrupted registration that is not `repeatable` is given up and counted, as with an object that is deleted.

        Raises Conflict when the entry is not one to delete by now.
        """
        found = await self._entries.read(owner_uid)
        if found is None or found[0].record.state in (State.DELETING, State.ORPHANED, State.RETAINED):
            raise Conflict(reasons.DELETING, "the ledger entry is not as it was seen")
        entry, version = found
        if entry.record.state is State.REGISTERING and not repeatable(entry.record):
            await self._entries.report_uncertain(tell, "its object went while its registration was interrupted")
            await self._entries.forget(entry, version)
            return
        if entry.record.state is State.ROTATING and not repeatable(entry.record):
            await self._entries.report_uncertain(tell, "its object went while a rotation was interrupted")
            entry = replace(entry.with_record(intent=None, uncertain=entry.record.uncertain + 1), chosen=None)
        changed = entry.with_record(state=State.DELETING, deletion_started=self._entries.wall())
        await self._entries.write(changed, version)

    async def retain(self, owner: Meta) -> None:
        """Write down that the client stays when its object goes: from here on nothing deletes it.

        An interrupted update stays in the entry, should anybody take the client up again.
        """
        found = await self._entries.read(owner.uid)
        if found is None or found[0].record.state not in RETAINABLE or found[0].record.client_id is None:
            raise moved(owner)
        entry, version = found
        await self._entries.write(
            entry.with_record(state=State.RETAINED, deletion_started=self._entries.wall()), version
        )

    async def unregister(self, owner_uid: str, connection: Connection, tell: Tell) -> None:
        """Delete the client at the server, then the ledger entry. Repeatable until it is done.

        A client that lives and whose handle is lost cannot be deleted by anyone but the server's administrator: its
        entry becomes `orphaned` and stays as the record, and nothing waits for it.
        """
        found = await self._entries.read(owner_uid)
        if found is None:
            return
        entry, version = found
        if entry.record.state is not State.DELETING:
            raise Conflict(reasons.DELETING, "the ledger entry is not being deleted")
        if has_second(entry.record):
            entry, version = await self._entries.shield(self._seconds.end(entry, version, connection, tell))
        if entry.record.intent is not None and not connection.driver.capabilities.caller_chosen_id:
            entry, version = await self._entries.shield(self._finish_intent(entry, version, connection.driver, tell))
            if entry.record.state is State.ORPHANED:
                return
        registration = entry.registration
        if entry.chosen is not None:
            if not connection.driver.capabilities.caller_chosen_id:
                what = f"{entry.record.server} is registered at in another way by now: client {entry.chosen.client_id}"
                await self._orphan(entry, version, f"{what} may be left", tell)
                return
            if await self._may_be_ours(entry, entry.chosen, connection):
                await connection.driver.delete(entry.chosen)  # made or not: its id is known, and after this it is gone
        if registration is not None and not is_manageable(registration, connection.driver):
            what = f"{entry.record.server} cannot delete client {registration.client_id}"
            await self._orphan(entry, version, what, tell)
            return
        if registration is not None and not await self._may_be_ours(entry, registration, connection):
            registration = None
        if registration is not None and not await delete_client(registration, connection):
            what = f"Client {registration.client_id} is alive and its handle is lost"
            await self._orphan(entry, version, what, tell)
            return
        await self._entries.forget(entry, version)
        if registration is not None:
            await tell("Normal", reasons.CLIENT_DELETED, f"Deleted client {registration.client_id}")

    async def forget_foreign(self, owner: Meta) -> None:
        """Drop the entry of a client that was made by other hands: it is theirs."""
        found = await self._entries.read(owner.uid)
        if found is None or found[0].record.state is not State.DELETING or not found[0].record.is_foreign:
            raise moved(owner)
        await self._entries.forget(*found)

    async def _may_be_ours(self, entry: Entry, client: Registration, connection: Connection) -> bool:
        """Whether the client may be deleted. An id that was brought or adopted may be somebody else's by now: the tag
        decides; and the secret, on an adopted client that bears no tag yet.
        """
        record, driver = entry.record, connection.driver
        if not (record.brought or record.adopted) or not isinstance(driver, Finder):
            return True
        found = await driver.find(client.client_id)
        if found is None or owner_uid(found.tag) == record.owner_uid:
            return True
        if not record.adopted or found.tag:
            return False
        state = await connection.tokens.probe(client.client_id, client.client_secret)
        if state is ClientState.UNKNOWN:
            text = f"the server does not say whether client {client.client_id} is the one that was adopted"
            raise Wait(reasons.ADOPTION_NOT_PROVED, text)
        return state is ClientState.ALIVE

    async def leave_behind(self, owner: Meta, tell: Tell) -> None:
        """Give up a client that its server cannot delete, without asking: the entry becomes `orphaned` and stays."""
        found = await self._entries.read(owner.uid)
        if found is None or found[0].record.state is not State.DELETING or found[0].record.manageable:
            raise moved(owner)
        entry, version = await self._seconds.leave_behind(found[0], tell), found[1]
        await self._orphan(entry, version, f"{entry.record.server} cannot delete client {entry.record.client_id}", tell)

    async def _orphan(self, entry: Entry, version: str, what: str, tell: Tell) -> None:
        # Told first: once the entry says so, no pass comes back to it.
        self._entries.count_uncertain()
        await tell("Warning", reasons.CLIENT_ORPHANED, f"{what}; delete it at the server by hand")
        orphaned = entry.with_record(state=State.ORPHANED, intent=None, uncertain=entry.record.uncertain + 1)
        await self._entries.write(orphaned, version)

    async def _finish_intent(self, entry: Entry, version: str, driver: Driver, tell: Tell) -> tuple[Entry, str]:
        """Repeat an interrupted POST or PUT, to hold the client's present handle."""
        intent, registration = entry.record.intent, entry.registration
        try:
            if intent is not None and intent.operation == "update" and registration is not None:
                registration = await driver.update(registration, intent.metadata(), entry.record.attempt)
            else:
                registration = None  # of a client that was being replaced: it was counted when its handle was lost
                registration = await driver.register(open_intent(entry), entry.record.attempt)
        except RegisteredOtherwise as otherwise:
            registration = otherwise.registration
        except AttemptSpent as spent:
            if registration is None:
                await self._entries.report_uncertain(tell, str(spent))
                orphaned = entry.with_record(state=State.ORPHANED, intent=None, uncertain=entry.record.uncertain + 1)
                return await self._entries.store(replace(orphaned, registration=None), version)
        except (HandleRefused, ClientGone, UserMustEdit):
            # Of a PUT: the handle at hand is the last one there is. Of a POST: nothing was made.
            pass
        client_id = registration.client_id if registration else None
        record = entry.record.model_copy(update={"client_id": client_id, "intent": None})
        return await self._entries.store(replace(entry, record=record, registration=registration), version)

    async def discard(self, owner: Meta) -> None:
        """Drop an entry that never had a client and has no attempt open."""
        found = await self._entries.read(owner.uid)
        if (
            found is not None
            and found[0].registration is None
            and found[0].chosen is None
            and found[0].record.intent is None
        ):
            await self._entries.forget(*found)

    async def abandon(self, owner: Meta, tell: Tell) -> None:
        """Drop an intent that cannot be continued, with its object: a client may be left behind, and is counted."""
        found = await self._entries.read(owner.uid)
        if found is None:
            return
        entry, version = found
        await self._entries.report_uncertain(tell, "the object was deleted while its registration was interrupted")
        await self._entries.forget(entry, version)
