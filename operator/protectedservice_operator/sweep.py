"""The orphan sweep: every hour the clients in the ledger whose object is gone are told, and, if so asked, deleted.

What it takes for a deletion, each a fuse of its own:

1. `PROTECTEDSERVICE_ORPHAN_SWEEP=delete`; the default only reports.
2. The ledger knows the client: a tag at the server is no proof, anybody may write one.
3. Two sweeps, ten minutes apart at least, saw no object in the watch cache.
4. The Kubernetes API, asked at this moment, knows no object of that uid.
5. At most `limit` clients a sweep, and none at all while more than half of the ledger would go: then the objects were
   not deleted one by one, but something happened to all of them (their CRD, a restored backup), and a person decides,
   with `protectedservice-operator orphans`.

The deletion itself is that of any client: written down, repeated until it is done, see `Clients.finish_leftover`.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import Final

from . import reasons
from .authorization_server import AuthorizationServer
from .cache import Cache
from .cluster_api import ClusterApi
from .errors import Conflict
from .events import EventType, Recorder
from .gather import ledger_record
from .metrics import Metrics
from .observed import is_repeatable
from .orphans import Fate, Orphan, orphans
from .registration.deregistrar import Deregistrar
from .registration.ledger import SECRET_PREFIX, Record
from .resource import AUTHORIZATION_SERVER, LEDGER, LEDGER_OWNERS, SECRET, Key, Reference

logger = logging.getLogger(__name__)

RIPE: Final = 600.0  # seconds between the first sight of an orphan and its deletion (design: older than 10 min)
FEW: Final = 10  # entries below which no share of the ledger says anything
_BEGUN: Final = (Fate.DELETING, Fate.SERVER_DELETED)  # nothing is left to be begun


class OrphanSweep:
    """One pass looks through the whole ledger. `clock` is monotonic seconds, `wall` the time of day.

    Args:
        deletes: whether orphans are deleted; else they are only told.
        interval: seconds between two sweeps; the first falls anywhere within it, so that restarts do not add up.
        limit: deletions a sweep.
    """

    def __init__(
        self,
        cluster: ClusterApi,
        cache: Cache,
        deregistrar: Deregistrar,
        events: Recorder,
        wake: Callable[[Key], None],
        *,
        namespace: str,
        deletes: bool = False,
        interval: float = 3600.0,
        limit: int = 10,
        metrics: Metrics | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._cluster, self._cache, self._deregistrar = cluster, cache, deregistrar
        self._events, self._wake, self._metrics = events, wake, metrics
        self._namespace, self._deletes, self._interval, self._limit = namespace, deletes, interval, limit
        self._clock, self._wall, self._jitter = clock, wall, jitter
        self._due = clock() + interval * jitter()
        self._seen: dict[str, float] = {}  # entry -> when it was first seen without its object
        self._told: set[str] = set()
        self._blown = False

    async def sweep(self) -> float:
        """One sweep, if it is due. Returns the seconds until the next one."""
        now = self._clock()
        if now < self._due:
            return self._due - now
        entries = self._entries()
        found = orphans(entries, self._lives, lambda record: self._server(record) is not None)
        names = {orphan.entry for orphan in found}
        self._seen = {name: since for name, since in self._seen.items() if name in names}
        self._told &= names
        ripe = [orphan for orphan in found if now - self._seen.setdefault(orphan.entry, now) >= RIPE]
        self._count(found)
        confirmed = [orphan for orphan in ripe if orphan.fate not in _BEGUN and not await self._exists(orphan)]
        for orphan in confirmed:
            await self._tell(orphan)
        deletable = [orphan for orphan in confirmed if orphan.fate is Fate.DELETABLE]
        if self._deletes and deletable and self._may_delete(len(deletable), len(entries)):
            for orphan in deletable[: self._limit]:
                await self._delete(orphan)
        # An unripe one is looked at again as soon as it may be ripe.
        wait = self._interval if len(ripe) == len(found) else min(self._interval, RIPE)
        wait *= 1.0 + 0.1 * self._jitter()
        self._due = now + wait
        return wait

    def _entries(self) -> list[tuple[str, Record]]:
        found = []
        for entry in self._cache.all(SECRET):
            if entry.namespace != self._namespace or not entry.name.startswith(SECRET_PREFIX):
                continue
            try:
                found.append((entry.name, ledger_record(entry.body())))
            except (ValueError, KeyError):
                continue  # not written by us: nothing is done about it
        return found

    def _lives(self, record: Record) -> bool:
        kind = LEDGER_OWNERS.get(record.owner_kind)
        if kind is None:
            return True  # of a kind that this version does not know: unknown is no reason to delete
        cached = self._cache.get(kind, record.owner_namespace, record.owner_name)
        return cached is not None and cached.uid == record.owner_uid

    async def _exists(self, orphan: Orphan) -> bool:
        record = orphan.record
        body = await self._cluster.get(LEDGER_OWNERS[record.owner_kind], record.owner_namespace, record.owner_name)
        return body is not None and body["metadata"]["uid"] == record.owner_uid

    def _may_delete(self, wanted: int, known: int) -> bool:
        blown = wanted > FEW and wanted * 2 > known
        if blown and not self._blown:
            logger.error(
                "%d of %d clients in the ledger have no object any more: so many at once are not deleted by the sweep; "
                "look with `protectedservice-operator orphans list`, delete with `orphans delete`",
                wanted,
                known,
            )
        self._blown = blown
        return not blown

    async def _tell(self, orphan: Orphan) -> None:
        """Once a process: a Warning at the AuthorizationServer, since the object that it was about is gone."""
        if orphan.entry in self._told:
            return
        self._told.add(orphan.entry)
        cure = {
            Fate.ADOPTED: "it was adopted and stays; delete its ledger entry, and it can be adopted again",
            Fate.BY_HAND: "delete it at the server by hand, then its ledger entry",
            Fate.DELETABLE: "it is deleted now" if self._deletes else "see `protectedservice-operator orphans`",
        }[orphan.fate]
        text = f"Client {orphan.client} at {orphan.record.server} belonged to {orphan.owner}, which is gone: {cure}"
        logger.warning("%s (ledger entry %s)", text, orphan.entry)
        if (server := self._server(orphan.record)) is not None:
            await self._events.about(AUTHORIZATION_SERVER, server.meta)("Warning", reasons.CLIENT_ORPHANED, text)

    def _server(self, record: Record) -> AuthorizationServer | None:
        place = Reference.parse(record.server)
        cached = self._cache.get(AUTHORIZATION_SERVER, place.namespace, place.name)
        return AuthorizationServer.parse(cached.body()) if cached is not None else None

    async def _delete(self, orphan: Orphan) -> None:
        try:
            server = self._server(orphan.record)
            tell = self._events.about(AUTHORIZATION_SERVER, server.meta) if server else _nobody
            await self._deregistrar.start_orphans_deletion(
                orphan.record.owner_uid,
                repeatable=lambda record: is_repeatable(server, self._wall() - record.attempt_started),
                tell=tell,
            )
        except Conflict as moved:
            logger.info("%s: left for the next sweep: %s", orphan.entry, moved.message)
            return
        self._wake(Key(LEDGER, self._namespace, orphan.entry))

    def _count(self, found: list[Orphan]) -> None:
        if self._metrics:
            for fate in Fate:
                self._metrics.orphans.labels(fate=fate.value).set(sum(orphan.fate is fate for orphan in found))


async def _nobody(_: EventType, __: str, ___: str, /) -> None:
    """The AuthorizationServer is gone, too: there is nobody left to tell but the log."""
