"""Passes over ServiceClients: the same as over ProtectedServices, without a workload."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from . import service_client_plan, service_client_status, steps
from .authorization_servers import AuthorizationServers
from .cache import Cache
from .children import Children
from .clients import Clients
from .cluster_api import ClusterApi
from .errors import Outcome
from .events import Recorder
from .gather import Gatherer
from .observed import Settings
from .passes import Passes
from .resource import Key
from .service_client import ServiceClient
from .service_client_gather import CallerGatherer
from .service_client_observed import ObservedCaller


class ServiceClients(Passes[ServiceClient, ObservedCaller]):
    """All of them. `wall` is seconds since the epoch."""

    def __init__(
        self,
        cluster: ClusterApi,
        cache: Cache,
        servers: AuthorizationServers,
        events: Recorder,
        gatherer: Gatherer,
        clients: Clients,
        children: Children,
        settings: Settings,
        *,
        namespace: str,
        wake: Callable[[Key], None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            cluster,
            cache,
            servers,
            events,
            gatherer,
            clients,
            children,
            settings,
            namespace=namespace,
            wake=wake,
            wall=wall,
        )
        self._callers = CallerGatherer(cache, servers, gatherer)

    async def reconcile(self, key: Key) -> float | None:
        """One pass, as `Passes.one`; None when the object is gone."""
        caller = self.find(key)
        if caller is None:
            self._callers.forget(key)
            return None
        return await self.one(key, caller)

    def find(self, key: Key) -> ServiceClient | None:
        """The object as the watch last showed it."""
        return self._callers.service_client(key)

    def observe(self, service: ServiceClient) -> ObservedCaller:
        """Everything its plan may look at."""
        return self._callers.observe(service)

    def next_step(self, observed: ObservedCaller, settled: Mapping[str, Outcome]) -> steps.Step | steps.Blocked | None:
        """What its plan says."""
        return service_client_plan.next_step(observed, self._settings, self._wall(), settled)

    def status(self, observed: ObservedCaller, settled: Mapping[str, Outcome]) -> dict[str, Any]:
        """The whole status that it should show now."""
        return service_client_status.status(observed, self._settings, settled, self._wall())
