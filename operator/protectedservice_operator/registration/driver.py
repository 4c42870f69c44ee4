"""What the operator may ask of any authorization server, whatever its kind.

One driver per kind of server implements `Driver`. Drivers do no bookkeeping: the ledger's write order belongs to the
reconcile. Drivers raise the operator's own errors, never httpx's:

- `ServerUnavailable` (errors.py): no trustworthy answer; `uncertain` says whether the request may have taken effect.
- `RegistrationRefused`: our initial access token, or the administrator's credential, was refused (401, 403).
- `MetadataRejected`: the server refuses this client's metadata (400 with an OAuth error, RFC 7591 section 3.2.2).
- `ClientIdTaken`: somebody else's client has the id that was chosen.
- `RegisteredOtherwise`: the client exists, but not as asked; the error carries it.
- `AttemptSpent`: the server honours Idempotency-Key and refuses this one, with this metadata.
- `HandleRefused`: 401 or 403 at a client's own configuration endpoint: gone, or a stale token. The caller asks `probe`.
- `ClientGone`: the server says plainly that there is no such client (404).
"""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from .. import reasons
from ..errors import AdministratorMustAct, UserMustEdit


class RegistrationRefused(AdministratorMustAct):
    """The authorization server refused the operator's own registration credential."""


class MetadataRejected(UserMustEdit):
    """The authorization server refused the client's metadata, e.g. an unknown scope."""


class ClientIdTaken(UserMustEdit):
    """There is a client of the id that was chosen, and it does not carry this object's tag. Nothing was changed."""

    def __init__(self, server: str, client_id: str) -> None:
        text = f"{server}: client {client_id} is there already and not this object's; bring another client id"
        super().__init__(reasons.CLIENT_ID_TAKEN, text)


class RegisteredOtherwise(MetadataRejected):
    """The client exists, but not as asked: other scopes (ScopeNotGranted), or without a secret.

    Attributes:
        registration: what exists now. To be stored before anything else, as a registration that succeeded: its
            token may be the only one that still works. It can be updated or deleted.
    """

    def __init__(self, reason: str, message: str, *, registration: Registration) -> None:
        super().__init__(reason, message)
        self.registration = registration


class AttemptSpent(Exception):
    """The server knows this attempt and does not answer it again: used with other metadata, or the answer is lost.

    The earlier request took effect. Repeating it with the metadata it was sent with may still give its answer; a new
    attempt leaves a client behind and is to be counted.
    """


class HandleRefused(Exception):
    """401 or 403 at the client configuration endpoint (RFC 7592): ambiguous, see `TokenEndpoint.probe`."""


class ClientGone(Exception):
    """The authorization server says that there is no such client."""


@dataclass(frozen=True)
class Capabilities:
    """What this server can do, as published in AuthorizationServer.status.capabilities."""

    register: bool = False
    idempotent_register: bool = False
    caller_chosen_id: bool = False
    find_by_tag: bool = False
    read: bool = False
    update: bool = False
    delete: bool = False
    rotate_secret: bool = False
    two_secrets: bool = False
    revocation: bool = False
    jwks: bool = False


@dataclass(frozen=True)
class ClientMetadata:
    """What the server is to hold about one client. Names as in RFC 7591 section 2; audiences as Ory Hydra has it."""

    client_name: str
    scopes: tuple[str, ...]
    audiences: tuple[str, ...] = ()  # that its tokens may be meant for
    token_endpoint_auth_method: str = "client_secret_basic"  # noqa: S105 (a method's name, RFC 7591)
    tag: str = ""  # which object's client this is; part of client_name too, for servers that keep nothing else
    # Ids of other clients that must be able to introspect this one's tokens, where a server asks that a token's
    # audience name whoever introspects it.
    peers: tuple[str, ...] = ()

    def digest(self) -> str:
        """Equal iff the server needs no update; 16 hexadecimal digits; the order of scopes does not count.

        The ledger remembers it: what had no peers and at most one audience must go on having the digest that it had.
        """
        audience = sorted(self.audiences) if len(self.audiences) > 1 else next(iter(self.audiences), None)
        content: list[object] = [self.client_name, sorted(self.scopes), audience, self.token_endpoint_auth_method]
        if self.peers:
            content.append(sorted(self.peers))
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Registration:
    """A client as the server gave it to us. `repr` shows no secret."""

    client_id: str
    client_secret: str = field(repr=False)
    registration_client_uri: str | None = None
    registration_access_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class FoundClient:
    """A client that a server has, as far as it tells whose it is.

    Attributes:
        other_uses: what it is for beside client_credentials, by the server's names; an update would end that.
    """

    tag: str | None
    other_uses: tuple[str, ...] = ()


@runtime_checkable
class Finder(Protocol):
    """A driver of a server whose clients can be looked up by their ids, whoever made them."""

    async def find(self, client_id: str) -> FoundClient | None:
        """The client of this id; None when there is none."""


@dataclass(frozen=True)
class Reading:
    """What the server holds about a client of ours.

    Attributes:
        registration: with the handle as it is from now on: a GET may change the registration token (RFC 7592 section
            3). To be stored before anything else.
        differences: names of the metadata that are not as they should be; what the server does not tell differs not.
    """

    registration: Registration
    differences: tuple[str, ...] = ()


class ClientState(enum.Enum):
    """What a probe of the token endpoint showed about stored credentials."""

    ALIVE = "alive"  # the server knows the client and its secret
    REFUSED = "refused"  # invalid_client: gone, or its secret is no longer ours
    UNKNOWN = "unknown"  # the server answered something that proves neither


class Driver(Protocol):
    """One kind of authorization server."""

    @property
    def capabilities(self) -> Capabilities: ...

    async def register(
        self, metadata: ClientMetadata, attempt: str, chosen: Registration | None = None
    ) -> Registration:
        """Make the client. `attempt` is sent as `Idempotency-Key`: the same attempt gives the same client where the
        server honours it. With the capability `caller_chosen_id`, `chosen` is its id and secret: a client of that id
        that carries this object's tag becomes that client, anybody else's raises ClientIdTaken. Deadline 10 s a call.
        """

    async def read(self, registration: Registration, metadata: ClientMetadata) -> Reading:
        """Compare what the server holds with `metadata` (RFC 7592 2.1); only with the capability `read`.

        Raises HandleRefused or ClientGone where the handle is not good any more.
        """

    async def update(self, registration: Registration, metadata: ClientMetadata, attempt: str) -> Registration:
        """Replace the client's metadata; the answer's handle and secret replace the stored ones (RFC 7592 2.2).

        Raises HandleRefused or ClientGone where the handle is not good any more.
        """

    async def delete(self, registration: Registration) -> None:
        """Remove the client (RFC 7592 2.3). 404 is done. Raises HandleRefused on 401 and 403 to its own token."""
