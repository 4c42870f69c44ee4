"""What the caches show about one ServiceClient, put together for its plan. Reads memory only."""

from __future__ import annotations

from .authorization_servers import AuthorizationServers
from .cache import Cache
from .gather import Gatherer
from .protected_service import ProtectedService
from .registration.ledger import Record, Role
from .resource import PROTECTED_SERVICE, SERVICE_CLIENT, Key, Reference
from .service_client import ServiceClient
from .service_client_observed import Called, ObservedCaller


class CallerGatherer:
    """Puts `ObservedCaller` together, out of what `gatherer` knows of services."""

    def __init__(self, cache: Cache, servers: AuthorizationServers, gatherer: Gatherer) -> None:
        self._cache, self._servers, self._gatherer = cache, servers, gatherer

    def service_client(self, key: Key) -> ServiceClient | None:
        """The object as the watch last showed it."""
        cached = self._cache.get(SERVICE_CLIENT, key.namespace, key.name)
        return ServiceClient.parse(cached.body()) if cached else None

    def forget(self, key: Key) -> None:
        """The object is gone."""
        self._gatherer.audiences.ask(key, None, None)

    def observe(self, caller: ServiceClient) -> ObservedCaller:
        """Everything a plan for this ServiceClient may look at."""
        gatherer = self._gatherer
        ledger = gatherer.ledger(caller)
        reference = gatherer.reference(caller, ledger)
        server = gatherer.server(reference)
        holder = gatherer.audiences.ask(caller.key, reference, caller.audience)
        return ObservedCaller(
            service=caller,
            reference=reference,
            server=server,
            unreachable=self._servers.unreachable(server) if server else None,
            refused=self._servers.refused(server) if server else None,
            namespace_labels=gatherer.namespace_labels(caller.meta.namespace),
            called={named: self._called(named) for named in caller.services},
            audience_holder=self._called(holder) if holder is not None else None,
            ledger=ledger,
            ledger_digests=gatherer.ledger_digests(caller),
            projection=gatherer.projection(caller),
            check_due=gatherer.check_due(caller),
        )

    def _called(self, place: Reference) -> Called | None:
        cached = self._cache.get(PROTECTED_SERVICE, place.namespace, place.name)
        if cached is None:
            return None
        gatherer, service = self._gatherer, ProtectedService.parse(cached.body())
        ledger = gatherer.ledger(service)
        reference = gatherer.reference(service, ledger)
        return Called(
            service=service,
            reference=reference,
            audience_holder=gatherer.audiences.holder(service, reference, ledger),
            client_id=ledger.client_id if ledger is not None else None,
            second_client_id=_second(ledger),
        )


def _second(ledger: Record | None) -> str | None:
    """The client that a rotation has beside the one in use, unless it is of no use."""
    second = ledger.second if ledger is not None else None
    return second.client_id if second is not None and second.role is not Role.SURPLUS else None
