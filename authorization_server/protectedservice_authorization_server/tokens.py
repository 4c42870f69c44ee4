# mypy: allow-subclassing-any
"""Token, introspection (RFC 7662) and revocation (RFC 7009) endpoints. Forms in the body only."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django.views.generic import View
from oauth2_provider.models import get_access_token_model
from oauth2_provider.views import RevokeTokenView, TokenView
from oauth2_provider.views.mixins import OAuthLibMixin

from . import housekeeping
from .configuration import REGISTRATION_SCOPE
from .errors import Refused


class FormOnly(View):
    """POST without a query: what stands in a URL ends up in logs (RFC 9700 section 4.3.2)."""

    http_method_names = ("post",)

    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Refuse with 400 before anything reads the query; other methods get 405."""
        if request.method == "POST" and request.META.get("QUERY_STRING"):
            raise Refused(400, "invalid_request", "parameters belong in the body, not in the URL")
        return super().dispatch(request, *args, **kwargs)


class Token(FormOnly, TokenView):
    """POST /oauth/token: client_credentials."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Not the toolkit's `post`: its device flow fails on a request without a device code."""
        response: HttpResponse = self.authorization_flow_token_response(request, *args, **kwargs)
        housekeeping.sweep_if_due(time.monotonic())
        return response


class Revoke(FormOnly, RevokeTokenView):
    """POST /oauth/revoke: a client's own tokens."""


class Introspect(FormOnly, OAuthLibMixin):
    """POST /oauth/introspect: any authenticated client may ask about any token.

    Not the toolkit's view, which answers wrong credentials with an empty 403, takes tokens from the URL, and calls
    registration access tokens active.
    """

    def post(self, request: HttpRequest) -> HttpResponse:
        """RFC 7662 section 2."""
        if not self.authenticate_client(request):
            raise Refused(
                401, "invalid_client", "introspection needs client credentials", 'Basic realm="introspection"'
            )
        value = request.POST.get("token")
        if not value:
            raise Refused(400, "invalid_request", "the form lacks the member token")
        digest = hashlib.sha256(value.encode()).hexdigest()
        token = get_access_token_model().objects.select_related("application").filter(token_checksum=digest).first()
        return JsonResponse({"active": False} if token is None or not _is_live(token) else _describe(token))


def _is_live(token: Any) -> bool:
    """A registration access token manages a client; it is no access token, though the toolkit keeps both alike."""
    return token.expires > timezone.now() and token.application is not None and REGISTRATION_SCOPE not in token.scope


def _describe(token: Any) -> dict[str, Any]:
    answer = {
        "active": True,
        "scope": token.scope,
        "client_id": token.application.client_id,
        "sub": token.application.client_id,
        "token_type": "Bearer",
        "exp": int(token.expires.timestamp()),
        "iat": int(token.created.timestamp()),
        "iss": settings.ISSUER,
    }
    return answer | {"aud": token.resource} if token.resource else answer
