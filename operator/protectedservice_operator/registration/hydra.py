"""Ory Hydra by its admin API: the driver for servers that take the client's id and secret from us.

A registration is an upsert: POST, and where the id is there already (409) with this object's tag, PUT. So an
interrupted one is simply repeated, there is exactly one client, always, and nobody else's is overwritten.

What was seen at Hydra 2.3: PUT replaces everything, the metadata included, and keeps the secret unless one is sent; a
client may only authenticate as it is registered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from .. import reasons
from ..authorization_server import Endpoints
from ..errors import AdministratorMustAct, Outcome, ServerUnavailable
from .credential import Credential
from .driver import (
    Capabilities,
    ClientGone,
    ClientIdTaken,
    ClientMetadata,
    FoundClient,
    MetadataRejected,
    Reading,
    Registration,
    RegistrationRefused,
)
from .names import same_owner
from .oauth import OAuthError, oauth_error
from .remote import Answer, Remote

TAG: Final = "protectedservice.dev/tag"  # key of the tag in the client's metadata
_METADATA_AT_FAULT: Final = (400, 413, 422)


class HydraAdmin:
    """A `Driver` for one Hydra.

    Args:
        admin_url: without `/admin`.
        credential: for a proxy in front of the admin API; Hydra itself asks for none.

    Raises:
        AdministratorMustAct: the credential cannot be sent.
    """

    def __init__(self, remote: Remote, endpoints: Endpoints, admin_url: str, credential: Credential) -> None:
        self._remote, self._endpoints, self._secrets = remote, endpoints, credential.secrets
        self._clients = f"{admin_url.rstrip('/')}/admin/clients"
        try:
            self._authorization = credential.authorization
        except ValueError as error:
            raise AdministratorMustAct(
                reasons.REGISTRATION_REFUSED,
                f"{remote.name}: key `token` of the registration credential cannot be sent: {error}: "
                "correct the Secret",
            ) from None

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            register=True,
            caller_chosen_id=True,
            read=True,
            update=True,
            delete=True,
            rotate_secret=True,
            revocation=self._endpoints.revocation is not None,
            jwks=self._endpoints.jwks is not None,
        )

    async def register(
        self, metadata: ClientMetadata, attempt: str, chosen: Registration | None = None
    ) -> Registration:
        """Make the client `chosen`, or make what an earlier attempt of this object's made that client. Repeatable.

        Raises:
            ClientIdTaken: somebody else's client has the id; it is as it was.
            RegistrationRefused, MetadataRejected: nothing was changed.
            ServerUnavailable, AdministratorMustAct: as everywhere.
            ValueError: nothing was chosen, which the registrar does for every driver with caller_chosen_id.
        """
        if chosen is None:
            raise ValueError("Hydra's clients have ids that the operator chooses")
        answer = await self._ask("register", "POST", self._clients, _body(metadata, chosen))
        if answer.status == 409:
            found = await self.find(chosen.client_id)
            if found is None:
                raise ServerUnavailable(
                    reasons.UNREACHABLE,
                    f"{self._remote.name}: client {chosen.client_id} was there and is gone; tried again by itself",
                )
            if not same_owner(found.tag, metadata.tag):
                raise ClientIdTaken(self._remote.name, chosen.client_id)
            answer = await self._ask("register", "PUT", self._client(chosen), _body(metadata, chosen))
        if answer.status >= 400:
            raise self._refusal("register", answer, chosen)
        return chosen

    async def read(self, registration: Registration, metadata: ClientMetadata) -> Reading:
        """Compare. The secret is not told. Raises ClientGone, else as `register`."""
        answer = await self._ask("read", "GET", self._client(registration), None)
        if _is_gone(answer):
            raise ClientGone(f"{self._remote.name} has no client {registration.client_id}")
        if answer.status >= 400:
            raise self._refusal("read", answer, registration)
        return Reading(registration, _differences(answer.json or {}, _body(metadata, registration)))

    async def update(self, registration: Registration, metadata: ClientMetadata, attempt: str) -> Registration:
        """Replace the client's metadata, and its secret by the one we hold. Raises ClientGone, else as `register`."""
        answer = await self._ask("update", "PUT", self._client(registration), _body(metadata, registration))
        if _is_gone(answer):
            raise ClientGone(f"{self._remote.name} has no client {registration.client_id}")
        if answer.status >= 400:
            raise self._refusal("update", answer, registration)
        return registration

    async def delete(self, registration: Registration) -> None:
        """Remove the client with its tokens; one that is gone is done."""
        answer = await self._ask("delete", "DELETE", self._client(registration), None)
        if answer.status >= 400 and not _is_gone(answer):
            raise self._refusal("delete", answer, registration)

    async def find(self, client_id: str) -> FoundClient | None:
        """The client of this id; None when there is none."""
        registration = Registration(client_id, "")
        answer = await self._ask("read", "GET", self._client(registration), None)
        if _is_gone(answer):
            return None
        if answer.status >= 400 or answer.json is None:
            raise self._refusal("read", answer, registration)
        metadata = answer.json.get("metadata")
        tag = metadata.get(TAG) if isinstance(metadata, dict) else None
        return FoundClient(tag if isinstance(tag, str) else None, _other_uses(answer.json))

    def _client(self, registration: Registration) -> str:
        return f"{self._clients}/{quote(registration.client_id, safe='')}"

    async def _ask(self, operation: str, method: str, url: str, body: dict[str, Any] | None) -> Answer:
        answer = await self._remote.request(
            operation, method, url, json=body, authorization=self._authorization, json_due=method != "DELETE"
        )
        if answer.status in (401, 403):
            raise RegistrationRefused(
                reasons.REGISTRATION_REFUSED,
                f"{self._remote.name}: what stands in front of the admin API refused the operator's credential: HTTP "
                f"{answer.status}, {self._error(answer)}; correct the Secret in spec.registration.credentialsSecret",
            )
        return answer

    def _error(self, answer: Answer, registration: Registration | None = None) -> OAuthError:
        return oauth_error(answer.json, *self._secrets, registration.client_secret if registration else None)

    def _refusal(self, operation: str, answer: Answer, registration: Registration) -> Outcome:
        said = f"HTTP {answer.status}, {self._error(answer, registration)}"
        if answer.status in _METADATA_AT_FAULT and answer.json is not None:
            return MetadataRejected(
                reasons.INVALID_CLIENT_METADATA,
                f"{self._remote.name} refused the client's metadata: {said}; "
                "correct spec.scopes, spec.audience or spec.client.name",
            )
        return AdministratorMustAct(
            reasons.INVALID_ENDPOINT,
            f"{self._remote.name}: {operation} at {self._clients} was answered {said}: no admin API of Hydra answers "
            "so; correct spec.registration.hydra.adminUrl",
        )


