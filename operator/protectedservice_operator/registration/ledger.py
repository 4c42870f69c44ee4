"""The ledger: what the operator has asked of an authorization server for one object, written before it asks.

One Secret `psvc-<uid>` in the operator's namespace per object. What is not secret stands in one annotation, so that the
watch cache can know it without holding a secret; the secrets stand in `data` of the same object, so that both change in
one write. The tenant's Secret is a projection of this one and steers nothing.

    (none) ──create──> registering ──> registered <──> updating
                         │  ^  │           │             │  │
             refused     v  │  │           │             │  v  handle lost
                         idle <─┼──────────┼─────────────┼── idle
                               └──────────┴──> deleting ─┘ ──> (none)     or orphaned
                                          └──> retained                   (deletionPolicy Retain)

Past the deadline the object is released and its entry stays, still `deleting`, until the client is gone.

A rotation makes a second client beside the one in use, which serves on, whatever becomes of the second:

    registered ──> rotating ──> registered, second: next ──take over──> registered, second: old ──deleted──> registered
         ^            │                        │
         └── refused ─┘     registered, second: surplus ──deleted──> registered      (it was made in vain)

The two change places in one write. At any time there is one client in use, at most one second, and never two rotations.
"""

from __future__ import annotations

import base64
import enum
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from .driver import ClientMetadata, Registration

SECRET_PREFIX: Final = "psvc-"  # noqa: S105 (of the names of ledger Secrets)
ANNOTATION: Final = "protectedservice.dev/ledger"
SECOND_PREFIX: Final = "second_"  # of the keys of a second client
CHOSEN_CLIENT_ID: Final = "chosen_client_id"  # key of an id that we chose and the server has not confirmed


class State(enum.StrEnum):
    """Where the client's life stands."""

    IDLE = "idle"  # no attempt is open: the last one certainly made nothing, or the old client is to be replaced
    REGISTERING = "registering"  # an intent: a POST may have been sent
    REGISTERED = "registered"
    ROTATING = "rotating"  # an intent: a POST for a second client may have been sent; the first one is in use
    UPDATING = "updating"  # an intent: a PUT may have been sent
    DELETING = "deleting"  # an intent: a DELETE may have been sent
    ORPHANED = "orphaned"  # the object is gone, its client lives and cannot be deleted by us
    RETAINED = "retained"  # the object is gone, its client lives on purpose: never deleted by us


# From these states a client that there is can be retained.
RETAINABLE: Final = frozenset({State.REGISTERED, State.ROTATING, State.UPDATING, State.IDLE})


class Role(enum.StrEnum):
    """What a second client is there for."""

    NEXT = "next"  # to take over
    OLD = "old"  # was in use; deleted when no token of its own can live any more
    SURPLUS = "surplus"  # was made in vain: deleted at once


Operation = Literal["register", "update", "rotate"]
ROTATE: Final = "rotate"


def _all_of(written: object) -> object:
    """One audience, as entries had it before there could be several, stands for a list of it."""
    if written is None:
        return ()
    return (written,) if isinstance(written, str) else written


def _written(audiences: tuple[str, ...]) -> str | tuple[str, ...] | None:
    """At most one is written as entries have always had it, so that an older operator can read them."""
    return audiences if len(audiences) > 1 else next(iter(audiences), None)


_Audiences = Annotated[tuple[str, ...], BeforeValidator(_all_of), PlainSerializer(_written)]


