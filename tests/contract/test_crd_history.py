"""v1alpha1 only ever gains optional fields; and the comparison that says so sees what it must."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final

import pytest

from .crd_history import breaking_changes, essence, record_file, recorded, rendered
from .schema import CRD_FILES, schema

OLD: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["scopes"],
    "properties": {
        "scopes": {
            "type": "array",
            "maxItems": 32,
            "minItems": 1,
            "x-kubernetes-list-type": "set",
            "items": {"type": "string", "maxLength": 128, "pattern": "^[a-z]+$"},
        },
        "match": {"type": "string", "enum": ["All", "Any"], "default": "All"},
        "retries": {"type": "integer", "minimum": 0, "maximum": 5},
        "labels": {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}},
    },
}


@pytest.mark.parametrize("kind", CRD_FILES)
def test_the_schema_breaks_nothing_that_was_recorded(kind: str) -> None:
    assert list(breaking_changes(recorded(kind), essence(schema(kind)))) == []


@pytest.mark.parametrize("kind", CRD_FILES)
def test_the_record_is_up_to_date(kind: str) -> None:
    assert record_file(kind).read_text(encoding="utf-8") == rendered(kind), "run: python -m tests.contract.crd_history"


def properties(schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = schema["properties"]
    return found


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param(lambda s: properties(s).pop("match"), "match: removed", id="a field is removed"),
        pytest.param(lambda s: s["required"].append("match"), "match became required", id="a field becomes required"),
        pytest.param(
            lambda s: properties(s)["retries"].update(type="string"), "retries: type changed", id="a type changes"
        ),
        pytest.param(
            lambda s: properties(s)["retries"].update(maximum=4), "retries: maximum fell", id="an upper bound falls"
        ),
        pytest.param(
            lambda s: properties(s)["retries"].update(minimum=1), "retries: minimum rose", id="a lower bound rises"
        ),
        pytest.param(
            lambda s: properties(s)["match"].update(maxLength=3), "match: maxLength fell", id="a bound is added"
        ),
        pytest.param(
            lambda s: properties(s)["match"].update(enum=["All"]), "match: enum lost", id="an enumeration loses a value"
        ),
        pytest.param(
            lambda s: properties(s)["retries"].update(enum=[1]), "retries: enum lost", id="an enumeration is added"
        ),
        pytest.param(
            lambda s: properties(s)["match"].update(default="Any"), "match: default changed", id="a default changes"
        ),
        pytest.param(
            lambda s: properties(s)["scopes"]["items"].update(pattern="^a$"),
            "scopes[]: pattern changed",
            id="a pattern of an item changes",
        ),
        pytest.param(
            lambda s: properties(s)["scopes"].update({"x-kubernetes-list-type": "atomic"}),
            "scopes: x-kubernetes-list-type changed",
            id="a list merges in another way",
        ),
        pytest.param(
            lambda s: properties(s)["labels"].pop("additionalProperties"),
            "labels{}: removed",
            id="a map loses its values",
        ),
        pytest.param(
            lambda s: properties(s)["labels"]["additionalProperties"].update(maxLength=3),
            "labels{}: maxLength fell",
            id="a value of a map gets shorter",
        ),
        pytest.param(
            lambda s: s.update({"x-kubernetes-validations": ["size(self.scopes) > 1"]}),
            "the object: new rule",
            id="a rule is added",
        ),
    ],
)
def test_a_change_that_breaks_is_seen(change: Callable[[dict[str, Any]], object], sentence: str) -> None:
    new = copy.deepcopy(OLD)
    change(new)

    (fault,) = breaking_changes(OLD, new)

    assert sentence in fault


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda s: properties(s).update(extra={"type": "string"}), id="an optional field is added"),
        pytest.param(lambda s: s["required"].clear(), id="a field becomes optional"),
        pytest.param(lambda s: properties(s)["retries"].update(maximum=9), id="an upper bound rises"),
        pytest.param(lambda s: properties(s)["scopes"].pop("minItems"), id="a lower bound goes"),
        pytest.param(lambda s: properties(s)["match"]["enum"].append("None"), id="an enumeration gains a value"),
    ],
)
def test_a_change_that_only_allows_more_is_let_through(change: Callable[[dict[str, Any]], object]) -> None:
    new = copy.deepcopy(OLD)
    change(new)

    assert list(breaking_changes(OLD, new)) == []


def test_descriptions_and_messages_may_change_freely() -> None:
    rule = {"rule": "size(self)\n  > 0", "message": "one"}
    old = essence({"type": "string", "description": "one", "x-kubernetes-validations": [rule]})
    new = essence(
        {"type": "string", "description": "two", "x-kubernetes-validations": [{**rule, "rule": "size(self) > 0"}]}
    )

    assert list(breaking_changes(old, new)) == []
