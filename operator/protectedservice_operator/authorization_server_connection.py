"""The way to one authorization server: what its AuthorizationServer names to get there, and the open connection."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass
from typing import Protocol

from . import reasons
from .authorization_server import AuthorizationServer, Endpoints, Rates
from .cluster_api import ClusterApi
from .errors import AdministratorMustAct
from .registration import trust
from .registration.driver import Driver
from .registration.limits import Limits
from .registration.remote import Observe, Remote
from .registration.token import TokenEndpoint
from .resource import SECRET


class Connect(Protocol):
    """Makes the door to one authorization server; `name` is how messages call it."""

    def __call__(self, name: str, rates: Rates, ca_bundle: str | None, /) -> Remote: ...


def connect(name: str, rates: Rates, ca_bundle: str | None, /, *, observe: Observe | None = None) -> Remote:
    """Over the network. `ca_bundle`: the certificates to trust (PEM); `observe` receives the figures of each call."""
    limits = Limits(rate=rates.requests_per_second, burst=rates.burst, concurrency=rates.concurrency)
    verify = None if ca_bundle is None else trust.context(ca_bundle)
    return Remote(name, limits=limits, observe=observe, verify=verify)


@dataclass
class Connection:
    """One authorization server, ready to be talked to."""

    fingerprint: str
    remote: Remote
    endpoints: Endpoints
    driver: Driver
    tokens: TokenEndpoint


async def read_authorities(cluster: ClusterApi, server: AuthorizationServer) -> str | None:
    """The certificates (PEM) to trust, read live; None where the AuthorizationServer names none.

    Raises AdministratorMustAct when they cannot be used.
    """
    source = server.ca_bundle
    if source is None:
        return None
    body = await cluster.get(source.kind, server.meta.namespace, source.name)
    if body is None:
        fault = "does not exist; create it with the certificates to trust"
    elif (value := (body.get("data") or {}).get(source.key)) is None:
        fault = f"has no key {source.key}; add it with the certificates to trust"
    else:
        text = b64decode(value).decode("ascii", errors="replace") if source.kind is SECRET else value
        try:
            return trust.certificates(text)
        except ValueError as unusable:
            fault = f"key {source.key} {unusable}"
    place = f"{source.kind} {server.meta.namespace}/{source.name} (spec.tls.caBundle)"
    raise AdministratorMustAct(reasons.CA_BUNDLE_UNUSABLE, f"{place} {fault}")
