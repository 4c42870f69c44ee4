"""What the operator reports about an AuthorizationServer: its status, and Events and log lines about what changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Final

from . import reasons
from .authorization_server import AuthorizationServer, Endpoints
from .authorization_server_status import (
    concerns_services,
    exposure,
    replacing,
    server_condition,
    spelt_capabilities,
    still_known,
)
from .cache import Cache
from .census import Census
from .cluster_api import ClusterApi
from .conditions import Condition, find_condition, merge_conditions
from .errors import NotFound, Outcome
from .events import EventType, Recorder
from .registration.driver import Capabilities
from .registration.kinds import admin_api_exposed
from .resource import AUTHORIZATION_SERVER, Reference

logger = logging.getLogger(__name__)

COUNT_INTERVAL: Final = 60.0  # seconds: status.registeredClients is written at most this often


class Reports:
    """About all of them. `clock` is monotonic seconds, `wall` seconds since the epoch."""

    def __init__(
        self,
        cluster: ClusterApi,
        cache: Cache,
        events: Recorder,
        census: Census,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._cluster, self._cache, self._events, self._census = cluster, cache, events, census
        self._clock, self._wall = clock, wall
        self._counted: dict[Reference, float] = {}

    async def publish(
        self,
        server: AuthorizationServer,
        endpoints: Endpoints | None,
        unreachable: Outcome | None,
        unready: Outcome | None,
        capabilities: Capabilities | None,
    ) -> bool:
        """One status patch, if it says anything new. Returns whether the services must look again."""
        old = server.status
        conditions = [
            server_condition(
                server, reasons.REACHABLE, unreachable, reasons.REACHABLE_NOW, "answers its metadata request"
            ),
            server_condition(
                server, reasons.READY, unready, reasons.READY_NOW, "answers and has our registration credential"
            ),
        ]
        if endpoints is not None and (exposed := admin_api_exposed(server, endpoints)) is not None:
            conditions.append(exposure(server, exposed))
        if (known := still_known(server, endpoints)) is not None:
            conditions.append(known)
        status: dict[str, Any] = {
            "observedGeneration": server.meta.generation,
            "conditions": merge_conditions(old.get("conditions") or (), conditions, self._wall()),
            "registeredClients": self._count(server),
        }
        if endpoints is not None:
            status["endpoints"] = endpoints.to_status()
        status["capabilities"] = spelt_capabilities(capabilities) if capabilities else old.get("capabilities") or {}
        if status == {key: old.get(key) for key in status} and status.keys() >= old.keys():
            return False
        # Keys that went away are removed by name: this is a merge patch.
        gone = {key: None for key in old if key not in status}
        patch = {"metadata": {"uid": server.meta.uid}, "status": {**gone, **replacing(old, status)}}
        try:
            body = await self._cluster.patch(
                AUTHORIZATION_SERVER, server.meta.namespace, server.meta.name, patch, subresource="status"
            )
        except NotFound:
            return False
        self._cache.put(AUTHORIZATION_SERVER, body)
        await self._tell(server, old, conditions)
        return concerns_services(old, status)

    def forget(self, reference: Reference) -> None:
        """The object is gone."""
        self._counted.pop(reference, None)

    async def _tell(self, server: AuthorizationServer, old: Mapping[str, Any], conditions: list[Condition]) -> None:
        tell = self._events.about(AUTHORIZATION_SERVER, server.meta)
        for condition in conditions:
            before = find_condition(old.get("conditions") or (), condition["type"])
            if before is not None and before["status"] == condition["status"]:
                other_words = condition["type"] == reasons.READY and before["reason"] != condition["reason"]
                if not (other_words and server.meta.is_going):
                    continue
            good = "False" if condition["type"] == reasons.ADMIN_API_EXPOSED else "True"
            type_: EventType = "Normal" if condition["status"] == good else "Warning"
            logger.log(
                logging.INFO if type_ == "Normal" else logging.WARNING,
                "AuthorizationServer %s: %s is %s: %s",
                server.reference,
                condition["type"],
                condition["status"],
                condition["message"],
            )
            await tell(type_, condition["reason"], condition["message"])

    def _count(self, server: AuthorizationServer) -> int:
        """Clients in the ledger; counted at most once a minute, because each new figure is a write."""
        old, now = server.status.get("registeredClients"), self._clock()
        if old is not None and now - self._counted.get(server.reference, float("-inf")) < COUNT_INTERVAL:
            return int(old)
        self._counted[server.reference] = now
        return self._census.clients(server.reference)