class Intent(BaseModel):
    """What an open attempt asks for: a POST (`register`, or `rotate` for a second client) or a PUT (`update`)."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    operation: Operation
    client_name: str
    scopes: tuple[str, ...]
    audiences: _Audiences = Field(default=(), alias="audience")
    token_endpoint_auth_method: str = "client_secret_basic"  # noqa: S105 (a method's name, RFC 7591)
    tag: str = ""
    peers: tuple[str, ...] = ()

    @classmethod
    def of(cls, operation: Operation, metadata: ClientMetadata) -> Intent:
        return cls(operation=operation, **asdict(metadata))

    def metadata(self) -> ClientMetadata:
        """What to send again."""
        return ClientMetadata(**{name: value for name, value in self if name != "operation"})


class Refusal(BaseModel):
    """The server's last no to this object's metadata, so that the same question is not asked at every pass."""

    model_config = ConfigDict(frozen=True)

    digest: str  # of the metadata that were refused
    reason: str
    message: str
    user_must_edit: bool  # else an administrator must act
    at: float  # seconds since the epoch


class Second(BaseModel):
    """A client beside the one in use: the part that is no secret."""

    model_config = ConfigDict(frozen=True)

    role: Role
    client_id: str
    tag_attempt: str
    manageable: bool = True
    registered: float | None = None
    metadata_digest: str | None = None
    audiences: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    held: float | None = None  # seconds since the epoch: when its wait began
    due: float | None = None  # seconds since the epoch: when its wait ends; None: the wait has not begun
    overlap: float = 0.0  # seconds: the part of that wait in which tokens may still be made with its credentials
    intent: Intent | None = None  # an open update: what the PUT sends
    attempt: str | None = None  # that update's id
    refused: str | None = None  # digest of metadata that the server refused: not asked for again
    deletion_started: float | None = None  # seconds since the epoch


class Record(BaseModel):
    """The part of an entry that is no secret (the annotation's JSON)."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    state: State
    owner_kind: str = "ProtectedService"
    owner_namespace: str
    owner_name: str
    owner_uid: str
    server: str  # namespace/name of the AuthorizationServer
    registration_endpoint: str | None = None  # which server made the client, should the object be edited
    audiences: _Audiences = Field(default=(), alias="audience")  # that the client holds
    scopes: tuple[str, ...] = ()  # that the client holds; entries of long ago do not say
    attempt: str  # the intent's id, sent as Idempotency-Key
    attempt_started: float  # seconds since the epoch
    tag_attempt: str  # first 8 digits of the attempt that made the client: part of client_name for good
    client_id: str | None = None
    manageable: bool = True  # False: the server gave no way to update or delete the client
    intent: Intent | None = None  # what the open attempt sends: a repeated key must carry the same body
    registered: float | None = None  # seconds since the epoch, when the client was made
    metadata_digest: str | None = None  # of what the server holds
    refusal: Refusal | None = None
    fault: Refusal | None = None  # the server registered something else than was asked for
    deletion_started: float | None = None
    brought: bool = False  # the owner brings the client's id and secret
    withdrawn: float | None = None  # seconds since the epoch: since when its server lets the owner have no client
    left_behind: tuple[str, ...] = ()  # ids of earlier clients of the owner's that their server could not delete
    uncertain: int = 0  # attempts that may have left a client behind
    drifted: tuple[str, ...] = ()  # metadata that were not as they should be at the server, until they are put right
    second: Second | None = None
    rotation_request: str | None = None  # digest of the value of the annotation that was served last
    rotation_refusal: Refusal | None = None  # why the last rotation was given up; its digest is the request's
    token_lifetime: float | None = None  # seconds: the longest that the server was seen to give a token of ours
    rotated: float | None = None  # seconds since the epoch: when the last rotation ended

    @property
    def is_foreign(self) -> bool:
        """Whether the client was made by other hands: used as it is, and nothing to be ended when it is not used."""
        return self.brought and not self.manageable


@dataclass(frozen=True)
class Entry:
    """One ledger entry, secrets included. Lives only as long as the step that needs it."""

    record: Record
    registration: Registration | None = field(default=None, repr=False)
    # What the open attempt is to make, where the server takes our id and secret: written before the server hears of it.
    chosen: Registration | None = field(default=None, repr=False)
    second: Registration | None = field(default=None, repr=False)  # what `record.second` tells of

    def to_secret(self, namespace: str, *, resource_version: str | None, labels: dict[str, str]) -> dict[str, Any]:
        """The Secret to create (without resourceVersion) or to replace (with it, as precondition)."""
        values = {**_values("", self.registration), **_values(SECOND_PREFIX, self.second)}
        if self.chosen is not None:
            values |= {CHOSEN_CLIENT_ID: self.chosen.client_id, "chosen_client_secret": self.chosen.client_secret}
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items() if value}
        metadata: dict[str, Any] = {
            "name": secret_name(self.record.owner_uid),
            "namespace": namespace,
            "labels": labels,
            "annotations": {ANNOTATION: self.record.model_dump_json(exclude_none=True, by_alias=True)},
        }
        if resource_version is not None:
            metadata["resourceVersion"] = resource_version
        return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata, "data": data}

    @classmethod
    def from_secret(cls, secret: dict[str, Any]) -> Entry:
        """The entry in a Secret read live. Raises pydantic.ValidationError when it is not one of ours."""
        record = Record.model_validate_json(secret["metadata"]["annotations"][ANNOTATION])
        data = {key: base64.b64decode(value).decode() for key, value in (secret.get("data") or {}).items()}
        chosen = None
        if data.get(CHOSEN_CLIENT_ID):
            chosen = Registration(data[CHOSEN_CLIENT_ID], data.get("chosen_client_secret", ""))
        registration, second = _registration("", data), _registration(SECOND_PREFIX, data)
        return cls(record=record, registration=registration, chosen=chosen, second=second)

    def with_record(self, **changes: Any) -> Entry:
        """The same entry with some of its record changed."""
        return replace(self, record=self.record.model_copy(update=changes))


def holds_too_much(second: Second, metadata: ClientMetadata) -> bool:
    """Whether the second client has what it may not have any more."""
    return bool(set(second.scopes) - set(metadata.scopes) or set(second.audiences) - set(metadata.audiences))


def has_second(record: Record) -> bool:
    """Whether there is a second client, or may be one."""
    return record.second is not None or (record.intent is not None and record.intent.operation == ROTATE)


def _values(prefix: str, registration: Registration | None) -> dict[str, str | None]:
    """A registration as keys of a Secret's data."""
    if registration is None:
        return {}
    return {
        f"{prefix}client_id": registration.client_id,
        f"{prefix}client_secret": registration.client_secret,
        f"{prefix}registration_client_uri": registration.registration_client_uri,
        f"{prefix}registration_access_token": registration.registration_access_token,
    }


def _registration(prefix: str, data: Mapping[str, str]) -> Registration | None:
    if not data.get(f"{prefix}client_id"):
        return None
    return Registration(
        client_id=data[f"{prefix}client_id"],
        client_secret=data.get(f"{prefix}client_secret", ""),
        registration_client_uri=data.get(f"{prefix}registration_client_uri"),
        registration_access_token=data.get(f"{prefix}registration_access_token"),
    )


def secret_name(uid: str) -> str:
    """Name of the ledger Secret of the object with this uid."""
    return f"{SECRET_PREFIX}{uid}"
