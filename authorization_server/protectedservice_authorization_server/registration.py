# mypy: allow-subclassing-any
"""Dynamic client registration (RFC 7591) and its management (RFC 7592), over the toolkit's views.

The toolkit makes, changes and removes the client and its registration access token; this adds the initial access token,
scope, audience, the answer RFC 7591 section 3.2.1 asks for, and `Idempotency-Key`.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from django.conf import settings
from django.contrib.auth.hashers import check_password
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from oauth2_provider.models import get_application_model
from oauth2_provider.scopes import SettingsScopes
from oauth2_provider.utils import parse_bearer_token
from oauth2_provider.views import DynamicClientRegistrationManagementView, DynamicClientRegistrationView

from . import idempotency
from .client_metadata import ClientMetadata, parse_document
from .errors import Refused, invalid_metadata
from .models import ClientPolicy
from .policy import InitialAccessToken


class Register(DynamicClientRegistrationView):
    """POST /oauth/register."""

    def post(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        """Make a client (201), or answer once more for the same `Idempotency-Key`."""
        if not InitialAccessToken().has_permission(request):
            tried = "HTTP_AUTHORIZATION" in request.META
            challenge = 'Bearer error="invalid_token"' if tried else "Bearer"
            raise Refused(401, "invalid_token", "registration needs the initial access token", challenge)

        def make() -> HttpResponse:
            metadata = _metadata(parse_document(request.body))
            stock = super(Register, self).post(request, *args, **kwargs)
            if stock.status_code != 201:
                return stock
            made = json.loads(stock.content)
            policy = ClientPolicy.objects.create(
                application=get_application_model().objects.get(client_id=made["client_id"]),
                scope=metadata.scope,
                audience=metadata.audience,
                token_endpoint_auth_method=metadata.token_endpoint_auth_method,
            )
            answer = _describe(policy, made["registration_access_token"])
            answer |= {"client_secret": made["client_secret"], "client_secret_expires_at": 0}
            return JsonResponse(answer, status=201)

        return idempotency.once(request, operation="register", credential=None, make=make)


class Manage(DynamicClientRegistrationManagementView):
    """GET, PUT and DELETE /oauth/register/<client_id>, with the registration access token as bearer token."""

    def get(self, request: HttpRequest, client_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        """The client's metadata, without its secret: only a digest of that is known."""
        stock = super().get(request, client_id, *args, **kwargs)
        if stock.status_code != 200:
            return stock
        return JsonResponse(_describe(_policy(client_id), json.loads(stock.content)["registration_access_token"]))

    def put(self, request: HttpRequest, client_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        """Replace the metadata and the registration access token (RFC 7592 section 2.2).

        With an `Idempotency-Key`, a repeat that presents the same, now used up, bearer token gets the same answer: a
        lost answer would otherwise lock the client out of its own registration for good.
        """
        operation = _update_of(client_id)
        presented = parse_bearer_token(request.META.get("HTTP_AUTHORIZATION", "")) or ""

        def make() -> HttpResponse:
            _hold(client_id, deletes=False)
            authenticated = self._authenticate_registration_request(request, client_id)
            if isinstance(authenticated, HttpResponse):
                return authenticated
            document = parse_document(request.body)
            _require_same_client(document, authenticated.application)
            metadata = _metadata(document)
            stock = super(Manage, self).put(request, client_id, *args, **kwargs)
            if stock.status_code != 200:
                return stock
            policy = _policy(client_id)
            policy.scope, policy.audience = metadata.scope, metadata.audience
            policy.token_endpoint_auth_method = metadata.token_endpoint_auth_method
            policy.save()
            # Whoever got here has the answer to every earlier update.
            idempotency.forget(operation, but_key=idempotency.key_of(request))
            return JsonResponse(_describe(policy, json.loads(stock.content)["registration_access_token"]))

        return idempotency.once(request, operation=operation, credential=presented, make=make)

    def delete(self, request: HttpRequest, client_id: str, *args: Any, **kwargs: Any) -> HttpResponse:
        """Remove the client and, by the tables' cascade, its tokens (204). A repeat is 401: the token is gone too."""
        with transaction.atomic():
            _hold(client_id, deletes=True)
            stock: HttpResponse = super().delete(request, client_id, *args, **kwargs)
            if stock.status_code == 204:
                idempotency.forget(_update_of(client_id))
        return stock


def _update_of(client_id: str) -> str:
    """Of any text in a URL, which may be longer than a client id or than the column."""
    return f"update {hashlib.sha256(client_id.encode()).hexdigest()}"


def _hold(client_id: str, *, deletes: bool) -> None:
    """Let no other change of this client begin before the transaction ends; a deletion also keeps off new tokens.

    Otherwise two updates at once, each with a key of its own, would both pass with one registration access token. On
    SQLite the transaction's own lock does this.
    """
    rows = get_application_model().objects.select_for_update(no_key=not deletes).filter(client_id=client_id)
    rows.values_list("pk", flat=True).first()


def _metadata(document: dict[str, Any]) -> ClientMetadata:
    return ClientMetadata.parse(document, SettingsScopes().get_available_scopes())


def _policy(client_id: str) -> ClientPolicy:
    policy: ClientPolicy = ClientPolicy.objects.select_related("application").get(application__client_id=client_id)
    return policy


def _require_same_client(document: dict[str, Any], application: Any) -> None:
    """RFC 7592 section 2.2: what the client says of its own id and secret must be so. Raises Refused(400)."""
    if document.get("client_id", application.client_id) != application.client_id:
        raise invalid_metadata("client_id must be the one in the URL: it cannot be changed")
    if "client_secret" in document:
        secret = document["client_secret"]
        if not isinstance(secret, str) or not check_password(secret, application.client_secret):
            raise invalid_metadata("client_secret must be the current one: it cannot be chosen")


def _describe(policy: ClientPolicy, registration_access_token: str) -> dict[str, Any]:
    """The client information response, RFC 7591 section 3.2.1 and RFC 7592 section 3."""
    application = policy.application
    return {
        "client_id": application.client_id,
        "client_id_issued_at": int(application.created.timestamp()),
        "client_name": application.name,
        "grant_types": ["client_credentials"],
        "response_types": [],
        "redirect_uris": [],
        "token_endpoint_auth_method": policy.token_endpoint_auth_method,
        "scope": policy.scope,
        "audience": policy.audience,
        # From the configured issuer: a forged Host must not decide where the token is sent next.
        "registration_client_uri": f"{settings.ISSUER}/oauth/register/{application.client_id}",
        "registration_access_token": registration_access_token,
    }
