"""Each kind of authorization server as a fake, with the AuthorizationServer spec that describes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .fake_authorization_server import FakeAuthorizationServer
from .fake_hydra import FakeHydra
from .fake_keycloak import FakeKeycloak

SECRET = {"name": "authorization-server-registration"}


def make(
    kind: str, *, idempotency_honoured: bool, now: Callable[[], float]
) -> tuple[FakeAuthorizationServer, dict[str, Any]]:
    """(server, spec). The spec's `credential`, if any, is what the registration Secret holds beside `token`."""
    match kind:
        case "hydra":
            hydra = FakeHydra(now=now)
            return hydra, {
                "registration": {"hydra": {"adminUrl": hydra.admin_url}},
                "endpoints": {"introspection": hydra.introspection_url},
                "introspection": {"clientAuthentication": "none"},
            }
        case "keycloak":
            keycloak = FakeKeycloak(now=now)
            username, password = keycloak.user
            return keycloak, {
                "registration": {
                    "keycloak": {"adminUrl": keycloak.admin_url, "realm": keycloak.realm},
                    "credentialsSecret": SECRET,
                },
                "credential": {"username": username, "password": password},
            }
        case "none":
            return FakeAuthorizationServer(now=now), {"registration": {"none": {}}}
        case "register-only":
            return _register_only(idempotency_honoured=idempotency_honoured, now=now)
    declared = {"idempotencyKey": "Honoured" if idempotency_honoured else "Ignored"}
    return FakeAuthorizationServer(idempotency_honoured=idempotency_honoured, now=now), {
        "registration": {"dynamicClientRegistration": declared, "credentialsSecret": SECRET}
    }


def _register_only(
    *, idempotency_honoured: bool, now: Callable[[], float]
) -> tuple[FakeAuthorizationServer, dict[str, Any]]:
    """It makes clients for whoever asks and does nothing else for them; its metadata are of no use."""
    server = FakeAuthorizationServer(idempotency_honoured=idempotency_honoured, now=now)
    server.manages_clients = False
    server.open_registration = True
    server.demands_redirect_uris = True
    server.tells_little = True
    server.authentication_methods = {"client_secret_post"}
    server.open_introspection = True
    server.metadata = {"issuer": "http://localhost:8080", "token_endpoint": "http://localhost:8080/oauth/token"}
    declared = {
        "idempotencyKey": "Honoured" if idempotency_honoured else "Ignored",
        "open": True,
        "redirectURI": "https://unused.example/callback",
    }
    return server, {
        "issuer": None,
        "registration": {"dynamicClientRegistration": declared},
        "endpoints": {
            "token": f"{server.issuer}/oauth/token",
            "introspection": f"{server.issuer}/oauth/introspect",
            "revocation": f"{server.issuer}/oauth/revoke",
            "registration": f"{server.issuer}/oauth/register",
        },
        "token": {"clientAuthentication": "client_secret_post"},
        "introspection": {"clientAuthentication": "none"},
    }
