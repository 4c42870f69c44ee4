"""Server-side apply as the API server does it, at leaf level: who owns which field, and what an apply changes.

A path is a tuple of steps: a field's name, or `(key, value), ...` for an item of a list that is a map by key. Lists
without a known key, and maps declared atomic, are one leaf.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

Object = dict[str, Any]
Step = str | tuple[tuple[str, Any], ...]
Path = tuple[Step, ...]

# As `x-kubernetes-list-map-keys` says in the API server's OpenAPI; `ports` depends on what has the ports.
LIST_KEYS: dict[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "env": ("name",),
    "imagePullSecrets": ("name",),
    "volumeMounts": ("mountPath",),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
KEY_DEFAULTS = {"protocol": "TCP"}
ATOMIC_MAPS = {"selector", "nodeSelector", "labelSelector"}
SETS = {"finalizers", "scopes"}
# Not subject to ownership: identity, and what only the server writes.
SYSTEM_METADATA = {
    "name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp",
    "deletionGracePeriodSeconds", "managedFields", "generateName",
}  # fmt: skip


def keys_of(field: str, items: list[Any]) -> tuple[str, ...] | None:
    """The key fields of a list that is a map, or None for an atomic list."""
    if not items or not all(isinstance(item, dict) for item in items):
        return None
    if field == "ports":
        return ("containerPort", "protocol") if "containerPort" in items[0] else ("port", "protocol")
    return LIST_KEYS.get(field)


def key_of(item: Object, keys: Iterable[str]) -> tuple[tuple[str, Any], ...]:
    return tuple((key, item.get(key, KEY_DEFAULTS.get(key))) for key in keys)


def leaves(obj: Object) -> dict[Path, Any]:
    """Every leaf that a manager can own, with its value."""
    found: dict[Path, Any] = {}
    for field, value in obj.items():
        if field in ("apiVersion", "kind"):
            continue
        if field == "metadata":
            for name, inner in value.items():
                if name not in SYSTEM_METADATA:
                    _collect(inner, ("metadata", name), found)
        else:
            _collect(value, (field,), found)
    return found


def _collect(value: Any, path: Path, found: dict[Path, Any]) -> None:
    field = path[-1]
    if isinstance(value, dict) and value and field not in ATOMIC_MAPS:
        for name, inner in value.items():
            _collect(inner, (*path, name), found)
    elif isinstance(value, list) and isinstance(field, str) and (keys := keys_of(field, value)):
        for item in value:
            for name, inner in item.items():
                _collect(inner, (*path, key_of(item, keys), name), found)
    elif isinstance(value, list) and field in SETS:
        for member in value:
            found[*path, (("=", member),)] = member
    else:
        found[path] = value


def merge(live: Object, body: Object) -> Object:
    """`body` laid over `live`: maps and keyed lists merge, everything else is replaced."""
    merged = copy.deepcopy(live)
    for field, value in body.items():
        if field == "metadata":
            own = {name: inner for name, inner in value.items() if name not in SYSTEM_METADATA}
            merged["metadata"] = _merged(merged.get("metadata", {}), own, "metadata")
        else:
            merged[field] = _merged(merged.get(field), value, field)
    return merged


def _merged(live: Any, wanted: Any, field: str) -> Any:
    if isinstance(wanted, dict) and isinstance(live, dict) and field not in ATOMIC_MAPS:
        result = dict(live)
        for name, value in wanted.items():
            result[name] = _merged(live.get(name), value, name)
        return result
    if isinstance(wanted, list) and isinstance(live, list):
        keys = keys_of(field, wanted)
        if keys:
            items = [dict(item) for item in live]
            for want in wanted:
                place = next((i for i, item in enumerate(items) if key_of(item, keys) == key_of(want, keys)), None)
                if place is None:
                    items.append(copy.deepcopy(want))
                else:
                    items[place] = _merged(items[place], want, "")
            return items
        if field in SETS:
            return [*live, *(member for member in wanted if member not in live)]
    return copy.deepcopy(wanted)


def remove(container: Any, path: Path) -> None:
    """Take out one leaf, and the maps and lists that it leaves empty."""
    step, rest = path[0], path[1:]
    if isinstance(step, str):
        if not isinstance(container, dict) or step not in container:
            return
        if not rest:
            del container[step]
            return
        remove(container[step], rest)
        if container[step] in ({}, []):
            del container[step]
        return
    if not isinstance(container, list):
        return
    if step[0][0] == "=":
        if step[0][1] in container:
            container.remove(step[0][1])
        return
    keys = [key for key, _ in step]
    for item in list(container):
        # Its key stays as long as the item does.
        if key_of(item, keys) == step and (len(rest) > 1 or rest[0] not in keys):
            remove(item, rest)


def drop_unowned_items(obj: Object, gone: Iterable[Path], owned: set[Path]) -> None:
    """Remove list items that nobody owns anything of any more, with what the server had defaulted in them."""
    for path in gone:
        for depth, step in enumerate(path):
            if isinstance(step, tuple) and step[0][0] != "=":
                item = path[: depth + 1]
                if not any(other[: depth + 1] == item for other in owned):
                    _drop_item(obj, item)
                    break


def _drop_item(container: Any, path: Path) -> None:
    step, rest = path[0], path[1:]
    if isinstance(step, str):
        if isinstance(container, dict) and step in container:
            _drop_item(container[step], rest)
            if container[step] == []:
                del container[step]
        return
    if not isinstance(container, list):
        return
    keys = [key for key, _ in step]
    for item in list(container):
        if key_of(item, keys) == step:
            if rest:
                _drop_item(item, rest)
            else:
                container.remove(item)
