"""Which keys a change concerns. No I/O.

| what changed | what is looked at again |
| --- | --- |
| ProtectedService, ServiceClient, AuthorizationServer | itself |
| a ProtectedService | the ServiceClients that name it |
| a child, by controller ownerReference | its ProtectedService or ServiceClient |
| anything of ours without an owner (pods, a child robbed of its owner), by label | the service of that name |
| such a Secret | the ServiceClient of that name, too |
| a ProtectedService, ServiceClient or AuthorizationServer that is gone | its ledger entry too |
| a ledger Secret | its object; the ledger entry itself when that is gone; its AuthorizationServer if that is going |
| a namespace | every ProtectedService, ServiceClient and AuthorizationServer in it |
| anything | what `related` names besides: the services of an AuthorizationServer, the readers of a Secret, and the |
| | isolating services beside a NetworkPolicy |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator

from .cache import Cache, Cached
from .protected_service import ProtectedService
from .registration.ledger import ANNOTATION as LEDGER_ANNOTATION
from .registration.ledger import SECRET_PREFIX, secret_name
from .resource import (
    AUTHORIZATION_SERVER,
    LEDGER,
    LEDGER_OWNERS,
    NAMESPACE,
    NETWORK_POLICY,
    OWNERS,
    PROTECTED_SERVICE,
    SECRET,
    SERVICE_CLIENT,
    Key,
)

Related = Callable[[Cached], Iterable[Key]]


def nothing_related(_: Cached) -> Iterable[Key]:
    """For an operator that needs no more than the table above."""
    return ()


def related_by_content(cache: Cache) -> Related:
    """`related` for all that is told by no owner and no label."""
    secrets, policies = readers_of_secrets(cache), neighbours_of_policies(cache)

    def related(entry: Cached) -> Iterator[Key]:
        yield from secrets(entry)
        yield from policies(entry)

    return related


def neighbours_of_policies(cache: Cache) -> Related:
    """`related` for NetworkPolicies of others: the services of the same namespace that isolate their upstream."""

    def related(entry: Cached) -> Iterator[Key]:
        if entry.kind != NETWORK_POLICY or entry.owner_kind == PROTECTED_SERVICE.kind:
            return
        for service in cache.all(PROTECTED_SERVICE):
            if service.namespace == entry.namespace:
                parsed = ProtectedService.parse(service.body())
                if parsed.isolated_upstream is not None:
                    yield parsed.key

    return related


def readers_of_secrets(cache: Cache) -> Related:
    """`related` for Secrets: the AuthorizationServers and services of the same namespace that read them."""

    def related(entry: Cached) -> Iterator[Key]:
        if entry.kind != SECRET:
            return
        if entry.owner_kind not in OWNERS and not entry.name.startswith(SECRET_PREFIX):
            yield from _readers_of_brought(cache, entry)
        for server in cache.all(AUTHORIZATION_SERVER):
            if server.namespace == entry.namespace:
                spec = server.body()["spec"]
                credentials = spec.get("registration", {}).get("credentialsSecret") or {}
                authorities = spec.get("tls", {}).get("caBundle", {}).get("secret") or {}
                if entry.name in (credentials.get("name"), authorities.get("name")):
                    yield Key(AUTHORIZATION_SERVER.kind, server.namespace, server.name)

    return related


def _readers_of_brought(cache: Cache, entry: Cached) -> Iterator[Key]:
    for service in cache.all(PROTECTED_SERVICE):
        if service.namespace == entry.namespace:
            parsed = ProtectedService.parse(service.body())
            brought = parsed.credentials_secret if parsed.brings_credentials else None
            adopted = parsed.adoption.credentials_secret if parsed.adoption is not None else None
            if entry.name in (brought, adopted):
                yield parsed.key


class Triggers:
    """See the module. `related` is asked for each changed entry, old and new."""

    def __init__(self, cache: Cache, operator_namespace: str, related: Related = nothing_related) -> None:
        self._cache = cache
        self._operator_namespace = operator_namespace
        self._related = related

    def keys_for(self, *entries: Cached | None) -> set[Key]:
        """The keys that a change concerns: pass what was there and what is there now."""
        keys: set[Key] = set()
        for entry in entries:
            if entry is not None:
                keys.update(self._own(entry))
                keys.update(self._related(entry))
        return keys

    def _own(self, entry: Cached) -> Iterator[Key]:
        if entry.kind in (*OWNERS.values(), AUTHORIZATION_SERVER):
            yield Key(entry.kind.kind, entry.namespace, entry.name)
            yield from self._left_behind(entry)
            if entry.kind == PROTECTED_SERVICE:
                for caller in self._cache.callers_of(entry.namespace, entry.name):
                    yield Key(SERVICE_CLIENT.kind, caller.namespace, caller.name)
        elif entry.kind == NAMESPACE:
            for kind in (*OWNERS.values(), AUTHORIZATION_SERVER):
                for object_ in self._cache.all(kind):
                    if object_.namespace == entry.name:
                        yield Key(kind.kind, object_.namespace, object_.name)
        elif self._is_ledger(entry):
            yield from self._ledger_keys(entry)
        elif (owner := OWNERS.get(entry.owner_kind or "")) is not None and entry.owner_name:
            yield Key(owner.kind, entry.namespace, entry.owner_name)
        elif entry.service:
            yield Key(PROTECTED_SERVICE.kind, entry.namespace, entry.service)
            if entry.kind == SECRET:
                yield Key(SERVICE_CLIENT.kind, entry.namespace, entry.service)

    def _left_behind(self, entry: Cached) -> Iterator[Key]:
        """The ledger entry of an object that is gone (its finalizer torn off by hand, say)."""
        here = self._cache.get(entry.kind, entry.namespace, entry.name)
        if entry.kind in LEDGER_OWNERS.values() and (here is None or here.uid != entry.uid):
            name = secret_name(entry.uid)
            if self._cache.get(SECRET, self._operator_namespace, name) is not None:
                yield Key(LEDGER, self._operator_namespace, name)

    def _is_ledger(self, entry: Cached) -> bool:
        return (
            entry.kind == SECRET
            and entry.namespace == self._operator_namespace
            and entry.name.startswith(SECRET_PREFIX)
        )

    def _ledger_keys(self, entry: Cached) -> Iterator[Key]:
        """The owner while the very object is there; the entry when its owner is gone, or gives no clue any more.

        And the AuthorizationServer that is being deleted, and waits for the client.
        """
        ledger = Key(LEDGER, entry.namespace, entry.name)
        text = (entry.body()["metadata"].get("annotations") or {}).get(LEDGER_ANNOTATION, "")
        try:
            record = json.loads(text)
            kind, place = (
                OWNERS.get(record.get("owner_kind", PROTECTED_SERVICE.kind)),
                (record["owner_namespace"], record["owner_name"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            yield ledger
            return
        yield from self._waiting_server(record.get("server"))
        owner = self._cache.get(kind, *place) if kind is not None else None
        if kind is None or owner is None or owner.uid != entry.name.removeprefix(SECRET_PREFIX):
            yield ledger
        else:
            yield Key(kind.kind, *place)

    def _waiting_server(self, place: object) -> Iterator[Key]:
        namespace, _, name = str(place).partition("/")
        server = self._cache.get(AUTHORIZATION_SERVER, namespace, name)
        if server is not None and server.body()["metadata"].get("deletionTimestamp"):
            yield Key(AUTHORIZATION_SERVER.kind, namespace, name)
