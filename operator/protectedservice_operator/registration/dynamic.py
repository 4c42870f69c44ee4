"""Dynamic client registration (RFC 7591) and its management (RFC 7592): the driver for servers that offer just that.

What servers do with it differs widely; each rule below that the RFCs do not state comes from a server that was seen.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from .. import reasons
from ..authorization_server import Endpoints
from ..errors import AdministratorMustAct, Outcome, ServerUnavailable
from .driver import (
    AttemptSpent,
    Capabilities,
    ClientGone,
    ClientMetadata,
    HandleRefused,
    MetadataRejected,
    Reading,
    RegisteredOtherwise,
    Registration,
    RegistrationRefused,
)
from .oauth import OAuthError, bearer, is_bearer_token, is_visible, oauth_error
from .remote import Answer, Remote

_LOG: Final = logging.getLogger(__name__)
_METADATA_AT_FAULT: Final = (400, 413, 422)


class DynamicClientRegistration:
    """A `Driver` for one server.

    Args:
        initial_access_token: RFC 7591 section 3. None: the server registers whoever asks. Empty: there is none, and
            only `register` needs one.
        redirect_uri: for servers that demand one even of clients that are never redirected.
        idempotency_honoured: declared by the administrator: the same Idempotency-Key gives the same client.
        manages_clients: what is known from earlier about RFC 7592 at this server, e.g. from status.capabilities.

    Raises:
        AdministratorMustAct: there is no registration endpoint.
    """

    def __init__(
        self,
        remote: Remote,
        endpoints: Endpoints,
        initial_access_token: str | None,
        *,
        idempotency_honoured: bool = False,
        redirect_uri: str | None = None,
        manages_clients: bool = False,
    ) -> None:
        if endpoints.registration is None:
            raise AdministratorMustAct(
                reasons.ENDPOINT_MISSING, f"{remote.name}: no registration endpoint: set spec.endpoints.registration"
            )
        self._token = initial_access_token
        self._remote, self._endpoints, self._registration_endpoint = remote, endpoints, endpoints.registration
        self._idempotency_honoured, self._manages_clients = idempotency_honoured, manages_clients
        self._redirect_uris = [redirect_uri] if redirect_uri is not None else []

    @property
    def capabilities(self) -> Capabilities:
        """What is known by now: management only once an answer has shown a configuration endpoint."""
        return Capabilities(
            register=True,
            idempotent_register=self._idempotency_honoured,
            read=self._manages_clients,
            update=self._manages_clients,
            delete=self._manages_clients,
            revocation=self._endpoints.revocation is not None,
            jwks=self._endpoints.jwks is not None,
        )

    async def register(
        self, metadata: ClientMetadata, attempt: str, chosen: Registration | None = None
    ) -> Registration:
        """Make the client (RFC 7591 section 3.1). The server chooses its id and secret, whatever was `chosen`.

        Raises:
            RegistrationRefused, MetadataRejected: nothing was made.
            RegisteredOtherwise: a client was made, not as asked; the error holds it.
            AttemptSpent: the attempt was used before, with other metadata.
            ServerUnavailable: `uncertain` says whether a client may have been made.
            AdministratorMustAct: the endpoint does not register clients.
        """
        token = self._token.strip() if self._token is not None else None
        if token is not None and not is_bearer_token(token):
            raise RegistrationRefused(
                reasons.REGISTRATION_REFUSED,
                f"{self._remote.name}: the registration credential is missing or has characters that no bearer token "
                "has (RFC 6750 section 2.1): correct the Secret",
            )
        answer = await self._remote.request(
            "register",
            "POST",
            self._registration_endpoint,
            json=self._body(metadata),
            authorization=bearer(token) if token is not None else None,
            headers={"Idempotency-Key": attempt},
        )
        if answer.status in (401, 403):
            error = self._error(answer)
            raise RegistrationRefused(
                reasons.REGISTRATION_REFUSED,
                f"{self._remote.name} refused the operator's registration credential: HTTP {answer.status}, {error}; "
                "correct the Secret in spec.registration.credentialsSecret",
            )
        if answer.status >= 400:
            raise self._refusal("register", answer)
        registration = self._registration(answer, previous=None)
        self._compare("registered", answer, metadata, registration)
        return registration

    async def read(self, registration: Registration, metadata: ClientMetadata) -> Reading:
        """Compare (RFC 7592 section 2.1). The returned handle is the only good one from now on."""
        uri, token = self._handle(registration)
        answer = await self._remote.request("read", "GET", uri, authorization=bearer(token))
        self._check_handle(answer, registration)
        if answer.status >= 400:
            raise AdministratorMustAct(
                reasons.INVALID_ENDPOINT,
                f"{self._remote.name} does not tell of client {registration.client_id}: HTTP {answer.status}, "
                f"{self._error(answer, registration)}; correct the AuthorizationServer",
            )
        current = self._registration(answer, previous=registration)
        # The secret is not taken from here: one that an answer masks, or another one, must not reach the pods.
        current = replace(current, client_secret=registration.client_secret)
        return Reading(current, _differences(answer.json or {}, metadata))

    async def update(self, registration: Registration, metadata: ClientMetadata, attempt: str) -> Registration:
        """Replace the client's metadata (RFC 7592 section 2.2). The returned handle is the only good one from now on.

        Raises as `register`, and HandleRefused, ClientGone. RegisteredOtherwise holds the new handle too.
        """
        uri, token = self._handle(registration)
        answer = await self._remote.request(
            "update",
            "PUT",
            uri,
            # The secret is never sent: two servers refuse it and none needs it. The id is: oidc-provider insists.
            json={"client_id": registration.client_id, **self._body(metadata)},
            authorization=bearer(token),
            headers={"Idempotency-Key": attempt},
        )
        self._check_handle(answer, registration)
        if answer.status >= 400:
            raise self._refusal("update", answer, registration)
        updated = self._registration(answer, previous=registration)
        self._compare("updated", answer, metadata, updated)
        return updated

    async def delete(self, registration: Registration) -> None:
        """Remove the client (RFC 7592 section 2.3); one that is plainly gone is done. Raises HandleRefused."""
        uri, token = self._handle(registration)
        answer = await self._remote.request("delete", "DELETE", uri, authorization=bearer(token), json_due=False)
        try:
            self._check_handle(answer, registration)
        except ClientGone:
            return
        if answer.status >= 400:
            raise AdministratorMustAct(
                reasons.INVALID_ENDPOINT,
                f"{self._remote.name} does not delete client {registration.client_id}: HTTP {answer.status}, "
                f"{self._error(answer, registration)}; delete it by hand, or correct the AuthorizationServer",
            )

    def _body(self, metadata: ClientMetadata) -> dict[str, Any]:
        """The members that every observed server takes (RFC 7591 section 2).

        Empty lists are said, because oidc-provider's defaults would make them the code flow's.
        """
        body: dict[str, Any] = {
            "client_name": metadata.client_name,
            "grant_types": ["client_credentials"],
            "response_types": [],
            "redirect_uris": self._redirect_uris,
            "token_endpoint_auth_method": metadata.token_endpoint_auth_method,
            "scope": " ".join(metadata.scopes),
        }
        if metadata.audiences:
            body["audience"] = list(metadata.audiences)
        return body

    def _handle(self, registration: Registration) -> tuple[str, str]:
        """Where the client is managed and the token for it."""
        uri, token = registration.registration_client_uri, registration.registration_access_token
        if uri is None or token is None:
            raise HandleRefused(
                f"{self._remote.name} gave no configuration endpoint (RFC 7592) for client {registration.client_id}"
            )
        return self._own(uri), token

    def _own(self, uri: str) -> str:
        """The configuration endpoint at the registration endpoint's origin, whatever origin the server named.

        A server behind a proxy names what it takes itself to be, and a hostile one anything; the registration token
        goes only where the administrator said.
        """
        here = urlsplit(self._registration_endpoint)
        return (
            urlsplit(urljoin(self._registration_endpoint, uri))
            ._replace(scheme=here.scheme, netloc=here.netloc, fragment="")
            .geturl()
        )

    def _error(self, answer: Answer, registration: Registration | None = None) -> OAuthError:
        """The error in an answer, rid of every secret that its sender may have had from us."""
        if registration is None:
            return oauth_error(answer.json, self._token)
        return oauth_error(answer.json, self._token, registration.registration_access_token, registration.client_secret)

    def _check_handle(self, answer: Answer, registration: Registration) -> None:
        """Raise what a 401, 403, 404 or 410 at a configuration endpoint means.

        A page for people comes from something in front of the server, an ingress without a backend for one: it says
        nothing about the client, and must not cost its handle.
        """
        said = f"HTTP {answer.status}, {self._error(answer, registration)}"
        if answer.status == 410 or (answer.status == 404 and answer.json is not None):
            raise ClientGone(f"{self._remote.name} has no such client: {said}")
        if answer.status in (401, 403, 404) and answer.headers.get("content-type", "").startswith("text/"):
            raise AdministratorMustAct(
                reasons.INVALID_ENDPOINT,
                f"{self._remote.name}: something in front of it answered HTTP {answer.status} for client "
                f"{registration.client_id} with a page, as no client configuration endpoint (RFC 7592) does: "
                "let the operator reach it",
            )
        if answer.status in (401, 403, 404):
            raise HandleRefused(f"{self._remote.name} refused the client's registration token: {said}")

    def _refusal(
        self, operation: str, answer: Answer, registration: Registration | None = None
    ) -> Outcome | AttemptSpent:
        """What any other 4xx to a POST or PUT means."""
        error = self._error(answer, registration)
        # draft-ietf-httpapi-idempotency-key-header names the statuses and leaves the code to the server; ours says
        # idempotency_key_reused (another body) and idempotency_key_unreadable.
        if answer.status in (409, 422) and "idempotency" in (error.code or ""):
            return AttemptSpent(f"{self._remote.name}: {operation}: HTTP {answer.status}, {error}")
        if answer.status == 409:
            # The same draft: the first request with this key is still being worked on.
            return ServerUnavailable(
                reasons.UNREACHABLE,
                f"{self._remote.name} is still at work on an earlier {operation}: {error}; it is tried again by itself",
                uncertain=True,
            )
        if answer.status in _METADATA_AT_FAULT and error.code is not None:
            return MetadataRejected(
                reasons.INVALID_CLIENT_METADATA,
                f"{self._remote.name} refused the client's metadata: HTTP {answer.status}, {error}; "
                "correct spec.scopes, spec.audience or spec.client.name",
            )
        return AdministratorMustAct(
            reasons.INVALID_ENDPOINT,
            f"{self._remote.name}: {operation} at {self._registration_endpoint} was answered HTTP {answer.status}, "
            f"{error}: no client registration endpoint answers so; correct spec.endpoints.registration",
        )

    def _registration(self, answer: Answer, *, previous: Registration | None) -> Registration:
        """What an answer gives; what it leaves out stays. Raises ServerUnavailable where it makes no sense."""
        body = answer.json or {}
        client_id = body.get("client_id")
        if not is_visible(client_id) or (previous is not None and client_id != previous.client_id):
            raise ServerUnavailable(
                reasons.UNREACHABLE,
                f"{self._remote.name}: its answer about a client holds no client_id, or another client's; "
                "it is tried again by itself",
                uncertain=True,
            )
        secret, token, uri = (
            body.get(name) for name in ("client_secret", "registration_access_token", "registration_client_uri")
        )
        registration = Registration(
            client_id=str(client_id),
            client_secret=str(secret) if is_visible(secret) else (previous.client_secret if previous else ""),
            registration_client_uri=(
                self._own(str(uri)) if _is_uri(uri) else (previous.registration_client_uri if previous else None)
            ),
            registration_access_token=(
                str(token) if is_bearer_token(token) else (previous.registration_access_token if previous else None)
            ),
        )
        self._manages_clients = (
            registration.registration_client_uri is not None and registration.registration_access_token is not None
        )
        self._note_expiry(body, registration)
        return registration

    def _note_expiry(self, body: Mapping[str, Any], registration: Registration) -> None:
        """0 and absent mean never (RFC 7591 section 3.2.1; django-oauth-toolkit leaves it out)."""
        expires_at = body.get("client_secret_expires_at")
        if isinstance(expires_at, int) and expires_at > 0:
            _LOG.warning(
                "%s: the secret of client %s expires at %d seconds since the epoch: the service will be refused then",
                self._remote.name,
                registration.client_id,
                expires_at,
            )

    def _compare(self, done: str, answer: Answer, metadata: ClientMetadata, registration: Registration) -> None:
        """Some servers cut or replace what they were asked for, and say so only in the answer.

        An absent scope says nothing. The authentication method is not compared: django-oauth-toolkit answers
        another one than it was sent and takes both.
        """
        if not registration.client_secret:
            raise RegisteredOtherwise(
                reasons.INVALID_CLIENT_METADATA,
                f"{self._remote.name} {done} client {registration.client_id} without a client_secret, although "
                f"{metadata.token_endpoint_auth_method} was asked for: it must register confidential clients",
                registration=registration,
            )
        scope = (answer.json or {}).get("scope")
        if isinstance(scope, str) and set(scope.split()) != set(metadata.scopes):
            granted = [name for name in metadata.scopes if name in scope.split()]
            raise RegisteredOtherwise(
                reasons.SCOPE_NOT_GRANTED,
                f"{self._remote.name} {done} client {registration.client_id} with other scopes than spec.scopes: of "
                f"{' '.join(metadata.scopes)} it granted {' '.join(granted) or 'none'}; edit spec.scopes, "
                "or let the server grant them",
                registration=registration,
            )


def _differences(held: Mapping[str, Any], metadata: ClientMetadata) -> tuple[str, ...]:
    """Which members are not as they should be. What is not told is not compared, and neither is the method of
    authentication: django-oauth-toolkit tells another one than it was sent and takes both.
    """
    scope, grants, audience = held.get("scope"), held.get("grant_types"), held.get("audience")
    differs = {
        "client_name": "client_name" in held and held["client_name"] != metadata.client_name,
        "scope": isinstance(scope, str) and set(scope.split()) != set(metadata.scopes),
        "grant_types": isinstance(grants, list) and grants != ["client_credentials"],
        "audience": isinstance(audience, list) and set(audience) != set(metadata.audiences),
    }
    return tuple(name for name, found in differs.items() if found)


def _is_uri(value: object) -> bool:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or not value or " " in value:
        return False
    try:
        return bool(urlsplit(value).path)
    except ValueError:
        return False
