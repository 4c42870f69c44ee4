"""Kubernetes Events: what `kubectl describe` tells about an object's transitions.

Events are for people. Losing one costs nothing that matters, so nothing here ever fails a pass; repeating one costs
everybody's attention, so the same words about the same object are posted once in ten minutes.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from .cluster_api import ClusterApi
from .errors import AlreadyExists, NotFound, Outcome, Rejected
from .metrics import Metrics
from .resource import EVENT, FIELD_MANAGER, Kind, Meta

logger = logging.getLogger(__name__)

# Seconds in which the same words about the same object are not repeated.
QUIET: Final = 600.0
# Characters: the API server refuses longer messages.
MESSAGE_LIMIT: Final = 1024
# What was said recently, over all objects: some 200 bytes each.
MEMORY: Final = 10_000

EventType = Literal["Normal", "Warning"]


@dataclass(frozen=True)
class ObjectRef:
    """The object an Event is about."""

    kind: Kind
    namespace: str
    name: str
    uid: str


class Tell(Protocol):
    """Takes Events about one object."""

    async def __call__(self, type_: EventType, reason: str, message: str, /) -> None: ...


class Recorder:
    """Posts Events. `clock` is monotonic seconds, `now` the time of day."""

    def __init__(
        self,
        cluster: ClusterApi,
        clock: Callable[[], float],
        now: Callable[[], dt.datetime],
        metrics: Metrics | None = None,
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._now = now
        self._metrics = metrics
        self._said: OrderedDict[tuple[str, str, str], float] = OrderedDict()

    def about(self, kind: Kind, meta: Meta) -> Tell:
        """Where Events about this object go."""
        reference = ObjectRef(kind, meta.namespace, meta.name, meta.uid)

        async def tell(type_: EventType, reason: str, message: str, /) -> None:
            await self.record(reference, type_, reason, message)

        return tell

    async def record(self, about: ObjectRef, type_: EventType, reason: str, message: str) -> None:
        """Post it, unless the same was said of this object within ten minutes. Never raises but cancellation."""
        saying = (about.uid, reason, message)
        said = self._said.get(saying)
        if said is not None and self._clock() - said < QUIET:
            self._count("repeated")
            return
        try:
            await self._cluster.create(EVENT, self._event(about, type_, reason, message))
        except (Outcome, NotFound, AlreadyExists, Rejected) as error:
            # A namespace that is being terminated takes no Events (403): that is no news.
            terminating = isinstance(error, Rejected) and error.status == 403
            level = logging.DEBUG if terminating else logging.WARNING
            logger.log(level, "no Event %s for %s %s/%s: %s", reason, about.kind, about.namespace, about.name, error)
            self._count("failed")
            if not terminating:
                return
        else:
            self._count("posted")
        self._said[saying] = self._clock()
        self._said.move_to_end(saying)
        while len(self._said) > MEMORY:
            self._said.popitem(last=False)

    def _event(self, about: ObjectRef, type_: EventType, reason: str, message: str) -> dict[str, Any]:
        stamp = self._now().astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{about.name}.", "namespace": about.namespace},
            "involvedObject": {
                "apiVersion": about.kind.api_version,
                "kind": about.kind.kind,
                "namespace": about.namespace,
                "name": about.name,
                "uid": about.uid,
            },
            "type": type_,
            "reason": reason,
            "message": message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…",
            "source": {"component": FIELD_MANAGER},
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": "",
            "firstTimestamp": stamp,
            "lastTimestamp": stamp,
            "count": 1,
        }

    def _count(self, fate: str) -> None:
        if self._metrics:
            self._metrics.events.labels(fate=fate).inc()
