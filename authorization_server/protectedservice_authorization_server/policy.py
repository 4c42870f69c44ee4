# mypy: allow-subclassing-any
"""What the toolkit leaves to the deployment: who may register, and which scopes and audiences a client may ask for."""

from __future__ import annotations

import hmac
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from oauth2_provider.oauth2_validators import OAuth2Validator
from oauth2_provider.scopes import SettingsScopes
from oauth2_provider.utils import parse_bearer_token
from oauthlib.oauth2.rfc6749.errors import CustomOAuth2Error

from .models import ClientPolicy


class InitialAccessToken:
    """Registration needs the initial access token (RFC 7591 section 3) as a bearer token."""

    def has_permission(self, request: HttpRequest) -> bool:
        """Compare in constant time."""
        presented = parse_bearer_token(request.META.get("HTTP_AUTHORIZATION", ""))
        return presented is not None and hmac.compare_digest(
            presented.encode(), str(settings.INITIAL_ACCESS_TOKEN).encode()
        )


class PerClientScopes(SettingsScopes):
    """A client may ask for the scopes it registered, as far as the server still offers them.

    A token request without `scope` gets all of those (RFC 6749 section 3.3 asks for a documented default). That gives
    nothing the client could not ask for, whereas the toolkit's own default is every scope of the server.
    """

    def get_available_scopes(
        self, application: Any = None, request: Any = None, *args: Any, **kwargs: Any
    ) -> list[str]:
        """Without an application: what the server offers at all."""
        offered: list[str] = super().get_available_scopes()
        if application is None:
            return offered
        policy = ClientPolicy.objects.filter(application=application).first()
        return [] if policy is None else [scope for scope in policy.scope.split() if scope in offered]

    def get_default_scopes(self, application: Any = None, request: Any = None, *args: Any, **kwargs: Any) -> list[str]:
        """What a token request without `scope` gets."""
        return self.get_available_scopes(application) if application is not None else []


class Validator(OAuth2Validator):
    """A token is bound only to audiences that its client registered (RFC 8707 section 2)."""

    def _check_and_set_request_resource(self, request: Any) -> None:
        """The toolkit's hook that gathers every `resource` of a token request. Raises invalid_target.

        Private, but the one place where all ways to name a resource have come together; the tests watch it.
        """
        super()._check_and_set_request_resource(request)
        policy = ClientPolicy.objects.filter(application=request.client).first()
        registered = [] if policy is None else policy.audience
        for resource in request.resource:
            if resource not in registered:
                raise CustomOAuth2Error(
                    error="invalid_target",
                    description=f"The client is not registered for the audience '{resource}'.",
                    request=request,
                )
