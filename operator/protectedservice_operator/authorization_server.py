"""AuthorizationServer as typed, frozen data. No I/O."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .resource import AUTHORIZATION_SERVER, Bundle, Key, Meta, Reference
from .tenancy import Namespaces, ScopeGrant, refused_scopes


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where an authorization server answers; absolute URLs."""

    issuer: str | None = None
    token: str | None = None
    introspection: str | None = None
    revocation: str | None = None
    registration: str | None = None
    jwks: str | None = None

    def to_status(self) -> dict[str, str]:
        """As published in AuthorizationServer.status.endpoints."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name))}

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, str]) -> Endpoints:
        """From spec.endpoints or status.endpoints; other keys are ignored."""
        return cls(**{name: mapping[name] for name in cls.__slots__ if mapping.get(name)})


class RegistrationKind(enum.StrEnum):
    """How clients come into being at a server: the members of spec.registration."""

    DYNAMIC = "dynamicClientRegistration"
    HYDRA = "hydra"
    KEYCLOAK = "keycloak"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast and how wide the operator may talk to one authorization server; defaults as in the CRD."""

    requests_per_second: int = 20
    burst: int = 40
    concurrency: int = 10


@dataclass(frozen=True, slots=True)
class AuthorizationServer:
    """An AuthorizationServer as the API server keeps it."""

    meta: Meta
    issuer: str | None
    endpoints: Endpoints
    allow_insecure_http: bool
    registration: RegistrationKind
    idempotency_honoured: bool
    open_registration: bool  # no credential is needed
    redirect_uri: str | None  # for servers that demand one
    admin_url: str | None  # of Hydra and Keycloak
    realm: str | None  # of Keycloak
    credentials_secret: str | None
    token_authentication: str  # as in RFC 7591 section 2, token_endpoint_auth_method
    introspection_authentication: str
    allowed: Namespaces
    allow_adoption: bool  # clients that other hands made may become those of services
    allowed_scopes: tuple[ScopeGrant, ...] | None  # None: whoever is allowed may ask for all
    rates: Rates
    ca_bundle: Bundle | None  # only these certificates are trusted then
    status: Mapping[str, Any]

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> AuthorizationServer:
        spec = body["spec"]
        registration = spec["registration"]
        kind = next(kind for kind in RegistrationKind if kind in registration)
        own, dynamic = registration[kind], registration.get(RegistrationKind.DYNAMIC) or {}
        grants = spec.get("allowedScopes")
        return cls(
            meta=Meta.parse(body),
            issuer=spec.get("issuer"),
            endpoints=Endpoints.from_mapping(spec.get("endpoints") or {}),
            allow_insecure_http=spec["allowInsecureHTTP"],
            registration=kind,
            idempotency_honoured=dynamic.get("idempotencyKey") == "Honoured",
            open_registration=kind in (RegistrationKind.HYDRA, RegistrationKind.NONE) or dynamic.get("open", False),
            redirect_uri=dynamic.get("redirectURI"),
            admin_url=own.get("adminUrl"),
            realm=own.get("realm"),
            credentials_secret=(registration.get("credentialsSecret") or {}).get("name"),
            token_authentication=spec["token"]["clientAuthentication"],
            introspection_authentication=spec["introspection"]["clientAuthentication"],
            allowed=Namespaces.parse(spec["allowedNamespaces"]),
            allow_adoption=spec["allowAdoption"],
            allowed_scopes=None if grants is None else tuple(ScopeGrant.parse(grant) for grant in grants),
            rates=Rates(**{word: spec["limits"][name] for word, name in _RATES.items()}),
            ca_bundle=Bundle.parse(spec["tls"]["caBundle"]) if "tls" in spec else None,
            status=body.get("status") or {},
        )

    @property
    def reference(self) -> Reference:
        return Reference(self.meta.namespace, self.meta.name)

    @property
    def key(self) -> Key:
        return Key(AUTHORIZATION_SERVER.kind, self.meta.namespace, self.meta.name)

    @property
    def audience_parameter(self) -> str | None:
        """How its token endpoint is asked for an audience; None: it adds the client's unasked."""
        return _AUDIENCE_PARAMETERS[self.registration]

    @property
    def chooses_client_ids(self) -> bool:
        """Whether the operator chooses the client's id, so that a registration can be repeated without harm."""
        return self.registration is not RegistrationKind.DYNAMIC

    @property
    def names_introspectors(self) -> bool:
        """Whether a client can introspect only those tokens whose audience names it (Keycloak from 26.6.2 on)."""
        return self.registration is RegistrationKind.KEYCLOAK

    def allows(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether services of this namespace may use the server (Gateway API's `from`)."""
        return self.allowed.admit(namespace, labels, self.meta.namespace)

    def refused_scopes(self, scopes: Iterable[str], namespace: str, labels: Mapping[str, str]) -> tuple[str, ...]:
        """Those of these scopes that services of this namespace may not ask for."""
        return refused_scopes(self.allowed_scopes, scopes, namespace, labels, self.meta.namespace)

    @property
    def published_endpoints(self) -> Endpoints | None:
        """What the last successful probe found, kept in status so that an outage changes no policy."""
        published = self.status.get("endpoints")
        return Endpoints.from_mapping(published) if published else None


_AUDIENCE_PARAMETERS: Final[Mapping[RegistrationKind, str | None]] = {
    RegistrationKind.DYNAMIC: "resource",  # RFC 8707
    RegistrationKind.HYDRA: "audience",  # `resource` is ignored there
    RegistrationKind.KEYCLOAK: None,  # mappers add it
    RegistrationKind.NONE: "resource",  # RFC 8707
}
_RATES: Final = {"requests_per_second": "requestsPerSecond", "burst": "burst", "concurrency": "concurrency"}
