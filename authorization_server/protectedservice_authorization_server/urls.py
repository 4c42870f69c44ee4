"""The server's paths. The toolkit's registration views look theirs up under the namespace `oauth2_provider`."""

from __future__ import annotations

from django.urls import include, path
from django.views.decorators.http import require_safe

from . import discovery, health, registration, tokens

_oauth = [
    path("token", tokens.Token.as_view(), name="token"),
    path("introspect", tokens.Introspect.as_view(), name="introspect"),
    path("revoke", tokens.Revoke.as_view(), name="revoke-token"),
    path("register", registration.Register.as_view(), name="dcr-register"),
    path("register/<str:client_id>", registration.Manage.as_view(), name="dcr-register-management"),
]

urlpatterns = [
    path("oauth/", include((_oauth, "oauth2_provider"), namespace="oauth2_provider")),
    path(".well-known/oauth-authorization-server", require_safe(discovery.metadata)),
    path("healthz", require_safe(health.alive)),
    path("readyz", require_safe(health.ready)),
]
