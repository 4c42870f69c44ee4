"""Credentials that tenants bring (`client.credentialsSecret.create: false`): read live, remembered as digests.

The Secret is somebody else's: never written, owned or deleted. It is read at each pass, which a watch wakes where the
Secret is labelled `protectedservice.dev/watch: "true"`, and else time, every minute. Only a step that is to register
uses its values.

Whoever brings an id first has it: it may stand in no other ledger entry, and at the server no client of that id may be
anybody else's. What another pass is about to write into the ledger is known to this process, the only one that works.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from . import reasons
from .cache import Cache
from .cluster_api import ClusterApi
from .errors import Conflict, UserMustEdit
from .observed import Brought
from .registrant import Registrant
from .registration.brought import UnusableCredentials, digests, id_digest, names, registration_of
from .registration.driver import Driver, Finder, Registration
from .registration.ledger import ANNOTATION, SECRET_PREFIX, Record, secret_name
from .registration.names import owner_uid
from .resource import CLIENT_ID, CLIENT_SECRET, SECRET


class BroughtCredentials:
    """What was read last, by the service's uid; and who holds which client's id."""

    def __init__(self, cluster: ClusterApi, cache: Cache, namespace: str) -> None:
        self._cluster, self._cache, self._namespace = cluster, cache, namespace
        self._known: dict[str, Brought] = {}
        self._claims: dict[str, str] = {}  # client id -> uid of who is about to write it into the ledger

    async def learn(self, service: Registrant) -> None:
        """Look at the Secret of a service that brings its credentials."""
        if not service.brings_credentials:
            self._known.pop(service.meta.uid, None)
            return
        try:
            registration = await self._read(service)
        except UnusableCredentials as unusable:
            self._known[service.meta.uid] = Brought(fault=str(unusable))
            return
        self._known[service.meta.uid] = Brought(client_id=registration.client_id, digests=digests(registration))

    def known(self, service: Registrant) -> Brought | None:
        """What was brought, as last seen, and whether another object has that client already."""
        brought = self._known.get(service.meta.uid)
        if brought is None or brought.client_id is None:
            return brought
        return Brought(
            client_id=brought.client_id,
            digests=brought.digests,
            taken=self._is_taken(brought.digests["client_id"], service.meta.uid),
        )

    def forget(self, uid: str) -> None:
        """The service is gone."""
        self._known.pop(uid, None)

    async def read(self, service: Registrant) -> Registration:
        """The values themselves. Raises Conflict when they are not those that the plan saw."""
        try:
            registration = await self._read(service)
        except UnusableCredentials as unusable:
            raise Conflict(reasons.CREDENTIALS_NOT_BROUGHT, str(unusable)) from None
        known = self._known.get(service.meta.uid)
        if known is None or known.digests != digests(registration):
            raise Conflict(reasons.PENDING, f"Secret {service.credentials_secret} changed meanwhile")
        return registration

    @contextmanager
    def claim(self, service: Registrant, client_id: str) -> Iterator[None]:
        """Keep every other pass from writing this client into the ledger while this one does.

        Raises UserMustEdit when somebody has it.
        """
        uid = service.meta.uid
        digest = id_digest(Registration(client_id, ""))
        if client_id in self._claims or self._is_taken(digest, uid):
            raise client_taken(service, client_id)
        self._claims[client_id] = uid
        try:
            yield
        finally:
            del self._claims[client_id]

    async def check_server(self, service: Registrant, client_id: str, driver: Driver) -> None:
        """Raise UserMustEdit when the server has a client of that id that does not carry this service's tag."""
        if not isinstance(driver, Finder):
            return
        found = await driver.find(client_id)
        if found is not None and owner_uid(found.tag) != service.meta.uid:
            raise client_taken(service, client_id)

    async def _read(self, service: Registrant) -> Registration:
        namespace, name = service.meta.namespace, service.credentials_secret
        secret = await self._cluster.get(SECRET, namespace, name)
        place = f"Secret {namespace}/{name} (spec.client.credentialsSecret)"
        keys = {name: key for key, name in service.credentials_keys.items()}
        return registration_of(secret, place, keys[CLIENT_ID], keys[CLIENT_SECRET])

    def _is_taken(self, digest: str, uid: str) -> bool:
        for entry in self._cache.all(SECRET):
            if (
                entry.namespace != self._namespace
                or not entry.name.startswith(SECRET_PREFIX)
                or entry.name == secret_name(uid)
                or not names(entry.digests, digest)
            ):
                continue
            try:
                record = Record.model_validate_json(entry.body()["metadata"]["annotations"][ANNOTATION])
            except (ValueError, KeyError):
                return True  # whoever wrote it: unknown means no
            if not record.is_foreign:  # a client that nobody registered may be used by many
                return True
        return False


def client_taken(service: Registrant, client_id: str) -> UserMustEdit:
    """Says no more than that: not whose the client is."""
    text = (
        f"client {client_id}, which Secret {service.meta.namespace}/{service.credentials_secret} brings, is there "
        "already and not this service's; bring another client id"
    )
    return UserMustEdit(reasons.CLIENT_ID_TAKEN, text)
