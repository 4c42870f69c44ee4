"""What a change of a CRD would break for objects and programs that exist.

v1alpha1 only ever gains optional fields: kopf has no conversion webhook, so that the stored objects of today must be
good under every schema to come. After a change that is allowed, renew the record: python -m tests.contract.crd_history

A CEL rule at a node that exists cannot be judged by a machine: it may be a weaker form of an old one, or hold for every
stored object because what it forbids could not be written. Whoever has made sure of that says so:
python -m tests.contract.crd_history --new-rules-hold-for-stored-objects
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from .schema import CRD_FILES, ROOT, Schema, schema

RECORDS: Final = ROOT / "tests/data/crds"

LOWER_BOUNDS: Final = ("minimum", "minLength", "minItems", "minProperties")  # may fall or go
UPPER_BOUNDS: Final = ("maximum", "maxLength", "maxItems", "maxProperties")  # may rise or go
# May not change at all: stored values, clients or merging depend on them.
FIXED: Final = (
    "type",
    "format",
    "pattern",
    "default",
    "anyOf",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
)


def record_file(kind: str) -> Path:
    """Where the schema of this kind is recorded."""
    return RECORDS / f"{kind.lower()}.v1alpha1.json"


def essence(node: Any) -> Any:
    """The schema without the words for people, which may change."""
    if isinstance(node, list):
        return [essence(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: essence(value) for key, value in node.items() if key not in ("description", "properties")}
    if "x-kubernetes-validations" in kept:
        kept["x-kubernetes-validations"] = sorted(" ".join(rule["rule"].split()) for rule in rules(node))
    if "properties" in node:  # a property may be called `description`
        kept["properties"] = {name: essence(child) for name, child in node["properties"].items()}
    return kept


def rules(node: Schema) -> list[dict[str, Any]]:
    """The CEL rules that stand at this very node."""
    found: list[dict[str, Any]] = node.get("x-kubernetes-validations", [])
    return found


def breaking_changes(old: Schema, new: Schema, path: str = "") -> Iterator[str]:
    """One sentence per change from `old` to `new` (both as `essence` gives them) that is not an optional addition."""
    here = path or "the object"
    for key in FIXED:
        if old.get(key) != new.get(key):
            yield f"{here}: {key} changed from {old.get(key)!r} to {new.get(key)!r}"
    for key in LOWER_BOUNDS:
        if key in new and new[key] > old.get(key, float("-inf")):
            yield f"{here}: {key} rose from {old.get(key)} to {new[key]}"
    for key in UPPER_BOUNDS:
        if key in new and new[key] < old.get(key, float("inf")):
            yield f"{here}: {key} fell from {old.get(key)} to {new[key]}"
    if "enum" in new and ("enum" not in old or set(old["enum"]) - set(new["enum"])):
        yield f"{here}: enum lost values: {old.get('enum')} is now {new['enum']}"
    for name in sorted(set(new.get("required", [])) - set(old.get("required", []))):
        yield f"{here}: {name} became required"
    for rule in new.get("x-kubernetes-validations", []):
        if rule not in old.get("x-kubernetes-validations", []):
            yield f"{here}: new rule {rule}"
    yield from _changes_below(old, new, path)


def _changes_below(old: Schema, new: Schema, path: str) -> Iterator[str]:
    properties: dict[str, Schema] = new.get("properties", {})
    for name, child in old.get("properties", {}).items():
        below = f"{path}.{name}" if path else name
        if name not in properties:
            yield f"{below}: removed"
        else:
            yield from breaking_changes(child, properties[name], below)
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if key in old and key not in new:
            yield f"{path}{mark}: removed"
        elif isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
            yield from breaking_changes(old[key], new[key], path + mark)


def recorded(kind: str) -> Schema:
    """The schema that the next one must not break."""
    loaded: Schema = json.loads(record_file(kind).read_text(encoding="utf-8"))
    return loaded


def rendered(kind: str) -> str:
    """The record that fits the CRD as it stands."""
    return json.dumps(essence(schema(kind)), indent=1, sort_keys=True) + "\n"


def main(arguments: list[str]) -> int:
    """Renew the records; refuses (exit code 1) where the new schema breaks the recorded one."""
    rules_hold = "--new-rules-hold-for-stored-objects" in arguments
    faults = [
        f"{kind}: {change}"
        for kind in CRD_FILES
        if record_file(kind).exists()
        for change in breaking_changes(recorded(kind), essence(schema(kind)))
        if not (rules_hold and ": new rule " in change)
    ]
    if faults:
        sys.stderr.write("\n".join(["v1alpha1 only gains optional fields; refused:", *faults, ""]))
        return 1
    for kind in CRD_FILES:
        record_file(kind).write_text(rendered(kind), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
