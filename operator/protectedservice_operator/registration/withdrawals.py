"""Since when a server lets an object have no client: the one fact of the ledger that time alone acts upon."""

from __future__ import annotations

from ..resource import Meta
from .ledger_entries import LedgerEntries, moved


async def note_withdrawal(entries: LedgerEntries, owner: Meta, since: float | None) -> None:
    """Write down since when (seconds since the epoch) the owner may have no client; None: it may have one again.

    Raises Conflict when there is no entry any more.
    """
    found = await entries.read(owner.uid)
    if found is None:
        raise moved(owner)
    entry, version = found
    if entry.record.withdrawn != since:
        await entries.write(entry.with_record(withdrawn=since), version)
