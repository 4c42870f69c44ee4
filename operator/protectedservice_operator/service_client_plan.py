"""What to do next for one ServiceClient: observed + settings + now -> the first thing that is not yet true. Pure.

    resolve ── ask the services ── finalizer ── register ── (update) ── project ── (rotate, look at the client)

A service that does not consent keeps nobody from calling the others: the client is registered for those that do. One
that withdraws its consent loses nobody else anything: its scopes are taken off the client; with the last of them goes
the client, because one without scopes might be given a server's defaults.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from . import plan, plan_brought, plan_deletion, plan_rotation, plan_withdrawal, reasons
from .errors import AdministratorMustAct, UserMustEdit, Wait
from .observed import Settings, projects
from .registration.ledger import State
from .resource import CLIENT_SECRET
from .service_client import TOKEN_URL
from .service_client_observed import ObservedCaller
from .steps import Blocked, Project, Step


def next_step(
    observed: ObservedCaller, settings: Settings, now: float, settled: Iterable[str] = ()
) -> Step | Blocked | None:
    """The first thing that is not as it should be, leaving out the phases that were settled in this pass.

    Of a suspended one only its deletion, and what its client is to lose.
    """
    if observed.service.meta.deletion_timestamp is not None:
        return plan.first(plan_deletion.CHECKS, observed, settings, now, settled)
    return plan.first(_CHECKS_AT_REST if observed.service.at_rest else _CHECKS, observed, settings, now, settled)


def _service_refuses(observed: ObservedCaller, settings: Settings, now: float) -> Blocked | None:
    refusals = observed.refusals
    if not refusals or observed.reference is None:
        return None
    # Told in the name of what only a person can mend, if there is any such.
    worst = next((refusal for refusal in refusals if not isinstance(refusal, Wait)), refusals[0])
    text = "; ".join(refusal.message for refusal in refusals)
    if not observed.barred:
        text += "; the client is registered for the rest"
    if isinstance(worst, Wait):
        return Blocked(reasons.SERVICES_ALLOWED, Wait(worst.reason, text, retry_after=worst.retry_after))
    kind = UserMustEdit if all(isinstance(refusal, UserMustEdit) for refusal in refusals) else AdministratorMustAct
    return Blocked(reasons.SERVICES_ALLOWED, kind(worst.reason, text))


def _client_without_consent(observed: ObservedCaller, settings: Settings, now: float) -> Step | Blocked | None:
    """No scope is left that the client may have, or its end has begun: it is ended, though its object lives."""
    record = observed.ledger
    if record is None or record.state in (State.ORPHANED, State.RETAINED):
        return None
    if record.state is not State.DELETING and (not observed.barred or observed.reference is None):
        return None
    return plan.first(plan_deletion.CLIENT_CHECKS, observed, settings, now)


def _client_holds_too_much(observed: ObservedCaller, settings: Settings, now: float) -> Step | Blocked | None:
    interrupted = observed.ledger is not None and observed.ledger.state is State.UPDATING
    if not (observed.withdrawn or interrupted):
        return None
    return plan.client_outdated(observed, settings, now)


def _projection_differs(observed: ObservedCaller, settings: Settings, now: float) -> Step | Blocked | None:
    if not observed.has_client or TOKEN_URL not in observed.facts or projects(observed, observed.keys):
        return None
    if CLIENT_SECRET not in observed.ledger_digests:
        text = "the authorization server gave the client no secret; see ClientRegistered"
        return Blocked(reasons.CREDENTIALS_READY, UserMustEdit(reasons.INVALID_CLIENT_METADATA, text))
    return Project(reasons.CREDENTIALS_READY, "the credentials Secret differs from the ledger", observed.keys)


_CHECKS: Final = (
    *plan_withdrawal.CHECKS,
    plan.server_unresolved,
    _service_refuses,
    _client_without_consent,
    *plan_brought.CHECKS,
    *plan.CLIENT_CHECKS,
    plan.scope_not_allowed,
    *plan_rotation.BEFORE_PROJECTION,
    _projection_differs,
    *plan_rotation.AFTER_PROOF,
)
_CHECKS_AT_REST: Final = (
    *plan_withdrawal.CHECKS,
    _client_without_consent,
    _client_holds_too_much,
    *plan_rotation.AT_REST,
)
