"""Facts and a requirement become a verdict."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from protectedservice_server.decision import INACTIVE, Facts, Reason, decide
from protectedservice_server.policy import Requirement, ScopeMatch

NOW = 1_800_000_000.0
ISSUER = "https://as.example"
GOOD = Facts(
    active=True, scopes=frozenset({"read", "write"}), aud=("https://a", "https://b"), iss=ISSUER, exp=NOW + 1, nbf=NOW
)


@pytest.mark.parametrize(
    ("changes", "requirement", "expected"),
    [
        pytest.param({}, {}, Reason.OK, id="everything fits"),
        pytest.param({"active": False}, {}, Reason.INACTIVE, id="inactive, whatever else is there"),
        pytest.param({"exp": NOW}, {}, Reason.EXPIRED, id="expired on the second"),
        pytest.param({"exp": None}, {}, Reason.OK, id="no exp: the server says it is active"),
        pytest.param({"nbf": NOW + 0.1}, {}, Reason.NOT_YET_VALID, id="not valid yet"),
        pytest.param({"nbf": None}, {}, Reason.OK, id="no nbf"),
        pytest.param({"iss": "https://as.example/"}, {}, Reason.ISSUER, id="issuer compared exactly"),
        pytest.param({"iss": None}, {}, Reason.OK, id="no iss: the server that was asked has answered"),
        pytest.param({}, {"audience": "https://b"}, Reason.OK, id="one of the audiences"),
        pytest.param({}, {"audience": "https://c"}, Reason.AUDIENCE, id="another audience"),
        pytest.param({}, {"audience": "https://a/"}, Reason.AUDIENCE, id="audience compared exactly"),
        pytest.param({"aud": ()}, {"audience": "https://a"}, Reason.AUDIENCE, id="audience asked for, none answered"),
        pytest.param({}, {"scopes": ("read", "write")}, Reason.OK, id="all scopes held"),
        pytest.param({}, {"scopes": ("read", "admin")}, Reason.SCOPE, id="one of all scopes missing"),
        pytest.param({}, {"scopes": ("admin", "read"), "match": ScopeMatch.ANY}, Reason.OK, id="any: one is enough"),
        pytest.param({}, {"scopes": ("admin", "root"), "match": ScopeMatch.ANY}, Reason.SCOPE, id="any: none held"),
        pytest.param({}, {"scopes": ("Read",)}, Reason.SCOPE, id="scopes are case-sensitive"),
        pytest.param({"scopes": frozenset({"reader"})}, {}, Reason.SCOPE, id="no prefix matches"),
        pytest.param(
            {"scopes": frozenset({"oauth2_provider:registration"}), "exp": 253402300799.0},
            {},
            Reason.SCOPE,
            id="a registration token that django-oauth-toolkit calls active until year 9999",
        ),
        pytest.param({"exp": NOW, "iss": "x", "aud": ()}, {"audience": "y"}, Reason.EXPIRED, id="time comes first"),
    ],
)
def test_decide(changes: dict[str, Any], requirement: dict[str, Any], expected: Reason) -> None:
    wanted = Requirement(**{"scopes": ("read",), **requirement})

    assert decide(replace(GOOD, **changes), wanted, ISSUER, NOW) is expected


def test_a_policy_without_issuer_takes_any() -> None:
    assert decide(replace(GOOD, iss="https://other"), Requirement(("read",)), None, NOW) is Reason.OK


def test_an_inactive_token_meets_no_requirement() -> None:
    assert decide(INACTIVE, Requirement(()), None, NOW) is Reason.INACTIVE