def _is_gone(answer: Answer) -> bool:
    """Hydra says 404 in JSON; a page is from something in front of it and says nothing about the client."""
    return answer.status == 404 and answer.json is not None


def _differences(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str, ...]:
    """Which members are not as they should be; the order of scopes does not count. Hydra leaves empty ones out."""

    def comparable(client: Mapping[str, Any], name: str) -> object:
        value = client.get(name) or None
        return sorted(value.split()) if name == "scope" and isinstance(value, str) else value

    told = wanted.keys() - {"client_id", "client_secret"}
    return tuple(sorted(name for name in told if comparable(held, name) != comparable(wanted, name)))


def _other_uses(held: Mapping[str, Any]) -> tuple[str, ...]:
    """Hydra leaves empty members out. Without grant_types a client has authorization_code (RFC 7591 section 2)."""
    grants = tuple(str(grant) for grant in held.get("grant_types") or ("authorization_code",))
    redirects = ("redirect_uris",) if held.get("redirect_uris") else ()
    return tuple(grant for grant in grants if grant != "client_credentials") + redirects


def _body(metadata: ClientMetadata, client: Registration) -> dict[str, Any]:
    """The whole client: what a PUT leaves out, Hydra forgets."""
    return {
        "client_id": client.client_id,
        "client_secret": client.client_secret,
        "client_name": metadata.client_name,
        "grant_types": ["client_credentials"],
        "response_types": [],
        "redirect_uris": [],
        "token_endpoint_auth_method": metadata.token_endpoint_auth_method,
        "scope": " ".join(metadata.scopes),
        "audience": list(metadata.audiences),
        "metadata": {TAG: metadata.tag},
    }
