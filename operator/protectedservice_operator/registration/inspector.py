"""Looks whether a client is at the server as the ledger has it: changed there, lost, or neither.

One question per client and turn. What is found is written down, and the ordinary steps put it right: metadata that were
changed are updated, a client that is gone is made anew.
"""

from __future__ import annotations

from dataclasses import replace

from .. import reasons
from ..events import Tell
from ..resource import Meta
from .connection import Connection
from .driver import ClientGone, ClientMetadata, ClientState, HandleRefused
from .ledger import Entry, State
from .ledger_entries import LedgerEntries, moved


class Inspector:
    """Looks at clients."""

    def __init__(self, entries: LedgerEntries) -> None:
        self._entries = entries

    async def inspect(self, owner: Meta, metadata: ClientMetadata, connection: Connection, tell: Tell) -> None:
        """Compare the client with `metadata`; where the server cannot tell, ask only whether it lives.

        Raises ServerUnavailable and AdministratorMustAct as the driver does: nothing was learnt then.
        """
        found = await self._entries.read(owner.uid)
        if found is None or found[0].record.state is not State.REGISTERED or found[0].registration is None:
            raise moved(owner)
        await self._entries.shield(self._inspect(*found, metadata, connection, tell))

    async def _inspect(
        self, entry: Entry, version: str, metadata: ClientMetadata, connection: Connection, tell: Tell
    ) -> None:
        registration = entry.registration
        if registration is None:
            raise ValueError("only a registered client can be looked at")
        if not entry.record.manageable or not connection.driver.capabilities.read:
            if await self._probe(entry, connection) is ClientState.REFUSED:
                await self._lost(entry, version, tell, certain=False)
            return
        try:
            reading = await connection.driver.read(registration, metadata)
        except ClientGone:
            await self._lost(entry, version, tell, certain=True)
            return
        except HandleRefused:
            match await self._probe(entry, connection):
                case ClientState.REFUSED:
                    await self._lost(entry, version, tell, certain=False)
                case ClientState.ALIVE:
                    text = (
                        f"The server refuses the handle of client {registration.client_id}, which is alive and stays "
                        "in use; the next change of scopes, audience or name makes a new one"
                    )
                    await tell("Warning", reasons.HANDLE_LOST, text)
            return
        if reading.differences:
            # No digest equals None: the client is updated next.
            entry = entry.with_record(metadata_digest=None, drifted=reading.differences)
        if reading.differences or reading.registration != registration:
            await self._entries.store(replace(entry, registration=reading.registration), version)

    async def _probe(self, entry: Entry, connection: Connection) -> ClientState:
        registration = entry.registration
        if registration is None:
            raise ValueError("only a registered client can be probed")
        return await connection.tokens.probe(registration.client_id, registration.client_secret)

    async def _lost(self, entry: Entry, version: str, tell: Tell, *, certain: bool) -> None:
        """A new one is made in its place. `certain`: the server said plainly that it is gone."""
        record = entry.record
        if record.adopted:
            await self._entries.lose_adopted(entry, version, tell)
            return
        if not certain:
            what = f"client {record.client_id} is not known by our secret; a new one takes its place"
            await self._entries.report_uncertain(tell, what)
        text = f"Client {record.client_id} is not at {record.server} any more; a new one is registered"
        await tell("Warning", reasons.CLIENT_LOST, text)
        idle = entry.with_record(state=State.IDLE, intent=None, uncertain=record.uncertain + (not certain))
        await self._entries.store(idle, version)
