"""What the operator reports fits the status schemas, of which the API server would drop or refuse the rest."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from protectedservice_operator import reasons
from protectedservice_operator.authorization_server import Endpoints
from protectedservice_operator.proof import Check, duration
from protectedservice_operator.registration.driver import Capabilities

from .schema import CRD_FILES, Schema, closed, schema

LONGEST_POD = "p" * 253


def status(kind: str) -> Schema:
    found: Schema = schema(kind)["properties"]["status"]["properties"]
    return found


def camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


@pytest.mark.parametrize("kind", CRD_FILES)
@pytest.mark.parametrize("reason", [value for name, value in vars(reasons).items() if name.isupper()])
def test_every_reason_is_one_that_a_condition_may_have(kind: str, reason: Any) -> None:
    condition = status(kind)["conditions"]["items"]["properties"]

    assert re.fullmatch(condition["reason"]["pattern"], reason)
    assert re.fullmatch(condition["type"]["pattern"], reason)


def test_the_proof_of_fifty_pods_and_one_more_fits() -> None:
    checks = [Check(LONGEST_POD, 401, 204, 401, revocation_delay=59.99).to_status() for _ in range(51)]
    verification = {"hash": "0" * 16, "revocationDelay": duration(59.99), "checks": [s for c in checks for s in c]}

    faults = Draft202012Validator(closed(status("ProtectedService")["verification"])).iter_errors(verification)

    assert [fault.message for fault in faults] == []


def test_capabilities_have_the_names_that_the_operator_publishes() -> None:
    published = {camel(field.name) for field in dataclasses.fields(Capabilities)}

    assert set(status("AuthorizationServer")["capabilities"]["properties"]) == published


def test_endpoints_have_the_names_that_the_operator_publishes() -> None:
    published = {field.name for field in dataclasses.fields(Endpoints)}

    assert set(status("AuthorizationServer")["endpoints"]["properties"]) == published
