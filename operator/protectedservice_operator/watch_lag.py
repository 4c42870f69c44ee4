"""Is a watch deaf? A full list shows changes that the watch should have delivered; after a minute they are missed.

A quiet kind is silent for good reasons, so silence proves nothing. What a resync found and no event confirmed within a
minute proves that the watch lost something. Misses without a single event in between, three times over, mean that
nothing comes through any more, and only a new process helps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Final

from .cache import Cached, newer
from .cluster_api import Object
from .metrics import Metrics
from .resource import Kind

# Seconds within which a healthy watch delivers; it takes milliseconds, and minutes only while it reconnects.
PATIENCE: Final = 60.0
STRIKES: Final = 3


class WatchLag:
    """Keeps what a resync found until the watch confirms it. `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float], metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._suspects: dict[tuple[Kind, str], tuple[str, float]] = {}  # kind, uid -> resourceVersion, since
        self._strikes: defaultdict[Kind, int] = defaultdict(int)

    def suspect(self, entry: Cached) -> None:
        """A resync found this change (for a deletion: the entry as it was) before the watch told of it."""
        self._suspects.setdefault((entry.kind, entry.uid), (entry.resource_version, self._clock()))

    def delivered(self, kind: Kind, obj: Object) -> None:
        """The watch told of this object: it is not deaf, and this change is no suspect any more."""
        self._strikes.pop(kind, None)
        metadata = obj["metadata"]
        suspect = self._suspects.get((kind, metadata.get("uid", "")))
        if suspect is not None and not newer(suspect[0], str(metadata.get("resourceVersion", ""))):
            del self._suspects[kind, metadata["uid"]]

    def judge(self) -> set[Kind]:
        """Count what was never delivered; returns the kinds with new misses, which deserve another resync soon."""
        now = self._clock()
        missed = [place for place, (_, since) in self._suspects.items() if now - since >= PATIENCE]
        for kind, uid in missed:
            del self._suspects[kind, uid]
            self._metrics.watch_lag_detected.labels(kind=kind.kind).inc()
        kinds = {kind for kind, _ in missed}
        for kind in kinds:
            self._strikes[kind] += 1
        return kinds

    def deaf(self) -> list[Kind]:
        """Kinds whose watch must be taken for dead."""
        return [kind for kind, strikes in self._strikes.items() if strikes >= STRIKES]
