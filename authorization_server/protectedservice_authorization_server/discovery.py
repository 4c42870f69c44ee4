"""Authorization server metadata (RFC 8414)."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, JsonResponse
from oauth2_provider.scopes import SettingsScopes

from .client_metadata import METHODS


def metadata(_: HttpRequest) -> JsonResponse:
    """Every URL comes from the configured issuer, never from the request's Host."""
    issuer = settings.ISSUER
    return JsonResponse(
        {
            "issuer": issuer,
            "token_endpoint": f"{issuer}/oauth/token",
            "introspection_endpoint": f"{issuer}/oauth/introspect",
            "revocation_endpoint": f"{issuer}/oauth/revoke",
            "registration_endpoint": f"{issuer}/oauth/register",
            "scopes_supported": sorted(SettingsScopes().get_available_scopes()),
            "response_types_supported": [],
            "grant_types_supported": ["client_credentials"],
            "token_endpoint_auth_methods_supported": METHODS,
            "introspection_endpoint_auth_methods_supported": METHODS,
            "revocation_endpoint_auth_methods_supported": METHODS,
        }
    )
