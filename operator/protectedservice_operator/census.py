"""Which AuthorizationServer each client in the ledger lives at."""

from __future__ import annotations

from collections.abc import Iterator

from .cache import Cache, Cached
from .registration.ledger import ANNOTATION, SECRET_PREFIX, Record
from .resource import OWNERS, SECRET, Reference


class Census:
    """Counts the clients in the ledger. Entries are parsed once per version."""

    def __init__(self, cache: Cache, namespace: str) -> None:
        self._cache, self._namespace = cache, namespace
        # entry -> its resourceVersion, the server that it names, whether there is a client to be counted
        self._ledger: dict[str, tuple[str, str | None, bool]] = {}

    def clients(self, server: Reference) -> int:
        """How many clients of ours live at this server, but for the probe client, which is there for a moment."""
        return sum(self._facts(entry) == (str(server), True) for entry in self._cache.all(SECRET))

    def entries(self, server: Reference) -> Iterator[tuple[str, Record]]:
        """Name and record of the ledger entries that name this server, whether there is a client by now or not."""
        for entry in self._cache.all(SECRET):
            if self._facts(entry)[0] == str(server) and (record := _record(entry)) is not None:
                yield entry.name, record

    def _facts(self, entry: Cached) -> tuple[str | None, bool]:
        """Which AuthorizationServer a ledger entry names, and whether there is a client; None: no entry of ours.

        Only Secrets of the operator's own namespace count: anybody may label one of theirs as a ledger entry.
        """
        if entry.namespace != self._namespace or not entry.name.startswith(SECRET_PREFIX):
            return None, False
        known = self._ledger.get(entry.name)
        if known is None or known[0] != entry.resource_version:
            record = _record(entry)
            place, has_client = (None, False) if record is None else (record.server, _counts(record))
            known = self._ledger[entry.name] = (entry.resource_version, place, has_client)
        return known[1:]


def _counts(record: Record) -> bool:
    return record.client_id is not None and record.owner_kind in OWNERS


def _record(entry: Cached) -> Record | None:
    annotations = entry.body()["metadata"].get("annotations") or {}
    try:
        return Record.model_validate_json(annotations.get(ANNOTATION, ""))
    except ValueError:
        return None
