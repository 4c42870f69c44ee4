"""What stands behind spec.upstream.service, as far as keeping everybody else from it goes. Pure.

A NetworkPolicy takes from the pods that it selects whatever it does not admit. So ours admits the resource server's
pods to the Service's target ports, and everybody to all others, as before. Where another policy governs the pods
already, what it closed must stay closed: policies add up. Then ours says nothing of the other ports.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from . import reasons
from .tenancy import matches

PROTOCOLS: Final = ("TCP", "UDP", "SCTP")
HIGHEST_PORT: Final = 65535

Port = tuple[str, int]  # protocol, number
Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """A port of a ready pod behind the Service, at its own address."""

    pod: str
    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class Fault:
    """Why the upstream cannot be isolated."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Isolated:
    """What a policy is made of, and who is tried."""

    selector: Mapping[str, str]
    """Of the pods."""
    ports: tuple[Port, ...]
    """Target ports of the Service: for the resource server alone."""
    governed: bool
    """Whether another policy says what may reach the pods' other ports."""
    targets: tuple[Target, ...]


class Finding(enum.Enum):
    """What a direct connection showed."""

    REFUSED = "refused"  # it was refused, where the resource server gets through
    ACCEPTED = "accepted"  # whatever the policy says
    NOTHING = "nothing"  # it could not be tried, or the resource server does not get through either


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of trying, while the policy of this hash was in force."""

    policy: str
    finding: Finding
    message: str


def behind(
    service: Body | None,
    place: str,
    port: int,
    pods: Sequence[Body],
    own_labels: Mapping[str, str],
    others: Iterable[Body],
) -> Isolated | Fault:
    """What there is to isolate behind a Service.

    Args:
        place: namespace/name of the Service, for people.
        port: the Service's port that the resource server calls.
        pods: those that the Service selects.
        own_labels: of the resource server's pods.
        others: NetworkPolicies of the namespace that are not the operator's.
    """
    if service is None:
        text = f"Service {place} does not exist; create it, or correct spec.upstream.service.name"
        return Fault(reasons.UPSTREAM_NOT_FOUND, text)
    spec = service.get("spec") or {}
    selector: Mapping[str, str] = spec.get("selector") or {}
    if not selector or spec.get("type") == "ExternalName":
        text = f"Service {place} selects no pods, so that no NetworkPolicy can mean them; write one by hand"
        return Fault(reasons.UPSTREAM_WITHOUT_SELECTOR, text)
    if selector.items() <= own_labels.items():
        text = f"Service {place} selects the resource server's own pods; take its labels out of spec.workload.podLabels"
        return Fault(reasons.UPSTREAM_SELECTS_SERVER, text)
    if any(pod["spec"].get("hostNetwork") for pod in pods):
        text = f"pods of Service {place} have the node's network, which no NetworkPolicy keeps anybody from"
        return Fault(reasons.UPSTREAM_ON_HOST_NETWORK, text)
    listed = spec.get("ports") or ()
    called = next((one for one in listed if one["port"] == port and one.get("protocol", "TCP") == "TCP"), None)
    if called is None:
        text = f"Service {place} has no TCP port {port}; correct spec.upstream.service.port"
        return Fault(reasons.UPSTREAM_PORT_UNKNOWN, text)
    ports = {(one.get("protocol", "TCP"), number) for one in listed for number in _numbers(one, pods)}
    if not any(True for _ in _numbers(called, pods)):
        text = f"no pod of Service {place} has a port {called['targetPort']} now; looked for again every few minutes"
        return Fault(reasons.UPSTREAM_PORT_UNKNOWN, text)
    labels = [pod["metadata"].get("labels") or {} for pod in pods] or [selector]
    governed = any(_governs(policy, one) for policy in others for one in labels)
    targets = tuple(sorted(_targets(called, pods), key=lambda target: target.pod))
    return Isolated(dict(selector), tuple(sorted(ports)), governed, targets)


def ranges(closed: Iterable[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of ports between those that are closed."""
    first = 1
    for port in sorted(closed):
        if first < port:
            yield first, port - 1
        first = port + 1
    if first <= HIGHEST_PORT:
        yield first, HIGHEST_PORT


def _numbers(port: Body, pods: Iterable[Body]) -> Iterator[int]:
    """Numbers of a Service's target port: pods may differ in what they call by one name."""
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        yield target
        return
    for pod in pods:
        yield from _named(port, pod)


def _named(port: Body, pod: Body) -> Iterator[int]:
    for container in pod["spec"].get("containers") or ():
        for one in container.get("ports") or ():
            if (one.get("name"), one.get("protocol", "TCP")) == (port["targetPort"], port.get("protocol", "TCP")):
                yield int(one["containerPort"])


def _targets(port: Body, pods: Iterable[Body]) -> Iterator[Target]:
    for pod in pods:
        now = pod.get("status") or {}
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in now.get("conditions") or ())
        if ready and now.get("podIP") and not pod["metadata"].get("deletionTimestamp"):
            for number in _numbers(port, (pod,)):
                yield Target(pod["metadata"]["name"], now["podIP"], number)


def _governs(policy: Body, labels: Mapping[str, str]) -> bool:
    """Whether a NetworkPolicy says what may reach pods of these labels."""
    spec = policy.get("spec") or {}
    return "Ingress" in (spec.get("policyTypes") or ("Ingress",)) and matches(spec.get("podSelector") or {}, labels)
