"""What differs between a child as we want it and as it is. Pure.

Two questions, because server-side apply answers only the first:

- `differs`: is something that we own missing or changed? Applying again mends it.
- `intruders`: did somebody else put a container, a volume, a variable, a port or a selector into a list or map of ours
  that is meant to be closed? Apply leaves other managers' items in place, so a JSON patch removes them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from .resource import ANNOTATION_DESIRED_HASH

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
_QUANTITY_FIELDS: Final = frozenset({"requests", "limits"})
_SUFFIXES: Final = {
    "": Decimal(1), "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "k": Decimal(10**3),
    "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}  # fmt: skip
_QUANTITY: Final = re.compile(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([numkMGTPE]?i?)")

# Paths in a Deployment and a Service that are ours alone: whatever stands there beside what we want is removed.
_CLOSED_POD_FIELDS: Final = (
    "initContainers", "hostNetwork", "hostPID", "hostIPC", "hostAliases", "shareProcessNamespace", "nodeName",
    "hostUsers", "subdomain", "hostname", "dnsConfig", "runtimeClassName",
)  # fmt: skip
_CLOSED_CONTAINER_FIELDS: Final = ("command", "args", "envFrom", "lifecycle", "volumeDevices", "workingDir", "stdin")


def differs(desired: Mapping[str, Any], live: Mapping[str, Any]) -> bool:
    """Whether applying `desired` would change `live`: another desired-hash, or an owned field that is not as wanted."""
    wanted = desired["metadata"]["annotations"].get(ANNOTATION_DESIRED_HASH)
    if (live["metadata"].get("annotations") or {}).get(ANNOTATION_DESIRED_HASH) != wanted:
        return True
    return not _covers(desired, live, "")


def intruders(desired: Mapping[str, Any], live: Mapping[str, Any]) -> list[str]:
    """JSON pointers of what stands in our closed lists and maps of `live` without being wanted, last index first.

    In that order each can be removed by a JSON patch without moving the next.
    """
    match desired["kind"]:
        case "Deployment":
            return sorted(_deployment_intruders(desired, live), key=_pointer_order, reverse=True)
        case "Service":
            return sorted(_service_intruders(desired, live), key=_pointer_order, reverse=True)
    return []


def _deployment_intruders(desired: Mapping[str, Any], live: Mapping[str, Any]) -> list[str]:
    path = "/spec/template/spec"
    want, have = desired["spec"]["template"]["spec"], live["spec"]["template"]["spec"]
    found = [f"{path}/{name}" for name in _CLOSED_POD_FIELDS if have.get(name) and name not in want]
    found += _strangers(want, have, "containers", path) + _strangers(want, have, "volumes", path)
    wanted = {container["name"]: container for container in want["containers"]}
    for index, container in enumerate(have.get("containers") or ()):
        ours = wanted.get(container["name"])
        if ours is None:
            continue
        here = f"{path}/containers/{index}"
        found += [f"{here}/{name}" for name in _CLOSED_CONTAINER_FIELDS if container.get(name) and name not in ours]
        for items in ("env", "volumeMounts", "ports"):
            found += _strangers(ours, container, items, here)
    return found


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
    return next((item[key] for key in _MERGE_KEYS[items] if key in item), None)


def _covers(want: object, have: object, field: str) -> bool:
    """Whether every leaf of `want` stands in `have`."""
    if isinstance(want, Mapping):
        if not isinstance(have, Mapping):
            return not want and have is None
        if field in _QUANTITY_FIELDS:
            return all(key in have and _quantity(have[key]) == _quantity(value) for key, value in want.items())
        return all(_covers(value, have.get(key), key) for key, value in want.items())
    if isinstance(want, Sequence) and not isinstance(want, str):
        return _covers_list(want, have, field)
    if want is False and have is None:  # the API server drops some false booleans
        return True
    return bool(want == have)


def _covers_list(want: Sequence[Any], have: object, field: str) -> bool:
    if not isinstance(have, Sequence):
        return not want
    if field not in _MERGE_KEYS:
        return list(want) == list(have)
    by_identity = {_identity(item, field): item for item in have}
    return all(_covers(item, by_identity.get(_identity(item, field)), "") for item in want)


def _quantity(value: object) -> Decimal | str:
    """A Kubernetes quantity as a number, so that `0.5` and `500m` are equal; what is no quantity, as it stands."""
    match = _QUANTITY.fullmatch(str(value))
    if match is None or match[2] not in _SUFFIXES:
        return str(value)
    return Decimal(match[1]) * _SUFFIXES[match[2]]
