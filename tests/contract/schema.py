"""The CRDs as tests read them: the schemas that are shipped, walked, filled with their defaults, and closed."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

Schema = dict[str, Any]

ROOT: Final = Path(__file__).parents[2]
CRD_FILES: Final = {
    "ProtectedService": ROOT / "crds/protectedservices.yaml",
    "ServiceClient": ROOT / "crds/serviceclients.yaml",
    "AuthorizationServer": ROOT / "crds/authorizationservers.yaml",
}


def definition(kind: str) -> dict[str, Any]:
    """The CustomResourceDefinition as shipped."""
    return copy.deepcopy(_read(kind))


@functools.cache
def _read(kind: str) -> dict[str, Any]:
    """Read once: hundreds of cases ask, and two thousand lines of YAML take a second."""
    loaded: dict[str, Any] = yaml.safe_load(CRD_FILES[kind].read_text(encoding="utf-8"))
    return loaded


def schema(kind: str) -> Schema:
    """openAPIV3Schema of v1alpha1."""
    (version,) = definition(kind)["spec"]["versions"]
    found: Schema = version["schema"]["openAPIV3Schema"]
    return found


def nodes(node: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every schema below this one with its path, such as `spec.scopes[]`; metadata belongs to Kubernetes."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        if path or name != "metadata":
            yield from nodes(child, f"{path}.{name}" if path else name)
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from nodes(node["additionalProperties"], f"{path}{{}}")


def is_leaf(node: Schema) -> bool:
    """Whether a value stands here, rather than a structure."""
    return not any(key in node for key in ("properties", "items", "additionalProperties")) and (
        node.get("type") != "object"
    )


def with_defaults(node: Schema, value: Any) -> Any:
    """A copy with the schema's defaults filled in, as the API server does: outer ones first."""
    if isinstance(value, dict):
        filled = dict(value)
        for name, child in node.get("properties", {}).items():
            if name not in filled and "default" in child:
                filled[name] = copy.deepcopy(child["default"])
            if name in filled:
                filled[name] = with_defaults(child, filled[name])
        return filled
    if isinstance(value, list):
        return [with_defaults(node.get("items", {}), item) for item in value]
    return value


def closed(node: Schema) -> Schema:
    """A copy that refuses unknown fields, as `kubectl apply` does (strict field validation)."""
    copied = dict(node)
    if "properties" in node:
        copied["properties"] = {name: closed(child) for name, child in node["properties"].items()}
        copied["additionalProperties"] = False
    if "items" in node:
        copied["items"] = closed(node["items"])
    return copied
