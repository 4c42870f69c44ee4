"""What differs between a child as we want it and as it is. Pure.

Two questions, because server-side apply answers only the first:

- `differs`: is something that we own missing or changed? Applying again mends it.
- `intruders`: did somebody else put a container, a volume, a variable, a port or a selector into a list or map of ours
  that is meant to be closed? Apply leaves other managers' items in place, so a JSON patch removes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

# How list items are told apart, by the name of the list (the API's own merge keys).
_MERGE_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "ports": ("containerPort", "port"),
    "ownerReferences": ("uid",),
    "imagePullSecrets": ("name",),
}
_COMPOSITE_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
_QUANTITY_FIELDS: Final = frozenset({"requests", "limits"})
_SUFFIXES: Final = {
    "": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "k": Decimal(10**3),
    "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}  # fmt: skip
_QUANTITY: Final = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([numkMGTPE]?i?)")

# Paths in a Deployment and a Service that are ours alone: whatever stands there beside what we want is removed.
_CLOSED_DEPLOYMENT_FIELDS: Final = ("paused",)
_CLOSED_POD_FIELDS: Final = (
    "initContainers", "hostNetwork", "hostPID", "hostIPC", "hostAliases", "shareProcessNamespace", "nodeName",
    "hostUsers", "subdomain", "hostname", "dnsConfig", "runtimeClassName",
)  # fmt: skip
_CLOSED_CONTAINER_FIELDS: Final = (
    "command",
    "args",
    "envFrom",
    "lifecycle",
    "volumeDevices",
    "workingDir",
    "stdin",
    "startupProbe",
)
MENTIONED: Final = 10  # paths of differences that are told; the rest goes with them


def differs(desired: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    """Whether applying `desired` would change `live`."""
    return bool(differences(desired, live))


def differences(desired: Mapping[str, Any], live: Mapping[str, Any]) -> list[str]:
    """Paths of what applying `desired` would change in `live`: the desired-hash, and owned fields not as wanted."""
    return list(_uncovered(desired, live, "", ""))[:MENTIONED]


def intruders(desired: Mapping[str, Any], live: Mapping[str, Any]) -> list[str]:
    """JSON pointers of what stands in our closed lists and maps of `live` without being wanted, last index first.

    In that order each can be removed by a JSON patch without moving the next.
    """
    match desired["kind"]:
        case "Deployment":
            return sorted(_deployment_intruders(desired, live), key=_pointer_order, reverse=True)
        case "Service":
            return sorted(_service_intruders(desired, live), key=_pointer_order, reverse=True)
        case "PodDisruptionBudget" | "HorizontalPodAutoscaler" | "NetworkPolicy":
            return sorted(_closed(desired["spec"], live["spec"], "/spec"), key=_pointer_order, reverse=True)
    return []


def _deployment_intruders(desired: Mapping[str, Any], live: Mapping[str, Any]) -> list[str]:
    path = "/spec/template/spec"
    found = _additions(desired["spec"], live["spec"], _CLOSED_DEPLOYMENT_FIELDS, "/spec")
    want, have = desired["spec"]["template"]["spec"], live["spec"]["template"]["spec"]
    found += _additions(want, have, _CLOSED_POD_FIELDS, path)
    found += _closed(want["securityContext"], have.get("securityContext"), f"{path}/securityContext")
    # What spec.workload says of these is all that holds; where it says nothing, they are whoever's who sets them.
    for name in ("nodeSelector", "affinity"):
        if name in want:
            found += _closed(want[name], have.get(name), f"{path}/{name}")
    if "topologySpreadConstraints" in want:
        found += _strangers(want, have, "topologySpreadConstraints", path)
    found += _strangers(want, have, "containers", path) + _strangers(want, have, "volumes", path)
    for ours, theirs, here in _pairs(want, have, "volumes", path):
        for source in ("configMap", "secret"):
            if source in ours:
                found += _closed(ours[source], theirs.get(source), f"{here}/{source}")
    for ours, theirs, here in _pairs(want, have, "containers", path):
        found += _additions(ours, theirs, _CLOSED_CONTAINER_FIELDS, here)
        found += _closed(ours["securityContext"], theirs.get("securityContext"), f"{here}/securityContext")
        for items in ("env", "volumeMounts", "ports"):
            found += _strangers(ours, theirs, items, here)
        for mine, other, there in _pairs(ours, theirs, "ports", here):
            found += _closed(mine, other, there)
    return found


def _additions(want: Mapping[str, Any], have: Mapping[str, Any], fields: Sequence[str], path: str) -> list[str]:
    """Fields of this list that somebody set and we do not."""
    return [f"{path}/{name}" for name in fields if have.get(name) and name not in want]


def _closed(want: Mapping[str, Any], have: Mapping[str, Any] | None, path: str) -> list[str]:
    """Whatever stands in `have`, at any depth of its maps, without being wanted."""
    found = []
    for key, value in (have or {}).items():
        if key not in want:
            found.append(f"{path}/{_escaped(key)}")
        elif isinstance(value, Mapping) and isinstance(want[key], Mapping):
            found += _closed(want[key], value, f"{path}/{_escaped(key)}")
    return found


def _pairs(
    want: Mapping[str, Any], have: Mapping[str, Any], items: str, path: str
) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any], str]]:
    """Each wanted item with the one that stands in its place, and where that is."""
    wanted = {_identity(item, items): item for item in want.get(items) or ()}
    for index, item in enumerate(have.get(items) or ()):
        ours = wanted.get(_identity(item, items))
        if ours is not None:
            yield ours, item, f"{path}/{items}/{index}"


def _service_intruders(desired: Mapping[str, Any], live: Mapping[str, Any]) -> list[str]:
    want, have = desired["spec"], live["spec"]
    found = _strangers(want, have, "ports", "/spec")
    extra = (have.get("selector") or {}).keys() - want["selector"].keys()
    found += [f"/spec/selector/{_escaped(key)}" for key in extra]
    if have.get("externalIPs"):
        found.append("/spec/externalIPs")
    return found


def _strangers(want: Mapping[str, Any], have: Mapping[str, Any], items: str, path: str) -> list[str]:
    known = {_identity(item, items) for item in want.get(items) or ()}
    return [
        f"{path}/{items}/{index}"
        for index, item in enumerate(have.get(items) or ())
        if _identity(item, items) not in known
    ]


def _pointer_order(pointer: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in pointer.split("/")]


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")  # RFC 6901 section 3


def _identity(item: Mapping[str, Any], items: str) -> object:
    if items in _COMPOSITE_KEYS:
        return tuple(item.get(key) for key in _COMPOSITE_KEYS[items])
    return next((item[key] for key in _MERGE_KEYS[items] if key in item), None)


def _uncovered(want: object, have: object, field: str, path: str) -> Iterator[str]:
    """Paths of the leaves of `want` that do not stand in `have`."""
    if isinstance(want, Mapping):
        if not isinstance(have, Mapping):
            if want or have is not None:
                yield path
        elif field in _QUANTITY_FIELDS:
            yield from (f"{path}.{key}" for key, value in want.items() if _quantity(have.get(key)) != _quantity(value))
        else:
            for key, value in want.items():
                yield from _uncovered(value, have.get(key), key, f"{path}.{key}" if path else key)
    elif isinstance(want, Sequence) and not isinstance(want, str):
        yield from _uncovered_items(want, have, field, path)
    elif want != have and not (want is False and have is None):  # the API server drops some false booleans
        yield path


def _uncovered_items(want: Sequence[Any], have: object, field: str, path: str) -> Iterator[str]:
    items: Sequence[Any] = have if isinstance(have, Sequence) else ()
    if field not in _MERGE_KEYS and field not in _COMPOSITE_KEYS:
        if list(want) != list(items):
            yield path
        return
    by_identity = {_identity(item, field): item for item in items}
    for item in want:
        identity = _identity(item, field)
        yield from _uncovered(item, by_identity.get(identity), "", f"{path}[{identity}]")


def _quantity(value: object) -> Decimal | str:
    """A Kubernetes quantity as a number, so that `0.5` and `500m` are equal; what is no quantity, as it stands."""
    match = _QUANTITY.fullmatch(str(value))
    if match is None or match[2] not in _SUFFIXES:
        return str(value)
    return Decimal(match[1]) * _SUFFIXES[match[2]]
