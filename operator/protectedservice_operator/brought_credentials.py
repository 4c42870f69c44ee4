"""Credentials that tenants bring, to use them (`client.credentialsSecret.create: false`) or to prove with them that a
client is theirs (`client.adopt`): read live, remembered as digests.

The Secret is somebody else's: never written, owned or deleted. It is read at each pass, which a watch wakes where the
Secret is labelled `protectedservice.dev/watch: "true"`, and else time, every minute. Only a step that is to register
uses its values.

Whoever brings an id first has it: it may stand in no other ledger entry, and at the server no client of that id may be
anybody else's. One that an object of the same namespace left on purpose (`retained`) may be adopted. What another pass
is about to write into the ledger is known to this process, the only one that works.
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
from .registration.ledger import ANNOTATION, SECRET_PREFIX, Record, State, has_second, secret_name
from .registration.names import owner_uid
from .resource import CLIENT_ID, CLIENT_SECRET, OWNERS, SECRET


class BroughtCredentials:
    """What was read last, by the service's uid; and who holds which client's id."""

    def __init__(self, cluster: ClusterApi, cache: Cache, namespace: str) -> None:
        self._cluster, self._cache, self._namespace = cluster, cache, namespace
        self._known: dict[str, Brought] = {}
        self._claims: dict[str, str] = {}  # client id -> uid of who is about to write it into the ledger

    async def learn(self, service: Registrant) -> None:
        """Look at the Secret of a service that brings credentials."""
        if not service.brings_credentials and service.adoption is None:
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
            taken=self._is_taken(brought.digests["client_id"], service),
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
            raise Conflict(reasons.PENDING, "the Secret that brings the client's credentials changed meanwhile")
        return registration

    @contextmanager
    def claim(self, service: Registrant, client_id: str) -> Iterator[None]:
        """Keep every other pass from writing this client into the ledger while this one does.

        Raises UserMustEdit when somebody has it.
        """
        digest = id_digest(Registration(client_id, ""))
        if client_id in self._claims or self._is_taken(digest, service):
            raise client_taken(service, client_id)
        self._claims[client_id] = service.meta.uid
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
        namespace, adoption = service.meta.namespace, service.adoption
        if adoption is None:
            keys = {name: key for key, name in service.credentials_keys.items()}
            secret = await self._cluster.get(SECRET, namespace, service.credentials_secret)
            place = f"Secret {namespace}/{service.credentials_secret} (spec.client.credentialsSecret)"
            return registration_of(secret, place, keys[CLIENT_ID], keys[CLIENT_SECRET])
        secret = await self._cluster.get(SECRET, namespace, adoption.credentials_secret)
        place = f"Secret {namespace}/{adoption.credentials_secret} (spec.client.adopt.credentialsSecret)"
        registration = registration_of(secret, place, adoption.client_id_key, adoption.client_secret_key, ours=True)
        if registration.client_id != adoption.client_id:
            raise UnusableCredentials(
                f"{place}: key {adoption.client_id_key} is not {adoption.client_id}, which spec.client.adopt names; "
                "correct one of them"
            )
        return registration

    def _is_taken(self, digest: str, service: Registrant) -> bool:
        for entry in self._cache.all(SECRET):
            if (
                entry.namespace != self._namespace
                or not entry.name.startswith(SECRET_PREFIX)
                or entry.name == secret_name(service.meta.uid)
                or not names(entry.digests, digest)
            ):
                continue
            try:
                record = Record.model_validate_json(entry.body()["metadata"]["annotations"][ANNOTATION])
            except (ValueError, KeyError):
                return True  # whoever wrote it: unknown means no
            # A client that nobody registered may be used by many.
            if not record.is_foreign and not (service.adoption is not None and self._is_left_to(record, service)):
                return True
        return False

    def _is_left_to(self, record: Record, service: Registrant) -> bool:
        """Whether the client was left on purpose by an object of the same namespace that is gone."""
        return (
            record.state is State.RETAINED
            and not has_second(record)
            and record.owner_namespace == service.meta.namespace
            and not lives(self._cache, record.owner_uid)
        )


def lives(cache: Cache, uid: str) -> bool:
    """Whether there is an object of this uid that owns a client."""
    return any(entry.uid == uid for kind in OWNERS.values() for entry in cache.all(kind))


def client_taken(service: Registrant, client_id: str) -> UserMustEdit:
    """Says no more than that: not whose the client is."""
    if service.adoption is not None:
        text = (
            f"client {client_id}, which spec.client.adopt names, is another object's already; adopt another client, or "
            "wait until that one is released"
        )
        return UserMustEdit(reasons.CLIENT_ID_TAKEN, text)
    text = (
        f"client {client_id}, which Secret {service.meta.namespace}/{service.credentials_secret} brings, is there "
        "already and not this service's; bring another client id"
    )
    return UserMustEdit(reasons.CLIENT_ID_TAKEN, text)
