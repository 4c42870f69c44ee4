"""Whether a client that other hands made is to become the object's: the checks, in order. Pure.

    (allowed, Secret there) ── adopt ── (update)          lost: adopt the same one again, and never another

A client that was adopted stays, whatever becomes of the Secret and of `allowAdoption`.
"""

from __future__ import annotations

from typing import Final

from . import reasons
from .authorization_server import RegistrationKind
from .errors import AdministratorMustAct, UserMustEdit, Wait
from .observed import ObservedClient, Settings
from .plan_brought import POLL
from .registration.ledger import Record, State
from .steps import Blocked, Check, RenewAdopted, Step

_WITHOUT_CLIENT: Final = (State.IDLE, State.ORPHANED)


def is_due(observed: ObservedClient) -> bool:
    """Whether a client is to be adopted, for the first time or because it was lost."""
    record = observed.ledger
    return observed.service.adoption is not None and (record is None or record.state in _WITHOUT_CLIENT)


def is_lost(record: Record | None) -> bool:
    """Whether an adopted client is gone, or not known by our secret: the same one comes back, or none."""
    return record is not None and record.state is State.IDLE and record.adopted


def due(observed: ObservedClient) -> float | None:
    """Seconds until the Secret and the server are looked at again; None where nothing waits for that."""
    going = observed.service.meta.deletion_timestamp is not None
    return POLL if is_due(observed) and not going and not observed.service.at_rest else None


def obstacle(observed: ObservedClient, settings: Settings) -> Blocked | None:
    """Why nothing can be adopted now; None: go ahead, or nothing is to be adopted."""
    for check in (_not_allowed, _not_brought):
        if (found := check(observed, settings, 0)) is not None:
            return found
    return None


def _not_allowed(observed: ObservedClient, settings: Settings, now: float) -> Blocked | None:
    server, adoption, record = observed.server, observed.service.adoption, observed.ledger
    if server is None or adoption is None or not is_due(observed):
        return None
    if server.registration is RegistrationKind.NONE:
        text = (
            f"AuthorizationServer {server.reference} registers nobody, so that its clients are used as they are: bring "
            "this one by spec.client.credentialsSecret.create false, without spec.client.adopt"
        )
        return Blocked(reasons.CLIENT_REGISTERED, UserMustEdit(reasons.CANNOT_REGISTER, text))
    if server.allow_adoption or is_lost(record):
        return None
    text = (
        f"AuthorizationServer {server.reference} does not allow adoption, so that client {adoption.client_id} cannot "
        "become this service's; ask its owner to set spec.allowAdoption"
    )
    return Blocked(reasons.CLIENT_REGISTERED, AdministratorMustAct(reasons.ADOPTION_NOT_ALLOWED, text))


def _not_brought(observed: ObservedClient, settings: Settings, now: float) -> Blocked | None:
    brought = observed.brought
    if not is_due(observed) or (brought is not None and brought.fault is None):
        return None
    text = brought.fault if brought is not None and brought.fault is not None else "not read yet"
    return Blocked(reasons.CREDENTIALS_READY, Wait(reasons.CREDENTIALS_NOT_BROUGHT, text, retry_after=POLL))


def _secret_changed(observed: ObservedClient, settings: Settings, now: float) -> Step | None:
    """Told aside, as nothing is wrong with the service: the secret in use is good, as far as anybody knows."""
    record, brought, ledger = observed.ledger, observed.brought, observed.ledger_digests
    if (
        observed.service.adoption is None
        or record is None
        or not record.adopted
        or record.state is not State.REGISTERED
    ):
        return None
    if brought is None or brought.fault is not None or brought.digests["client_id"] != ledger.get("client_id"):
        return None
    if brought.digests["client_secret"] == ledger.get("client_secret") or observed.unreachable is not None:
        return None
    return RenewAdopted(reasons.CLIENT_CHECK, "the Secret brings another secret of the adopted client's")


CHECKS: Final[tuple[Check, ...]] = (_not_allowed, _not_brought)
AFTER_PROOF: Final[tuple[Check, ...]] = (_secret_changed,)
