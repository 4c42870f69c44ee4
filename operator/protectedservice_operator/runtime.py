"""The operator between kopf and the reconcile: fills the cache, hands keys to the workers, keeps the watches honest.

    start: resync every kind (the sync barrier) ──> all keys, slowly ──> workers
    observe: a watch event ──> cache ──changed?──> queue
    resync, now and then: a full list ──> cache ──> queue       heals what a relist of the watch hides: deletions

kopf calls `start`, `observe` and `stop` and decides nothing; nothing here knows kopf.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from .cache import Cache, Resync
from .cluster_api import ClusterApi, Object
from .errors import NotFound, Outcome, Rejected
from .metrics import Metrics
from .resource import AUTHORIZATION_SERVER, NAMESPACE, OWNERS, SECRET, SWEEP, WATCHED, Key, Kind
from .triggers import Triggers
from .watch_lag import WatchLag
from .work_queue import Lane, WorkQueue
from .workers import Workers

logger = logging.getLogger(__name__)

# Seconds to wait at start for the API server and for the CRDs, both of which may be a moment younger than we are.
START_PATIENCE: Final = 60.0
START_RETRY: Final = 2.0
# Seconds after start until the first regular resync: a deletion between our list and kopf's first one is never told.
FIRST_RESYNC: Final = 15.0
# Seconds of quiet after a relist of the watch until the resync that it calls for.
AFTER_RELIST: Final = 10.0
# Seconds until the next try of a resync that failed, and until the one that confirms a missed change.
RESYNC_RETRY: Final = 30.0
CONFIRM_MISS: Final = 60.0
# Keys a second at start, so that probes and events are answered while 10,000 objects are looked at.
START_RATE: Final = 1000.0
# Seconds that passes may take to end when the operator stops: registering has a deadline of 10.
DRAIN: Final = 20.0
TICK: Final = 1.0


class StartFailed(Exception):
    """The caches could not be filled; the message says what is missing."""


async def identify_cluster(cluster: ClusterApi, clock: Callable[[], float]) -> str:
    """The uid of namespace kube-system, which nobody can change without making a new cluster. Raises StartFailed."""
    until = clock() + START_PATIENCE
    while True:
        try:
            namespace = await cluster.get(NAMESPACE, None, "kube-system")
        except (Outcome, Rejected) as error:
            if clock() >= until:
                raise StartFailed(f"cannot read namespace kube-system for the cluster's id: {error}") from error
            logger.warning("Cannot reach the cluster yet: %s; next try in %g s", error, START_RETRY)
            await asyncio.sleep(START_RETRY)
            continue
        if namespace is None:
            raise StartFailed("there is no namespace kube-system: set PROTECTEDSERVICE_CLUSTER_ID")
        return str(namespace["metadata"]["uid"])


def _count(cache: Cache, kind: Kind) -> float:
    return float(cache.count(kind))


class Runtime:
    """See the module. `clock` is monotonic seconds; `watched` maps kinds to the label selector of their watch."""

    def __init__(
        self,
        *,
        cluster: ClusterApi,
        cache: Cache,
        queue: WorkQueue,
        triggers: Triggers,
        workers: Workers,
        metrics: Metrics,
        clock: Callable[[], float],
        resync_interval: float,
        operator_namespace: str,
        rng: random.Random | None = None,
        watched: Mapping[Kind, str | None] = WATCHED,
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._queue = queue
        self._triggers = triggers
        self._workers = workers
        self._metrics = metrics
        self._clock = clock
        self._interval = resync_interval
        self._operator_namespace = operator_namespace
        self._random = rng or random.Random()  # noqa: S311 (spreads work, keeps no secret)
        self._watched = watched
        self._lag = WatchLag(clock, metrics)
        self._resync_due: dict[Kind, float] = {}
        self._relisted: set[Kind] = set()
        self._synced = False
        self._ticker: asyncio.Task[None] | None = None
        self._stopped = False
        metrics.observe(metrics.workqueue_depth, lambda: float(len(queue)))
        metrics.observe(metrics.workqueue_oldest, queue.oldest)
        for kind in watched:
            metrics.observe(metrics.cached_objects.labels(kind=kind.kind), partial(_count, cache, kind))

    async def start(self) -> None:
        """Fill the caches, then begin to work. Raises StartFailed."""
        began = self._clock()
        for kind in self._watched:
            await self._first_list(kind, until=began + START_PATIENCE)
        self._metrics.start_sync_seconds.set(self._clock() - began)
        self._synced = True
        for kind in self._watched:
            self._resync_due[kind] = self._clock() + FIRST_RESYNC * self._random.uniform(0.8, 1.2)
        keys = self._all_keys()
        for key in keys:
            self._queue.add_after(key, self._random.uniform(0, len(keys) / START_RATE), Lane.LOW)
        self._workers.start()
        self._ticker = asyncio.create_task(self._tick(), name="resync")
        logger.info("Filled the caches in %.1f s; %d keys to look at", self._clock() - began, len(keys))

    async def stop(self) -> None:
        """Take no more work and let what is under way end."""
        self._stopped = True
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        await self._workers.stop(DRAIN)

    def observe(self, kind: Kind, type_: str | None, obj: Object) -> None:
        """A watch event; type None is an item of a list that the watch began with. Takes microseconds."""
        if type_ is None:
            self._relisted.add(kind)
            self._resync_due[kind] = self._clock() + AFTER_RELIST
        self._lag.delivered(kind, obj)
        metadata = obj["metadata"]
        place = (metadata.get("namespace"), metadata["name"])
        before = self._cache.get(kind, *place)
        changed = self._cache.remove(kind, obj) if type_ == "DELETED" else self._cache.put(kind, obj)
        if changed:
            self._metrics.watch_events.labels(kind=kind.kind).inc()
            for key in self._triggers.keys_for(before, self._cache.get(kind, *place)):
                self._queue.add(key)

    async def resync(self, kind: Kind) -> Resync:
        """Compare the cache with a full list, and look again at whatever differed. Raises as `ClusterApi.list`."""
        explained = kind in self._relisted  # a relist of the watch hides deletions: no sign of deafness
        self._relisted.discard(kind)
        found = await self._cache.resync(kind, self._cluster.list(kind, label_selector=self._watched[kind]))
        self._metrics.resyncs.labels(kind=kind.kind).inc()
        if self._synced:
            self._metrics.resync_missed_deletes.labels(kind=kind.kind).inc(len(found.removed))
            for entry in found.changed if explained else (*found.changed, *found.removed):
                self._lag.suspect(entry)
            for key in self._triggers.keys_for(*found):
                self._queue.add(key, Lane.LOW)
        return found

    async def resync_due(self) -> None:
        """The resyncs that are due now, and the verdict on the watches."""
        for kind in self._lag.judge():
            logger.warning("The watch of %s missed changes; comparing with a full list again soon", kind.plural)
            self._resync_due[kind] = min(self._resync_due[kind], self._clock() + CONFIRM_MISS)
        for kind in [kind for kind, due in self._resync_due.items() if due <= self._clock()]:
            # Set first: a relist seen meanwhile may bring it forward again.
            self._resync_due[kind] = self._clock() + self._interval * self._random.uniform(0.8, 1.2)
            try:
                found = await self.resync(kind)
            except (Outcome, NotFound, Rejected) as error:
                logger.warning("Could not list %s: %s; next try in %g s", kind.plural, error, RESYNC_RETRY)
                self._resync_due[kind] = self._clock() + RESYNC_RETRY
                continue
            if found.removed:
                logger.info("A full list of %s showed %d deletions unseen before", kind.plural, len(found.removed))

    def not_ready(self) -> list[str]:
        """Why the operator is not ready; empty when it is. Never on account of an authorization server."""
        faults = [] if self._synced else ["the caches are not filled yet"]
        return faults + (["the operator is stopping"] if self._stopped else [])

    def not_alive(self) -> list[str]:
        """Why only a new process helps; empty when all is well."""
        faults = [f"the watch of {kind.plural} delivers nothing any more" for kind in self._lag.deaf()]
        if self._workers.dead:
            faults.append(f"{self._workers.dead} workers have died")
        if self._ticker is not None and self._ticker.done() and not self._stopped:
            faults.append("the resync loop has died")
        return faults

    async def _first_list(self, kind: Kind, until: float) -> None:
        while True:
            try:
                await self.resync(kind)
            except (Outcome, NotFound, Rejected) as error:
                if self._clock() >= until:
                    hint = "; apply crds/ first" if isinstance(error, NotFound) else ""
                    raise StartFailed(f"cannot list {kind.plural}: {error}{hint}") from error
                logger.warning("Cannot list %s yet: %s; next try in %g s", kind.plural, error, START_RETRY)
                await asyncio.sleep(START_RETRY)
            else:
                return

    def _all_keys(self) -> set[Key]:
        entries = [entry for kind in (*OWNERS.values(), AUTHORIZATION_SERVER) for entry in self._cache.all(kind)]
        # The ledger too: an entry without an object is work of its own.
        entries += [secret for secret in self._cache.all(SECRET) if secret.namespace == self._operator_namespace]
        return self._triggers.keys_for(*entries) | {Key(SWEEP, self._operator_namespace, "orphans")}

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            await self.resync_due()
