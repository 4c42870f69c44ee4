"""Passes over ServiceClients: the same as over ProtectedServices, without a workload."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import service_client_plan, service_client_status, steps
from .errors import Outcome
from .passes import Parts, Passes
from .resource import Key
from .service_client import ServiceClient
from .service_client_gather import CallerGatherer
from .service_client_observed import ObservedCaller


class ServiceClients(Passes[ServiceClient, ObservedCaller]):
    """All of them."""

    def __init__(self, parts: Parts) -> None:
        super().__init__(parts)
        self._callers = CallerGatherer(parts.cache, parts.servers, parts.gatherer)
        self._uids: dict[Key, str] = {}

    async def reconcile(self, key: Key) -> float | None:
        """One pass, as `Passes.one`; None when the object is gone."""
        caller = self.find(key)
        uid = self._uids.pop(key, None)
        if uid is not None and (caller is None or caller.meta.uid != uid):
            self._checks.forget(uid)
        if caller is None:
            self._callers.forget(key)
            return None
        self._uids[key] = caller.meta.uid
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
