"""Which ServiceClients name which ProtectedService, so that a change of one wakes those who call it. No I/O."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from .cache import Cache, Cached
from .resource import PROTECTED_SERVICE, SERVICE_CLIENT, Key, Reference
from .service_client import named_services


class Callers:
    """An index made from the whole cache when it is first asked, and kept by the changes that come by."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._named: dict[Key, frozenset[Reference]] | None = None
        self._callers: defaultdict[Reference, set[Key]] = defaultdict(set)

    def concerned_by(self, entry: Cached) -> Iterator[Key]:
        """The ServiceClients that name this entry, if it is a service; one of them is taken in as it is now."""
        if self._named is None:
            self._named = {}
            for known in self._cache.all(SERVICE_CLIENT):
                self._take(self._named, known.namespace, known.name)
        if entry.kind == SERVICE_CLIENT:
            self._take(self._named, entry.namespace, entry.name)
        elif entry.kind == PROTECTED_SERVICE:
            yield from self._callers.get(Reference(entry.namespace, entry.name), ())

    def _take(self, named: dict[Key, frozenset[Reference]], namespace: str, name: str) -> None:
        key = Key(SERVICE_CLIENT.kind, namespace, name)
        for service in named.pop(key, ()):
            self._callers[service].discard(key)
            if not self._callers[service]:
                del self._callers[service]
        cached = self._cache.get(SERVICE_CLIENT, namespace, name)
        if cached is not None:
            named[key] = frozenset(named_services(cached.body()))
            for service in named[key]:
                self._callers[service].add(key)
