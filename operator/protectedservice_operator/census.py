"""Which AuthorizationServer each client in the ledger lives at."""

from __future__ import annotations

from .cache import Cache, Cached
from .registration.ledger import ANNOTATION, SECRET_PREFIX, Record
from .resource import OWNERS, SECRET, Reference


class Census:
    """Counts the clients in the ledger. Entries are parsed once per version."""

    def __init__(self, cache: Cache, namespace: str) -> None:
        self._cache, self._namespace = cache, namespace
        self._ledger: dict[str, tuple[str, str | None]] = {}  # entry -> its resourceVersion, its client's server

    def clients(self, server: Reference) -> int:
        """How many clients of ours live at this server, but for the probe client, which is there for a moment."""
        return sum(self._server(entry) == str(server) for entry in self._cache.all(SECRET))

    def _server(self, entry: Cached) -> str | None:
        """Which AuthorizationServer a ledger entry's client lives at; None: no client, or no ledger entry of ours.

        Only Secrets of the operator's own namespace count: anybody may label one of theirs as a ledger entry.
        """
        if entry.namespace != self._namespace or not entry.name.startswith(SECRET_PREFIX):
            return None
        known = self._ledger.get(entry.name)
        if known is None or known[0] != entry.resource_version:
            annotations = entry.body()["metadata"].get("annotations") or {}
            try:
                record = Record.model_validate_json(annotations.get(ANNOTATION, ""))
                place = record.server if record.client_id is not None and record.owner_kind in OWNERS else None
            except ValueError:
                place = None
            known = self._ledger[entry.name] = (entry.resource_version, place)
        return known[1]
