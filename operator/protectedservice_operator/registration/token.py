"""The endpoints of a client's daily life: token, introspection, revocation; and the probe that tells a live client."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from .. import reasons
from ..authorization_server import Endpoints
from ..errors import ServerUnavailable
from .driver import ClientState
from .oauth import OAuthError, basic, is_bearer_token, oauth_error
from .remote import Answer, Remote

BASIC: Final = "client_secret_basic"
ABSENT_SCOPE: Final = "protectedservice.dev/absent"  # no client of ours ever holds it


class TokenRefused(Exception):
    """The server answered, and said no (4xx). `error` is the OAuth error code, None if there was none.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, operation: str, status: int, error: OAuthError) -> None:
        super().__init__(f"{operation} was refused: HTTP {status}, {error}")
        self.operation, self.status, self.error, self.description = operation, status, error.code, error.description


@dataclass(frozen=True)
class Token:
    """A fresh access token. `expires_in`: seconds, None if the server did not say."""

    value: str = field(repr=False)
    expires_in: float | None = None


class TokenEndpoint:
    """What a client can do at one server. All calls raise ServerUnavailable when there is no trustworthy answer."""

    def __init__(
        self,
        remote: Remote,
        endpoints: Endpoints,
        *,
        authentication: str = BASIC,
        introspection_authentication: str = BASIC,
        audience_parameter: str | None = "resource",
    ) -> None:
        """How clients say who they are (RFC 7591 section 2, token_endpoint_auth_method), and ask for an audience.

        `audience_parameter`: the form's name for it at the token endpoint; None: the server adds it unasked.
        """
        self._remote, self._endpoints = remote, endpoints
        self._authentication, self._introspection_authentication = authentication, introspection_authentication
        self._audience_parameter = audience_parameter

    @property
    def can_revoke(self) -> bool:
        """Whether the server has a revocation endpoint that is known."""
        return self._endpoints.revocation is not None

    async def mint(
        self, client_id: str, client_secret: str, scopes: tuple[str, ...], audience: str | None = None
    ) -> Token:
        """A token by client_credentials (RFC 6749 section 4.4); the audience goes as `resource` (RFC 8707), or as the
        server has it.

        Raises TokenRefused on any 4xx.
        """
        answer = await self._mint(client_id, client_secret, scopes, audience)
        if answer.status >= 400:
            raise TokenRefused("the token request", answer.status, oauth_error(answer.json, client_secret))
        return self._token(answer)

    async def revoke(self, client_id: str, client_secret: str, token: str) -> bool:
        """Revoke the client's own token (RFC 7009). False: the server has no endpoint for it, nothing was done.

        Raises TokenRefused on any 4xx.
        """
        if self._endpoints.revocation is None:
            return False
        form = {"token": token, "token_type_hint": "access_token"}
        answer = await self._post(
            "revoke", self._endpoints.revocation, form, client_id, client_secret, self._authentication, json_due=False
        )
        if answer.status >= 400:
            raise TokenRefused("the revocation", answer.status, oauth_error(answer.json, client_secret, token))
        return True

    async def introspect(self, client_id: str, client_secret: str, token: str) -> bool:
        """Whether the token is active (RFC 7662). Raises TokenRefused when the client may not ask."""
        answer = await self._post(
            "introspect",
            self._endpoint("introspection"),
            {"token": token, "token_type_hint": "access_token"},
            client_id,
            client_secret,
            self._introspection_authentication,
        )
        if answer.status >= 400:
            error = oauth_error(answer.json, client_secret, token)
            if answer.status == 400 and error.code == "unsupported_token_type":
                return False  # the token is blamed, not the client: oidc-provider answers so
            raise TokenRefused("the introspection", answer.status, error)
        active = (answer.json or {}).get("active")
        if not isinstance(active, bool):
            raise self._senseless("introspect", "`active` is absent or no boolean")
        return active

    async def probe(self, client_id: str, client_secret: str, absent_scope: str = ABSENT_SCOPE) -> ClientState:
        """Whether the server still knows the client by this secret, by asking for a scope that it surely lacks.

        `invalid_scope` comes only after the client was recognised (RFC 6749 section 5.2). A server that grants the
        scope all the same knows the client too; that token is revoked where it can be.
        """
        answer = await self._mint(client_id, client_secret, (absent_scope,), None)
        error = oauth_error(answer.json, client_secret)
        match answer.status, error.code:
            case 400, "invalid_scope":
                return ClientState.ALIVE
            case (400, "invalid_client") | (401, "invalid_client" | "unauthorized_client"):
                return ClientState.REFUSED  # Keycloak says unauthorized_client to a wrong secret
            case status, _ if status < 300:
                await self.revoke_at_best(client_id, client_secret, self._token(answer))
                return ClientState.ALIVE
        return ClientState.UNKNOWN

    async def revoke_at_best(self, client_id: str, client_secret: str, token: Token) -> None:
        """Whatever the token was to show is shown already; one that cannot be revoked lives until it expires."""
        try:
            await self.revoke(client_id, client_secret, token.value)
        except (TokenRefused, ServerUnavailable):
            return

    async def _mint(self, client_id: str, client_secret: str, scopes: tuple[str, ...], audience: str | None) -> Answer:
        form = {"grant_type": "client_credentials", "scope": " ".join(scopes)}
        if audience is not None and self._audience_parameter is not None:
            form[self._audience_parameter] = audience
        return await self._post("token", self._endpoint("token"), form, client_id, client_secret, self._authentication)

    async def _post(
        self,
        operation: str,
        url: str,
        form: dict[str, str],
        client_id: str,
        client_secret: str,
        method: str,
        *,
        json_due: bool = True,
    ) -> Answer:
        authorization = None
        match method:
            case "client_secret_post":
                form = {**form, "client_id": client_id, "client_secret": client_secret}
            case "client_secret_basic":
                authorization = basic(client_id, client_secret)
        return await self._remote.request(
            operation, "POST", url, form=form, authorization=authorization, json_due=json_due
        )

    def _token(self, answer: Answer) -> Token:
        body = answer.json or {}
        value, expires_in = body.get("access_token"), body.get("expires_in")
        if not isinstance(value, str) or not is_bearer_token(value):
            raise self._senseless("token", "it holds no access_token that could be sent")
        if str(body.get("token_type", "")).lower() != "bearer":
            raise self._senseless("token", "its token_type is not Bearer")
        if isinstance(expires_in, bool) or not isinstance(expires_in, int | float) or expires_in < 0:
            return Token(value=value)
        return Token(value=value, expires_in=float(expires_in))

    def _endpoint(self, name: str) -> str:
        url: str | None = getattr(self._endpoints, name)
        if url is None:
            raise ValueError(f"{self._remote.name}: no {name} endpoint: discover() was to require it")
        return url

    def _senseless(self, operation: str, fault: str) -> ServerUnavailable:
        return ServerUnavailable(
            reasons.UNREACHABLE,
            f"{self._remote.name}: {operation} got no usable answer: {fault}; it is tried again by itself",
            uncertain=True,
        )
