"""Every example passes the schema and the operator's own reading of it, and says what it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from .manifests import EXAMPLES, K8S, documents, shipped
from .schema import CRD_FILES, closed, schema, with_defaults
from .test_crds import PARSED

CUSTOM = [
    pytest.param(document, id=f"{file.parent.name}/{file.stem}")
    for kind in CRD_FILES
    for file, document in shipped(kind)
]
METADATA = {"namespace": "tenant", "uid": "uid-1", "resourceVersion": "7", "generation": 1}


@pytest.mark.parametrize("document", CUSTOM)
def test_the_manifest_passes_the_schema(document: dict[str, Any]) -> None:
    validator = Draft202012Validator(closed(schema(document["kind"])["properties"]["spec"]))

    assert [error.message for error in validator.iter_errors(document["spec"])] == []


@pytest.mark.parametrize("document", CUSTOM)
def test_the_operator_can_read_the_manifest(document: dict[str, Any]) -> None:
    body = with_defaults(schema(document["kind"]), {**document, "metadata": {**METADATA, **document["metadata"]}})

    parsed = PARSED[document["kind"]].parse(body)

    assert parsed.meta.name == document["metadata"]["name"]


def test_the_smallest_example_is_the_one_of_the_design() -> None:
    (smallest,) = documents(K8S / "examples/smallest.yaml")

    assert smallest == {
        "apiVersion": "protectedservice.dev/v1alpha1",
        "kind": "ProtectedService",
        "metadata": {"name": "orders"},
        "spec": {"scopes": ["read"], "upstream": {"service": {"name": "orders", "port": 8080}}},
    }


def test_the_schema_refuses_a_field_that_it_does_not_know() -> None:
    validator = Draft202012Validator(closed(schema("ProtectedService")["properties"]["spec"]))

    assert not validator.is_valid({"scopes": ["read"], "demo": True, "mode": "ForwardAuth"})


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_example_says_its_idea_and_what_to_expect(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()

    assert lines[0].startswith("# Idea: ")
    assert any(line.startswith("# Expect: ") for line in lines[:6])


def test_no_two_examples_take_each_others_names() -> None:
    names = [(document["kind"], document["metadata"]["name"]) for file in EXAMPLES for document in documents(file)]

    assert len(names) == len(set(names))
