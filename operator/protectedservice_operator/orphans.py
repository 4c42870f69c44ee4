"""Which clients in the ledger belong to no object any more. Only the ledger proves that a client is ours. Pure.

An entry outlives its object when the finalizer was taken off by hand, when a deletion deadline passed, or when the
server could not delete the client. Retained clients outlive theirs on purpose and are no orphans.

A client that outlived its AuthorizationServer belongs to nothing either, whether the object lives that it was for:
nobody knows any more where it is to be deleted.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from .registration.ledger import Record, State


class Fate(enum.StrEnum):
    """What can be done about an orphan."""

    DELETABLE = "deletable"  # nobody has asked for its deletion yet
    DELETING = "deleting"  # its DELETE is repeated until it is done
    SERVER_DELETED = "server-deleted"  # the same, as soon as an AuthorizationServer of that name and issuer is there
    BY_HAND = "by-hand"  # the server gives us no way: its administrator must delete it


_FATES: Final = {State.DELETING: Fate.DELETING, State.ORPHANED: Fate.BY_HAND}


@dataclass(frozen=True, slots=True)
class Orphan:
    """One ledger entry without an object."""

    entry: str  # name of its Secret
    record: Record
    served: bool = True  # whether its AuthorizationServer is there

    @property
    def fate(self) -> Fate:
        """What can be done about it."""
        fate = _FATES.get(self.record.state, Fate.DELETABLE)
        return Fate.SERVER_DELETED if fate is Fate.DELETING and not self.served else fate

    @property
    def owner(self) -> str:
        """`ProtectedService namespace/name`, as it was called."""
        return f"{self.record.owner_kind} {self.record.owner_namespace}/{self.record.owner_name}"

    @property
    def client(self) -> str:
        """The client's id, as far as it is known: an interrupted registration leaves none."""
        return self.record.client_id or "(not known)"


def orphans(
    records: Iterable[tuple[str, Record]], lives: Callable[[Record], bool], served: Callable[[Record], bool]
) -> list[Orphan]:
    """Those of the ledger entries (name, record) whose object does not live, in the order of their owners' names.

    And those whose client was to be deleted at an AuthorizationServer that is not there: `served` says which one is.
    """
    found = [Orphan(entry, record, served(record)) for entry, record in records if record.state is not State.RETAINED]
    found = [orphan for orphan in found if orphan.fate is Fate.SERVER_DELETED or not lives(orphan.record)]
    return sorted(found, key=lambda orphan: (orphan.owner, orphan.entry))
