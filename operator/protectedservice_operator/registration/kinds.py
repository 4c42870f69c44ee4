"""Which driver, and which habits of its daily endpoints, belong to each kind of authorization server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import reasons
from ..authorization_server import AuthorizationServer, Endpoints, RegistrationKind
from ..errors import AdministratorMustAct
from .credential import Credential
from .discovery import REQUIRED, check_url
from .driver import Driver
from .dynamic import DynamicClientRegistration
from .hydra import HydraAdmin
from .keycloak import KeycloakAdmin
from .none import NoRegistration
from .remote import Remote, origin
from .token import TokenEndpoint


def required_endpoints(server: AuthorizationServer) -> tuple[str, ...]:
    """The endpoints that the operator cannot do without; where it has an admin API, registration is none of them."""
    if server.registration is RegistrationKind.DYNAMIC:
        return REQUIRED
    return tuple(name for name in REQUIRED if name != "registration")


def check_credential(server: AuthorizationServer, credential: Credential, *, exists: bool) -> None:
    """Raise AdministratorMustAct, naming the Secret and its keys, when this credential cannot serve this kind."""
    place = f"Secret {server.meta.namespace}/{server.credentials_secret} (spec.registration.credentialsSecret)"
    match server.registration:
        case RegistrationKind.DYNAMIC:
            usable, keys = server.open_registration or credential.token is not None, "key token"
            content = "the initial access token"
        case RegistrationKind.HYDRA:
            usable = server.credentials_secret is None or credential.is_complete
            keys, content = "key token, nor client_id and client_secret, nor username and password", "the proxy's"
        case RegistrationKind.NONE:
            return
        case RegistrationKind.KEYCLOAK:
            usable = credential.client is not None or credential.user is not None
            keys, content = "keys client_id and client_secret, nor username and password", "one of these pairs"
    if not usable:
        fault = f"has no {keys}" if exists else "does not exist"
        raise AdministratorMustAct(reasons.CREDENTIALS_SECRET_MISSING, f"{place} {fault}; create it with {content}")


def make_driver(server: AuthorizationServer, remote: Remote, endpoints: Endpoints, credential: Credential) -> Driver:
    """The driver for this server. Raises AdministratorMustAct when its spec or the credential cannot be used."""
    admin_url = server.admin_url or ""
    if server.registration is RegistrationKind.DYNAMIC:
        known: Mapping[str, Any] = server.status.get("capabilities") or {}
        return DynamicClientRegistration(
            remote,
            endpoints,
            None if server.open_registration else credential.token or "",
            idempotency_honoured=server.idempotency_honoured,
            redirect_uri=server.redirect_uri,
            manages_clients=bool(known.get("update")),
        )
    if server.registration is RegistrationKind.NONE:
        return NoRegistration()
    field = f"spec.registration.{server.registration}.adminUrl"
    check_url(remote, field, admin_url, allow_insecure_http=server.allow_insecure_http)
    if server.registration is RegistrationKind.KEYCLOAK:
        return KeycloakAdmin(remote, endpoints, admin_url, server.realm or "", credential)
    return HydraAdmin(remote, endpoints, admin_url, credential)


def make_token_endpoint(server: AuthorizationServer, remote: Remote, endpoints: Endpoints) -> TokenEndpoint:
    """The endpoints of a client's daily life, used as this server wants them used."""
    return TokenEndpoint(
        remote,
        endpoints,
        authentication=server.token_authentication,
        introspection_authentication=server.introspection_authentication,
        audience_parameter=server.audience_parameter,
    )


def admin_api_exposed(server: AuthorizationServer, endpoints: Endpoints) -> bool | None:
    """Whether who may introspect can reach the admin API too; None where there is no such danger."""
    if server.registration is not RegistrationKind.HYDRA or endpoints.introspection is None:
        return None
    return origin(endpoints.introspection) == origin(server.admin_url or "")
