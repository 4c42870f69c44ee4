"""Keycloak by its admin API: the driver for realms in which we choose the client's id and secret.

What was seen at Keycloak 26.4 and 26.7, and decides what is done here:

- A client's scope lists count when it is made and are ignored, without a word, when it is replaced: they are changed
  one by one. Client scopes that the realm does not have are left out without a word: they are looked for first.
- From 26.6.2 on, introspection says `active: false` to a client that the token's `aud` does not name, even of its own
  token. So each client has a client scope of its own name with two audience mappers: the client itself, and what the
  service calls its audience. It is a default scope of the client; give it to a caller's client, and this client can
  introspect that caller's tokens.
- A client scope's mappers are ignored when it is replaced: they are changed one by one, too.
- The administrator's token lives 60 s.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from .. import reasons
from ..authorization_server import Endpoints
from ..errors import AdministratorMustAct, Outcome, ServerUnavailable
from ..tenancy import OWN_PREFIX
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
from .hydra import TAG
from .names import same_owner
from .oauth import OAuthError, basic, bearer, is_bearer_token, oauth_error
from .remote import Answer, Remote

TOKEN_MARGIN: Final = 10.0  # seconds before its end at which a token of the administrator's is not used any more
LIST_LIMIT: Final = 4 * 1024 * 1024  # bytes; all client scopes of a realm come in one answer, ours among them
BASIC_SCOPE: Final = "basic"  # Keycloak's own: `sub`; absent before 25
CLIENT_MAPPER: Final = "client"
AUDIENCE_MAPPER: Final = "audience"
# Members of a client that is for more than client_credentials, where they are neither false nor empty.
_OTHER_USES: Final = (
    "publicClient",
    "bearerOnly",
    "standardFlowEnabled",
    "implicitFlowEnabled",
    "directAccessGrantsEnabled",
    "redirectUris",
)


class KeycloakAdmin:
    """A `Driver` for one realm.

    Args:
        admin_url: Keycloak's base, without `/admin` and `/realms`.
        credential: a client of the realm with a service account, or a user of the realm master.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        remote: Remote,
        endpoints: Endpoints,
        admin_url: str,
        realm: str,
        credential: Credential,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._remote, self._endpoints, self._credential, self._clock = remote, endpoints, credential, clock
        self._base, self._realm_name = admin_url.rstrip("/"), realm
        self._realm = f"{self._base}/admin/realms/{quote(realm, safe='')}"
        self._token, self._token_ends, self._login = "", float("-inf"), asyncio.Lock()

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
            AdministratorMustAct: the realm lacks a client scope (ClientScopeMissing), or there is no such realm.
            ServerUnavailable: as everywhere.
            ValueError: nothing was chosen, which the registrar does for every driver with caller_chosen_id.
        """
        if chosen is None:
            raise ValueError("Keycloak's clients have ids that the operator chooses")
        scopes = await self._prepare_scopes("register", metadata, chosen)
        body = {
            **_body(metadata, chosen),
            "defaultClientScopes": [name for name in (BASIC_SCOPE, scope_name(chosen.client_id)) if name in scopes],
            "optionalClientScopes": list(metadata.scopes),
        }
        answer = await self._ask("register", "POST", f"{self._realm}/clients", body)
        if answer.status == 409 and (found := await self._find(chosen.client_id)) is not None:
            if not same_owner(_tag(found), metadata.tag):
                raise ClientIdTaken(self._remote.name, chosen.client_id)
            await self._replace("register", found, metadata, chosen, scopes)
        elif answer.status >= 400:
            raise self._refusal("register", answer, chosen)
        return chosen

    async def read(self, registration: Registration, metadata: ClientMetadata) -> Reading:
        """Compare the client, its secret, its scope lists and its own client scope's mappers.

        Raises ClientGone, else as `register`.
        """
        found = await self._find(registration.client_id)
        if found is None:
            await self._delete_scope(registration.client_id)
            raise ClientGone(f"{self._remote.name} has no client {registration.client_id}")
        own = (await self._scopes()).get(scope_name(registration.client_id)) or {}
        return Reading(registration, _differences(found, own, metadata, registration))

    async def update(self, registration: Registration, metadata: ClientMetadata, attempt: str) -> Registration:
        """Bring the client and its scopes to `metadata`, its secret to the one we hold.

        Raises ClientGone, else as `register`.
        """
        found = await self._find(registration.client_id)
        if found is None:
            await self._delete_scope(registration.client_id)
            raise ClientGone(f"{self._remote.name} has no client {registration.client_id}")
        scopes = await self._prepare_scopes("update", metadata, registration)
        await self._replace("update", found, metadata, registration, scopes)
        return registration

    async def delete(self, registration: Registration) -> None:
        """Remove the client and its client scope; what is gone is done."""
        found = await self._find(registration.client_id)
        if found is not None:
            await self._gone_is_done("delete", f"{self._realm}/clients/{found['id']}", registration)
        await self._delete_scope(registration.client_id)

    async def find(self, client_id: str) -> FoundClient | None:
        """The client of this id; None when there is none."""
        found = await self._find(client_id)
        if found is None:
            return None
        return FoundClient(_tag(found), tuple(name for name in _OTHER_USES if found.get(name)))

    # --- the client --------------------------------------------------------------------------------------------------

    async def _find(self, client_id: str) -> Mapping[str, Any] | None:
        """The client's representation by its id; None when there is none. It holds the secret."""
        found = await self._list("read", f"{self._realm}/clients?clientId={quote(client_id, safe='')}")
        return next((client for client in found if client.get("clientId") == client_id), None)

    async def _replace(
        self,
        operation: str,
        found: Mapping[str, Any],
        metadata: ClientMetadata,
        registration: Registration,
        scopes: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Bring a client that exists to `metadata`, its scope lists included."""
        client = f"{self._realm}/clients/{found['id']}"
        await self._change(operation, "PUT", client, _body(metadata, registration), registration)
        for name in sorted(set(metadata.scopes) - set(found.get("optionalClientScopes") or ())):
            await self._change(
                operation, "PUT", f"{client}/optional-client-scopes/{scopes[name]['id']}", None, registration
            )
        for name in sorted(set(found.get("optionalClientScopes") or ()) - set(metadata.scopes)):
            if name in scopes:
                await self._gone_is_done(
                    operation, f"{client}/optional-client-scopes/{scopes[name]['id']}", registration
                )
        name = scope_name(registration.client_id)
        if name not in (found.get("defaultClientScopes") or ()):
            own = scopes[name]["id"]
            await self._change(operation, "PUT", f"{client}/default-client-scopes/{own}", None, registration)

    # --- client scopes -----------------------------------------------------------------------------------------------

    async def _scopes(self) -> dict[str, Mapping[str, Any]]:
        """The realm's client scopes by name."""
        found = await self._list("read", f"{self._realm}/client-scopes")
        return {str(scope.get("name")): scope for scope in found if scope.get("protocol") == "openid-connect"}

    async def _prepare_scopes(
        self, operation: str, metadata: ClientMetadata, registration: Registration
    ) -> dict[str, Mapping[str, Any]]:
        """The realm's client scopes by name, once the client's own is among them and says its audience.

        Raises AdministratorMustAct, before anything is changed, when one of the service's scopes is not there.
        """
        scopes = await self._scopes()
        if missing := [name for name in metadata.scopes if name not in scopes]:
            raise AdministratorMustAct(
                reasons.CLIENT_SCOPE_MISSING,
                f"{self._remote.name}: realm {self._realm_name} has no client scope {', '.join(missing)}: create it "
                "there (protocol openid-connect, included in the token's scope), or edit spec.scopes",
            )
        name = scope_name(registration.client_id)
        own = scopes.get(name)
        if own is None:
            body = {
                "name": name,
                "description": metadata.client_name,
                "protocol": "openid-connect",
                "attributes": {"include.in.token.scope": "false"},
                "protocolMappers": _mappers(registration.client_id, metadata),
            }
            await self._change(operation, "POST", f"{self._realm}/client-scopes", body, registration)
            scopes = await self._scopes()  # for its id; Location would name a host of Keycloak's choice
            if name not in scopes:
                raise ServerUnavailable(
                    reasons.UNREACHABLE,
                    f"{self._remote.name}: the client scope {name} was made and is not there; "
                    "it is tried again by itself",
                    uncertain=True,
                )
        else:
            await self._correct_mappers(operation, own, metadata, registration)
        return scopes

    async def _correct_mappers(
        self, operation: str, scope: Mapping[str, Any], metadata: ClientMetadata, registration: Registration
    ) -> None:
        models = f"{self._realm}/client-scopes/{scope['id']}/protocol-mappers/models"
        present = {mapper.get("name"): mapper for mapper in scope.get("protocolMappers") or ()}
        for wanted in _mappers(registration.client_id, metadata):
            have = present.pop(wanted["name"], None)
            if have is None:
                await self._change(operation, "POST", models, wanted, registration)
            elif have.get("config") != wanted["config"]:
                body = {**wanted, "id": have["id"]}
                await self._change(operation, "PUT", f"{models}/{have['id']}", body, registration)
        for stranger in present.values():
            await self._gone_is_done(operation, f"{models}/{stranger['id']}", registration)

    async def _delete_scope(self, client_id: str) -> None:
        own = (await self._scopes()).get(scope_name(client_id))
        if own is not None:
            await self._gone_is_done("delete", f"{self._realm}/client-scopes/{own['id']}", None)

    # --- the admin API -----------------------------------------------------------------------------------------------

    async def _change(
        self, operation: str, method: str, url: str, body: dict[str, Any] | None, registration: Registration
    ) -> None:
        answer = await self._ask(operation, method, url, body)
        if answer.status >= 400:
            raise self._refusal(operation, answer, registration)

    async def _gone_is_done(self, operation: str, url: str, registration: Registration | None) -> None:
        answer = await self._ask(operation, "DELETE", url, None)
        if answer.status >= 400 and not (answer.status == 404 and answer.json is not None):
            raise self._refusal(operation, answer, registration)

    async def _list(self, operation: str, url: str) -> Sequence[Mapping[str, Any]]:
        answer = await self._ask(operation, "GET", url, None, items_due=True)
        if answer.status >= 400:
            raise self._refusal(operation, answer, None)
        return answer.items or ()

    async def _ask(
        self, operation: str, method: str, url: str, body: dict[str, Any] | None, *, items_due: bool = False
    ) -> Answer:
        """One question to the admin API; a token that is refused is replaced once.

        Raises RegistrationRefused on 401 and 403.
        """
        for fresh in (False, True):
            token = await self._admin_token(fresh=fresh)
            answer = await self._remote.request(
                operation,
                method,
                url,
                json=body,
                authorization=bearer(token),
                json_due=False,
                items_due=items_due,
                limit=LIST_LIMIT,
            )
            if answer.status != 401:
                break
        if answer.status in (401, 403):
            raise RegistrationRefused(
                reasons.REGISTRATION_REFUSED,
                f"{self._remote.name}: the admin API refused the operator: HTTP {answer.status}, "
                f"{self._error(answer, None)}; the account in spec.registration.credentialsSecret must be allowed to "
                f"manage the clients of realm {self._realm_name} (role manage-clients of realm-management)",
            )
        return answer

    async def _admin_token(self, *, fresh: bool) -> str:
        """A token for the admin API, kept until shortly before its end; `fresh`: the one we have was refused."""
        refused = self._token if fresh else None
        async with self._login:
            if self._token and self._token != refused and self._clock() < self._token_ends - TOKEN_MARGIN:
                return self._token
            started = self._clock()
            form, authorization, realm = {"grant_type": "client_credentials"}, None, self._realm_name
            if self._credential.client is not None:
                authorization = basic(*self._credential.client)
            elif self._credential.user is not None:
                username, password = self._credential.user
                realm = "master"
                form = {
                    "grant_type": "password",
                    "client_id": "admin-cli",
                    "username": username,
                    "password": password,
                }
            url = f"{self._base}/realms/{quote(realm, safe='')}/protocol/openid-connect/token"
            answer = await self._remote.request("login", "POST", url, form=form, authorization=authorization)
            if answer.status >= 400:
                raise RegistrationRefused(
                    reasons.REGISTRATION_REFUSED,
                    f"{self._remote.name}: realm {realm} gave the operator no token for the admin API: HTTP "
                    f"{answer.status}, {self._error(answer, None)}; correct the Secret in "
                    "spec.registration.credentialsSecret, or spec.registration.keycloak",
                )
            token, seconds = (answer.json or {}).get("access_token"), (answer.json or {}).get("expires_in")
            if not is_bearer_token(token):
                raise ServerUnavailable(
                    reasons.UNREACHABLE,
                    f"{self._remote.name}: its answer to the login holds no access_token; it is tried again by itself",
                )
            self._token = str(token)
            self._token_ends = started + (float(seconds) if isinstance(seconds, int | float) else 0.0)
            return self._token

    def _error(self, answer: Answer, registration: Registration | None) -> OAuthError:
        """Keycloak says `errorMessage`, or a sentence in `error`, where others say `error_description`."""
        body = dict(answer.json or {})
        body.setdefault("error_description", body.get("errorMessage") or body.get("error"))
        secrets = (*self._credential.secrets, self._token, registration.client_secret if registration else None)
        return oauth_error(body, *secrets)

    def _refusal(self, operation: str, answer: Answer, registration: Registration | None) -> Outcome:
        said = f"HTTP {answer.status}, {self._error(answer, registration)}"
        if answer.status in (400, 413, 422) and answer.json is not None:
            return MetadataRejected(
                reasons.INVALID_CLIENT_METADATA,
                f"{self._remote.name} refused the client's metadata: {said}; "
                "correct spec.scopes, spec.audience or spec.client.name",
            )
        if answer.status in (404, 409) and answer.json is not None and registration is not None:
            return ServerUnavailable(
                reasons.UNREACHABLE,
                f"{self._remote.name}: {operation}: somebody changed the client meanwhile: {said}; "
                "it is tried again by itself",
                uncertain=True,
            )
        return AdministratorMustAct(
            reasons.INVALID_ENDPOINT,
            f"{self._remote.name}: {operation} at {self._realm} was answered {said}: correct "
            "spec.registration.keycloak.adminUrl or realm",
        )


def _body(metadata: ClientMetadata, client: Registration) -> dict[str, Any]:
    """A confidential client for client_credentials and nothing else."""
    return {
        "clientId": client.client_id,
        "secret": client.client_secret,
        "name": metadata.client_name,
        "enabled": True,
        "protocol": "openid-connect",
        "publicClient": False,
        "serviceAccountsEnabled": True,
        "standardFlowEnabled": False,
        "implicitFlowEnabled": False,
        "directAccessGrantsEnabled": False,
        "fullScopeAllowed": False,
        "redirectUris": [],
        "webOrigins": [],
        "attributes": {TAG: metadata.tag},
    }


def _tag(client: Mapping[str, Any]) -> str | None:
    attributes = client.get("attributes")
    tag = attributes.get(TAG) if isinstance(attributes, dict) else None
    return tag if isinstance(tag, str) else None


def scope_name(client_id: str) -> str:
    """Name of the client scope that carries a client's audience: its id, where that is one that we choose.

    The id of a client that somebody brings could be the name of anybody's client scope.
    """
    return client_id if client_id.startswith(OWN_PREFIX) else f"{OWN_PREFIX}brought-{client_id}"


def _mappers(client_id: str, metadata: ClientMetadata) -> list[dict[str, Any]]:
    wanted = [(CLIENT_MAPPER, {"included.client.audience": client_id})]
    wanted += [(f"{CLIENT_MAPPER} {peer}", {"included.client.audience": peer}) for peer in metadata.peers]
    for number, audience in enumerate(metadata.audiences):
        name = f"{AUDIENCE_MAPPER} {number + 1}" if number else AUDIENCE_MAPPER
        wanted.append((name, {"included.custom.audience": audience}))
    return [
        {
            "name": name,
            "protocol": "openid-connect",
            "protocolMapper": "oidc-audience-mapper",
            "config": {**config, "access.token.claim": "true", "introspection.token.claim": "true"},
        }
        for name, config in wanted
    ]


def _differences(
    found: Mapping[str, Any], scope: Mapping[str, Any], metadata: ClientMetadata, registration: Registration
) -> tuple[str, ...]:
    """Which of a client's members are not as they should be, by Keycloak's names."""
    wanted = _body(metadata, registration)
    attributes = found.get("attributes") or {}
    differs = [name for name in wanted if name != "attributes" and found.get(name) != wanted[name]]
    differs += [name for name, value in wanted["attributes"].items() if attributes.get(name) != value]
    if set(found.get("optionalClientScopes") or ()) != set(metadata.scopes):
        differs.append("optionalClientScopes")
    if scope_name(registration.client_id) not in (found.get("defaultClientScopes") or ()):
        differs.append("defaultClientScopes")
    have = {mapper.get("name"): mapper.get("config") or {} for mapper in scope.get("protocolMappers") or ()}
    mappers = {mapper["name"]: mapper["config"] for mapper in _mappers(registration.client_id, metadata)}
    if have.keys() != mappers.keys() or any(not have[name].items() >= mappers[name].items() for name in mappers):
        differs.append("protocolMappers")
    return tuple(differs)
