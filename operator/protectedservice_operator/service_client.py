"""ServiceClient as typed, frozen data: a service that calls others, and the client it does so with. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from .resource import CLIENT_ID, CLIENT_SECRET, SERVICE_CLIENT, Key, Kind, Meta, Reference, rotation_request

# Names of what the caller's Secret holds beside id and secret; none of it is a secret.
TOKEN_URL: Final = "token_url"  # noqa: S105 (a name, no secret)
SCOPE: Final = "scope"
AUDIENCE: Final = "audience"
AUDIENCE_PARAMETER: Final = "audience_parameter"
AUTHENTICATION: Final = "token_endpoint_auth_method"  # as RFC 7591 calls it
_KEYS: Final = {
    "clientId": CLIENT_ID,
    "clientSecret": CLIENT_SECRET,
    "tokenUrl": TOKEN_URL,
    "scope": SCOPE,
    "audience": AUDIENCE,
    "audienceParameter": AUDIENCE_PARAMETER,
    "clientAuthentication": AUTHENTICATION,
}


def named_services(body: Mapping[str, Any]) -> tuple[Reference, ...]:
    """The ProtectedServices that a manifest names, each once, in its order."""
    services = (body.get("spec") or {}).get("services") or ()
    home = body["metadata"]["namespace"]
    return tuple(dict.fromkeys(Reference.of(service, home) for service in services))


@dataclass(frozen=True, slots=True)
class ServiceClient:
    """A ServiceClient as the API server keeps it: defaults filled in, fields checked by the CRD."""

    meta: Meta
    server: Reference | None
    scopes: tuple[str, ...]  # asked for by name, beside those of the services
    audience: str | None  # likewise
    services: tuple[Reference, ...]  # ProtectedServices that it calls
    client_display_name: str | None
    credentials_secret: str
    credentials_keys: Mapping[str, str]  # of the Secret's data, and the name of the value that each holds
    credentials_labels: Mapping[str, str]
    credentials_annotations: Mapping[str, str]
    retains_client: bool  # a deletion leaves the client registered
    rotation_interval: str | None  # a duration; None: on demand only
    rotation_overlap: str  # a duration
    rotation_request: str | None  # digest of the annotation's value
    suspend: bool
    status: Mapping[str, Any]

    @classmethod
    def parse(cls, body: Mapping[str, Any]) -> ServiceClient:
        """Raises KeyError where a default of the CRD is missing, which only an outdated CRD can cause."""
        meta, spec = Meta.parse(body), body["spec"]
        reference, credentials = spec.get("authorizationServerRef"), spec["credentialsSecret"]
        return cls(
            meta=meta,
            server=Reference.of(reference, meta.namespace) if reference else None,
            scopes=tuple(spec.get("scopes") or ()),
            audience=spec.get("audience"),
            services=named_services(body),
            client_display_name=(spec.get("client") or {}).get("name"),
            credentials_secret=credentials.get("name") or f"{meta.name}-oauth2-caller",
            credentials_keys={credentials["keys"][field]: name for field, name in _KEYS.items()},
            credentials_labels=credentials.get("labels") or {},
            credentials_annotations=credentials.get("annotations") or {},
            retains_client=spec["deletionPolicy"] == "Retain",
            rotation_interval=spec["rotation"].get("interval"),
            rotation_overlap=spec["rotation"]["overlap"],
            rotation_request=rotation_request(body),
            suspend=spec["suspend"],
            status=body.get("status") or {},
        )

    @property
    def kind(self) -> Kind:
        return SERVICE_CLIENT

    @property
    def key(self) -> Key:
        return Key(SERVICE_CLIENT.kind, self.meta.namespace, self.meta.name)

    @property
    def brings_credentials(self) -> bool:
        """A caller's client is always made for it."""
        return False

    @property
    def introspects(self) -> bool:
        """A caller gets tokens with its client, and asks about none."""
        return False

    @property
    def at_rest(self) -> bool:
        """Whether nothing of it may be changed: suspended, and not being deleted."""
        return self.suspend and self.meta.deletion_timestamp is None

    @property
    def recorded_server(self) -> Reference | None:
        """The AuthorizationServer that status says this object was given."""
        recorded = self.status.get("authorizationServer")
        return Reference(recorded["namespace"], recorded["name"]) if recorded else None
