"""What to do for an upstream that nobody else is to reach: a NetworkPolicy, then a trial. Pure.

No other condition waits for it: a service is ready without, and one that was ready stays so when its isolation fails.
The policy needs neither a client nor an authorization server. What cannot be said now (the Service is gone, say) leaves
in place what was applied before: closed stays closed.
"""

from __future__ import annotations

from typing import Final

from . import reasons
from .conditions import find_condition
from .drift import differences, intruders
from .isolation import Isolated
from .observed import Observed, Settings, network_policy_applied, wanted_network_policy
from .resource import ANNOTATION_DESIRED_HASH, DEPLOYMENT, NETWORK_POLICY
from .steps import Apply, Check, Evict, Prune, Step, Try

PHASE: Final = reasons.UPSTREAM_ISOLATED


def _policy_unwanted(observed: Observed, settings: Settings, now: float) -> Step | None:
    name = observed.service.child_name
    live = observed.children.get((NETWORK_POLICY, name))
    if live is None or observed.service.isolated_upstream is not None:
        return None
    why = "spec.upstream.isolate is not true any more"
    return Prune(PHASE, why, NETWORK_POLICY, name, live["metadata"]["uid"])


def _policy_differs(observed: Observed, settings: Settings, now: float) -> Step | None:
    wanted, name = wanted_network_policy(observed), observed.service.child_name
    if wanted is None:
        return None
    live = observed.children.get((NETWORK_POLICY, name))
    if live is None:
        if (DEPLOYMENT, name) not in observed.children:
            return None  # nobody would be left who reaches the upstream
        return Apply(PHASE, f"NetworkPolicy {name} is missing", NETWORK_POLICY, wanted, _was_applied(observed))
    if changed := tuple(differences(wanted, live)):
        have = (live["metadata"].get("annotations") or {}).get(ANNOTATION_DESIRED_HASH)
        repair = have == wanted["metadata"]["annotations"][ANNOTATION_DESIRED_HASH]
        why = f"NetworkPolicy {name} is not as wanted at {', '.join(changed)}"
        return Apply(PHASE, why, NETWORK_POLICY, wanted, repair, changed)
    if strangers := intruders(wanted, live):
        why = f"NetworkPolicy {name} holds what is not ours: {', '.join(strangers)}"
        return Evict(PHASE, why, NETWORK_POLICY, name, tuple(strangers))
    return None


def _trial_missing(observed: Observed, settings: Settings, now: float) -> Step | None:
    wanted = wanted_network_policy(observed)
    if wanted is None or not settings.verification or not observed.trial_due or not network_policy_applied(observed):
        return None
    if not isinstance(observed.upstream, Isolated) or not observed.upstream.targets or not observed.pods:
        return None  # nobody to call, or nobody to compare with
    policy = wanted["metadata"]["annotations"][ANNOTATION_DESIRED_HASH]
    return Try(PHASE, "nobody has tried whether the upstream is isolated", policy)


CHECKS: Final[tuple[Check, ...]] = (_policy_unwanted, _policy_differs, _trial_missing)


def _was_applied(observed: Observed) -> bool:
    """Whether status says that this generation's policy stood, so that applying it again is a repair."""
    told = find_condition(observed.service.status.get("conditions") or (), PHASE)
    if told is None or told.get("observedGeneration") != observed.service.meta.generation:
        return False
    return bool(told["status"] != "False" or told["reason"] == reasons.NOT_ENFORCED)
