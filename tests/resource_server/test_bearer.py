"""Token extraction and the challenges of RFC 6750, as tables."""

from __future__ import annotations

import json

import pytest

from protectedservice_server.bearer import LONGEST_TOKEN, challenge, error, refuse, token_of
from protectedservice_server.decision import Reason
from protectedservice_server.policy import Requirement, ScopeMatch

REQUIREMENT = Requirement(("read", "write"))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param([], Reason.MISSING, id="no header"),
        pytest.param([b""], Reason.MISSING, id="an empty header names no scheme"),
        pytest.param([b"Basic YTpi"], Reason.MISSING, id="another scheme"),
        pytest.param([b"Bearerx abc"], Reason.MISSING, id="a scheme that only begins like it"),
        pytest.param([b"Bearer abc"], "abc", id="plain"),
        pytest.param([b"bEaReR abc"], "abc", id="the scheme's case does not matter"),
        pytest.param([b"Bearer   abc  "], "abc", id="several spaces"),
        pytest.param([b"Bearer aZ09-._~+/=="], "aZ09-._~+/==", id="every character of b64token"),
        pytest.param([b"Bearer"], Reason.MALFORMED, id="no token"),
        pytest.param([b"Bearer "], Reason.MALFORMED, id="only a space"),
        pytest.param([b"Bearer\tabc"], Reason.MALFORMED, id="a tab instead of the space"),
        pytest.param([b"Bearer a b"], Reason.MALFORMED, id="two words"),
        pytest.param([b"Bearer a,b"], Reason.MALFORMED, id="a list"),
        pytest.param([b"Bearer a=b"], Reason.MALFORMED, id="an equals sign within"),
        pytest.param([b"Bearer ="], Reason.MALFORMED, id="only padding"),
        pytest.param([b'Bearer "abc"'], Reason.MALFORMED, id="quotes"),
        pytest.param([b"Bearer a\x00"], Reason.MALFORMED, id="NUL"),
        pytest.param([b"Bearer \xc3\xa4"], Reason.MALFORMED, id="not ASCII"),
        pytest.param([b"Bearer " + b"a" * LONGEST_TOKEN], "a" * LONGEST_TOKEN, id="as long as is allowed"),
        pytest.param([b"Bearer " + b"a" * (LONGEST_TOKEN + 1)], Reason.MALFORMED, id="one byte longer"),
        pytest.param([b"Bearer abc", b"Bearer abc"], Reason.MALFORMED, id="twice the same"),
        pytest.param([b"Basic YTpi", b"Bearer abc"], Reason.MALFORMED, id="two schemes"),
    ],
)
def test_token_of(values: list[bytes], expected: str | Reason) -> None:
    assert token_of(values) == expected


@pytest.mark.parametrize(
    ("reason", "status", "code", "in_challenge"),
    [
        (Reason.MISSING, 401, "unauthorized", False),
        (Reason.MALFORMED, 400, "invalid_request", True),
        (Reason.INACTIVE, 401, "invalid_token", True),
        (Reason.EXPIRED, 401, "invalid_token", True),
        (Reason.NOT_YET_VALID, 401, "invalid_token", True),
        (Reason.ISSUER, 401, "invalid_token", True),
        (Reason.AUDIENCE, 401, "invalid_token", True),
        (Reason.SCOPE, 403, "insufficient_scope", True),
    ],
)
def test_a_refusal_of_the_caller_carries_a_challenge(
    reason: Reason, status: int, code: str, in_challenge: bool
) -> None:
    answer = refuse(reason, REQUIREMENT)
    headers = dict(answer.headers)
    told = headers[b"www-authenticate"].decode()

    assert answer.status == status
    assert json.loads(answer.body)["error"] == code
    assert told.startswith('Bearer realm="protectedservice", ')
    assert told.endswith('scope="read write"')
    assert (f'error="{code}"' in told) == in_challenge
    assert headers[b"cache-control"] == b"no-store"
    assert b"retry-after" not in headers


@pytest.mark.parametrize("reason", [Reason.AS_UNAVAILABLE, Reason.AS_REFUSED_US])
def test_an_outage_is_told_without_a_challenge_and_with_a_time(reason: Reason) -> None:
    answer = refuse(reason, REQUIREMENT, 7)
    headers = dict(answer.headers)

    assert answer.status == 503
    assert headers[b"retry-after"] == b"7"
    assert b"www-authenticate" not in headers
    assert json.loads(answer.body)["error"] == "temporarily_unavailable"


def test_every_refusal_has_an_answer() -> None:
    for reason in set(Reason) - {Reason.OK, Reason.OPEN}:
        assert refuse(reason, REQUIREMENT).status >= 400


def test_a_missing_token_is_told_without_an_error_code() -> None:
    assert challenge(Requirement(("read",), ScopeMatch.ANY)) == 'Bearer realm="protectedservice", scope="read"'


def test_quotes_and_backslashes_in_a_challenge_are_escaped() -> None:
    told = challenge(Requirement(("read",)), "invalid_request", 'a "quoted" \\ thing')

    assert r'error_description="a \"quoted\" \\ thing"' in told


def test_an_error_body_has_two_members() -> None:
    answer = error(404, "not_found", "No such thing")

    assert json.loads(answer.body) == {"error": "not_found", "error_description": "No such thing"}
