"""What stands behind an upstream that is to be isolated: read live, remembered until the next pass.

The Service and its pods are the tenant's, and no watch shows them: the operator keeps nothing of pods that are not its
own. They are read in each pass over a service that asks for isolation, and such a service is looked at every few
minutes.
"""

from __future__ import annotations

from typing import Final

from .cache import Cache
from .cluster_api import ClusterApi
from .isolation import Fault, Isolated, behind
from .manifests import pod_labels
from .protected_service import ProtectedService
from .resource import NETWORK_POLICY, POD, PROTECTED_SERVICE, SERVICE

LOOK_AGAIN: Final = 300.0  # seconds between two looks at an upstream that nobody changes


class UpstreamPods:
    """What was read last, by the service's uid."""

    def __init__(self, cluster: ClusterApi, cache: Cache) -> None:
        self._cluster, self._cache = cluster, cache
        self._known: dict[str, Isolated | Fault] = {}

    async def learn(self, service: ProtectedService) -> None:
        """Look at the upstream of a service that isolates it. Raises errors.Outcome where the cluster is away."""
        name, meta = service.isolated_upstream, service.meta
        if name is None or service.upstream is None or meta.deletion_timestamp is not None:
            self._known.pop(meta.uid, None)
            return
        found = await self._cluster.get(SERVICE, meta.namespace, name)
        selector = ((found or {}).get("spec") or {}).get("selector") or {}
        pods = []
        if selector:
            words = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
            pods = [pod async for pod in self._cluster.list(POD, namespace=meta.namespace, label_selector=words)]
        others = [
            entry.body()
            for entry in self._cache.all(NETWORK_POLICY)
            if entry.namespace == meta.namespace and entry.owner_kind != PROTECTED_SERVICE.kind
        ]
        place = f"{meta.namespace}/{name}"
        self._known[meta.uid] = behind(found, place, service.upstream.port, pods, pod_labels(service), others)

    def known(self, service: ProtectedService) -> Isolated | Fault | None:
        """What there is to isolate, or why it cannot be; None where nothing is to be, or before the first look."""
        return self._known.get(service.meta.uid)

    def forget(self, uid: str) -> None:
        """The service is gone."""
        self._known.pop(uid, None)
