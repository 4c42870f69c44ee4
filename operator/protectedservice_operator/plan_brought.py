"""Who chooses a client's id and secret, and what to do where that cannot be done: the checks, in order. Pure."""

from __future__ import annotations

from typing import Final

from . import reasons
from .authorization_server import RegistrationKind
from .errors import UserMustEdit, Wait
from .observed import ObservedClient, Settings
from .protected_service import ProtectedService
from .registration.ledger import State
from .steps import Blocked, ClientCheck, StartDeletion, Step

POLL: Final = 60.0  # seconds between two looks at a Secret that no watch shows
_CHANGEABLE: Final = (State.REGISTERED, State.UPDATING, State.IDLE)


def _cannot_choose(observed: ObservedClient, settings: Settings, now: float) -> Blocked | None:
    server, service = observed.server, observed.service
    if server is None:
        return None
    if service.brings_credentials and server.registration is RegistrationKind.DYNAMIC:
        text = (
            f"AuthorizationServer {server.reference} chooses its clients' ids and secrets itself, so that none can be "
            "brought (spec.client.credentialsSecret.create false); leave create out, or use a server that takes them"
        )
        return Blocked(reasons.CLIENT_REGISTERED, UserMustEdit(reasons.CANNOT_CHOOSE_CREDENTIALS, text))
    if not service.brings_credentials and server.registration is RegistrationKind.NONE:
        if not isinstance(service, ProtectedService):
            text = f"AuthorizationServer {server.reference} registers nobody, so that no client can be made for it"
            return Blocked(reasons.CLIENT_REGISTERED, UserMustEdit(reasons.CANNOT_REGISTER, text))
        text = (
            f"AuthorizationServer {server.reference} registers nobody; have a client made there, set "
            "spec.client.credentialsSecret.create to false and bring its id and secret in that Secret"
        )
        return Blocked(reasons.CLIENT_REGISTERED, UserMustEdit(reasons.CANNOT_REGISTER, text))
    return None


def _not_brought(observed: ObservedClient, settings: Settings, now: float) -> Blocked | None:
    if not observed.service.brings_credentials or (observed.brought is not None and observed.brought.fault is None):
        return None
    text = observed.brought.fault if observed.brought is not None and observed.brought.fault else "not read yet"
    return Blocked(reasons.CREDENTIALS_READY, Wait(reasons.CREDENTIALS_NOT_BROUGHT, text, retry_after=POLL))


def _taken(observed: ObservedClient, settings: Settings, now: float) -> Blocked | None:
    brought, service = observed.brought, observed.service
    if not service.brings_credentials or brought is None or not brought.taken or not _registers(observed):
        return None
    text = (
        f"client {brought.client_id}, which Secret {service.meta.namespace}/{service.credentials_secret} brings, is "
        "there already and not this service's; bring another client id"
    )
    return Blocked(reasons.CLIENT_REGISTERED, UserMustEdit(reasons.CLIENT_ID_TAKEN, text))


def _id_changed(observed: ObservedClient, settings: Settings, now: float) -> Step | Blocked | None:
    """Another client is brought: the old one goes first, so that none is ever forgotten."""
    record, brought = observed.ledger, observed.brought
    if not is_brought(observed) or record is None or record.client_id is None or brought is None:
        return None
    if record.state not in _CHANGEABLE or brought.client_id == record.client_id or obstacle(observed, settings):
        return None
    if observed.retains_client and not record.is_foreign:
        text = (
            f"Secret {observed.service.credentials_secret} brings client {brought.client_id} in the place of "
            f"{record.client_id}, which is to stay (spec.client.deletionPolicy Retain); bring the old id again, or set "
            "deletionPolicy to Delete"
        )
        return Blocked(reasons.CLIENT_REGISTERED, UserMustEdit(reasons.CLIENT_RETAINED, text))
    return StartDeletion(reasons.CLIENT_REGISTERED, "another client is brought")


def obstacle(observed: ObservedClient, settings: Settings) -> Blocked | None:
    """Why no client can be registered with what is brought, or without; None: go ahead."""
    for check in (_cannot_choose, _not_brought, _taken):
        if (found := check(observed, settings, 0)) is not None:
            return found
    return None


def is_brought(observed: ObservedClient) -> bool:
    """Whether usable credentials were brought."""
    brought = observed.brought
    return observed.service.brings_credentials and brought is not None and brought.fault is None


def due(observed: ObservedClient) -> float | None:
    """Seconds until the Secret is looked at again; None where nothing waits for that.

    No watch shows it; or the server refused what it brought, and it may have been corrected since.
    """
    refused = observed.ledger is not None and observed.ledger.refusal is not None
    return POLL if observed.service.brings_credentials and (observed.projection is None or refused) else None


def secret_changed(observed: ObservedClient) -> bool:
    """Whether the same client is brought with another secret than the server was told."""
    brought, ledger = observed.brought, observed.ledger_digests
    if brought is None or not is_brought(observed) or brought.digests["client_id"] != ledger.get("client_id"):
        return False
    return brought.digests["client_secret"] != ledger.get("client_secret")


def _registers(observed: ObservedClient) -> bool:
    """Whether a registration would overwrite what has the id."""
    return observed.server is not None and observed.server.registration is not RegistrationKind.NONE


CHECKS: Final[tuple[ClientCheck, ...]] = (_cannot_choose, _not_brought, _taken, _id_changed)
