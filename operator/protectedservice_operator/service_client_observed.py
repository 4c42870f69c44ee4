"""What one pass knows about a ServiceClient, and what its services let its client have. Pure.

A client gets only what is somebody's to give. Each ProtectedService that a ServiceClient names gives its scopes and its
audience if its `allowedClients` lets the namespace in; one that is not there, or about which anything is not known,
gives nothing. An audience that the ServiceClient asks for by itself is its holder's to give, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from . import reasons
from .authorization_server import AuthorizationServer, RegistrationKind
from .errors import AdministratorMustAct, Outcome, UserMustEdit, Wait
from .observed import Brought, Projection, Settings, projects
from .protected_service import ProtectedService
from .registration.ledger import Record, State
from .resource import Reference
from .service_client import AUDIENCE, AUDIENCE_PARAMETER, AUTHENTICATION, SCOPE, TOKEN_URL, ServiceClient

MISSING_RETRY = 300.0  # seconds until a service that does not exist is looked for; its coming is seen at once anyway
_NO_CLIENT = frozenset({State.DELETING, State.ORPHANED})


@dataclass(frozen=True, slots=True)
class Called:
    """A ProtectedService, as far as who calls it must know."""

    service: ProtectedService
    reference: Reference | None  # its AuthorizationServer
    audience_holder: str | None  # namespace/name of who has its audience, if that is another namespace's
    client_id: str | None
    second_client_id: str | None = None  # during a rotation: it introspects, too


@dataclass(frozen=True, slots=True)
class ObservedCaller:
    """All that a plan for a ServiceClient may look at."""

    service: ServiceClient
    reference: Reference | None = None  # the AuthorizationServer that it is to use
    server: AuthorizationServer | None = None
    unreachable: Outcome | None = None  # why the authorization server must not be called now
    refused: Outcome | None = None  # why it will register no new client of ours now
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    called: Mapping[Reference, Called | None] = field(default_factory=dict)  # what it names; None: there is no such
    audience_holder: Called | None = None  # who has the audience that it asks for by itself
    ledger: Record | None = None
    ledger_digests: Mapping[str, str] = field(default_factory=dict)
    projection: Projection | None = None
    check_due: bool = False  # it is time to look at the client at the server

    @property
    def consenting(self) -> tuple[Called, ...]:
        """The services that let this client call them."""
        found = self.called.values()
        return tuple(called for called in found if called is not None and self._refusal(called) is None)

    @property
    def refusals(self) -> tuple[Outcome, ...]:
        """Why what is asked for is not had; empty when all of it is."""
        return tuple(self._refusals())

    def _refusals(self) -> Iterator[Outcome]:
        for reference, called in self.called.items():
            if called is None:
                text = f"ProtectedService {reference} does not exist (yet); its scopes are added when it does"
                yield Wait(reasons.SERVICE_NOT_FOUND, text, retry_after=MISSING_RETRY)
            elif (refusal := self._refusal(called)) is not None:
                yield refusal
        if self.audience_holder is not None and (refusal := self._refusal(self.audience_holder)) is not None:
            text = f"spec.audience {self.service.audience} is not this client's to ask for: {refusal.message}"
            yield AdministratorMustAct(refusal.reason, text)

    def _refusal(self, called: Called) -> Outcome | None:
        """Why this service gives the client nothing; None: it lets it in."""
        name, home = f"ProtectedService {called.service.reference}", self.service.meta.namespace
        if called.service.meta.deletion_timestamp is not None:
            return Wait(reasons.SERVICE_NOT_FOUND, f"{name} is being deleted", retry_after=MISSING_RETRY)
        if not called.service.admits_clients_of(home, self.namespace_labels):
            text = (
                f"{name} does not let ServiceClients of namespace {home} call it; "
                "ask its owner to extend its spec.allowedClients"
            )
            return AdministratorMustAct(reasons.SERVICE_NOT_ALLOWED, text)
        if called.reference is None or called.reference != self.reference:
            text = f"{name} takes tokens of AuthorizationServer {called.reference}, this client gets them of "
            text += f"{self.reference}; name in spec.authorizationServerRef that of the service"
            return UserMustEdit(reasons.SERVED_ELSEWHERE, text)
        if called.audience_holder is not None:
            text = (
                f"{name} asks for an audience that ProtectedService {called.audience_holder} holds; see its conditions"
            )
            return AdministratorMustAct(reasons.AUDIENCE_TAKEN, text)
        return None

    # --- ObservedClient ----------------------------------------------------------------------------------------------

    @property
    def scopes(self) -> tuple[str, ...]:
        """That the client is to have: spec's, and those of the services that consent.

        A suspended one gets nothing new, and keeps only what it would be given now: else a caller could suspend itself,
        name the service no more, and so keep what that takes back.
        """
        given = dict.fromkeys(scope for called in self.consenting for scope in called.service.scopes)
        wanted = dict.fromkeys(self.service.scopes) | given
        held = self.ledger.scopes if self.ledger is not None and self.service.at_rest else wanted
        refused = self._refused(wanted)
        return tuple(scope for scope in wanted if scope in held and scope not in refused)

    @property
    def refused_scopes(self) -> tuple[str, ...]:
        """That it asks for, itself or for its services, and that its AuthorizationServer does not let it have."""
        given = dict.fromkeys(scope for called in self.consenting for scope in called.service.scopes)
        return self._refused(dict.fromkeys(self.service.scopes) | given)

    def _refused(self, scopes: Iterable[str]) -> tuple[str, ...]:
        if self.server is None:
            return ()
        return self.server.refused_scopes(scopes, self.service.meta.namespace, self.namespace_labels)

    @property
    def brought(self) -> Brought | None:
        """Nothing: a caller's client is made for it."""
        return None

    @property
    def audiences(self) -> tuple[str, ...]:
        """That the client's tokens may be meant for, likewise."""
        wanted = dict.fromkeys(called.service.audience for called in self.consenting)
        if self.audience_holder is None or self._refusal(self.audience_holder) is None:
            wanted[self.service.audience] = None
        held = self.ledger.audiences if self.ledger is not None and self.service.at_rest else wanted
        return tuple(audience for audience in wanted if audience is not None and audience in held)

    @property
    def peers(self) -> tuple[str, ...]:
        """The services' clients, where a token's audience must name whoever introspects it."""
        if self.server is None or self.server.registration is not RegistrationKind.KEYCLOAK:
            return ()
        called = (*self.consenting, *([self.audience_holder] if self.service.audience in self.audiences else []))
        ids = {id_ for one in called if one is not None for id_ in (one.client_id, one.second_client_id)}
        return tuple(sorted(id_ for id_ in ids if id_ is not None))

    @property
    def barred(self) -> bool:
        """A client without a scope is none: some servers would give it their defaults."""
        return not self.scopes

    @property
    def withdrawn(self) -> bool:
        """Whether the client holds what it may not have any more."""
        record = self.ledger
        if record is None or record.client_id is None:
            return False
        return bool(set(record.scopes) - set(self.scopes) or set(record.audiences) - set(self.audiences))

    @property
    def retains_client(self) -> bool:
        """Whether its client stays when the object goes: never with something that it may not have any more.

        Nobody would take that from it later; and an edit and a deletion may come before any pass between them.
        """
        allowed = self.server is None or self.server.allows(self.service.meta.namespace, self.namespace_labels)
        return self.service.retains_client and allowed and not self.withdrawn

    @property
    def facts(self) -> Mapping[str, str]:
        """What the Secret says beside the credentials: how a token is asked for, and what can be had, by the ledger."""
        record, server = self.ledger, self.server
        endpoints = server.published_endpoints if server is not None else None
        if record is None or server is None or endpoints is None or endpoints.token is None:
            return {}
        facts = {
            TOKEN_URL: endpoints.token,
            AUTHENTICATION: server.token_authentication,
            SCOPE: " ".join(record.scopes),
        }
        if record.audiences:
            facts[AUDIENCE] = " ".join(record.audiences)
            if server.audience_parameter is not None:
                facts[AUDIENCE_PARAMETER] = server.audience_parameter
        return facts

    @property
    def has_client(self) -> bool:
        """Whether there is a client to be used."""
        record = self.ledger
        return record is not None and record.client_id is not None and record.state not in _NO_CLIENT

    def is_projected(self, settings: Settings) -> bool:
        """Whether the caller's Secret says what the ledger says, and is ours."""
        return projects(self, self.keys)

    def is_in_use(self, settings: Settings) -> bool:
        """Whether the Secret holds the client of the ledger. When its readers follow nobody sees: hence the overlap."""
        return self.is_projected(settings)

    @property
    def keys(self) -> Mapping[str, str]:
        """Keys that the Secret is to have, and the name of the value that each holds."""
        told = {*self.ledger_digests, *self.facts}
        return {key: name for key, name in self.service.credentials_keys.items() if name in told}
