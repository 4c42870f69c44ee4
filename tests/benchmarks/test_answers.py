from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmarks.answers import CASES, GOOD_TOKEN, Answer, faults, same_bytes, same_json

DOCUMENT = {"ok": True}
GOOD = Answer(200, "", b'{"ok": true}')


def right(token: str | None) -> Answer:
    status = next(status for known, status in CASES.values() if known == token)
    return GOOD if status == 200 else Answer(status, 'Bearer realm="api"', b"{}")


def changed(token: str | None, answer: Answer) -> Callable[[str | None], Answer]:
    return lambda asked: answer if asked == token else right(asked)


def test_a_candidate_that_answers_rightly_has_no_faults() -> None:
    assert faults(right, same_json(DOCUMENT)) == ()


@pytest.mark.parametrize(
    ("case", "answer", "fault"),
    [
        pytest.param("no token", GOOD, "no token: answered 200 instead of 401", id="lets everybody in"),
        pytest.param("inactive token", GOOD, "inactive token: answered 200 instead of 401", id="does not ask"),
        pytest.param("scope missing", GOOD, "scope missing: answered 200 instead of 403", id="does not look at scopes"),
        pytest.param(
            "no token", Answer(401, "", b""), "no token: 401 without WWW-Authenticate: Bearer", id="no challenge"
        ),
    ],
)
def test_a_wrong_answer_is_told_with_its_case(case: str, answer: Answer, fault: str) -> None:
    assert faults(changed(CASES[case][0], answer), same_json(DOCUMENT)) == (fault,)


def test_another_body_is_a_fault_of_both_asks_with_the_good_token() -> None:
    found = faults(changed(GOOD_TOKEN, Answer(200, "", b"hello")), same_json(DOCUMENT))
    assert found == ("good token: the body is not JSON", "good token again: the body is not JSON")


def test_silence_is_a_fault_not_an_exception_and_names_no_token() -> None:
    def silent(token: str | None) -> Answer:
        raise ConnectionRefusedError(token)

    found = faults(silent, same_json(DOCUMENT))
    assert len(found) == len(CASES)
    assert GOOD_TOKEN not in " ".join(found)


def test_one_that_checks_nothing_by_design_is_asked_with_the_good_token_only() -> None:
    assert faults(lambda token: GOOD, same_json(DOCUMENT), authenticates=False) == ()


def test_a_forwarded_body_must_be_the_upstreams_byte_for_byte() -> None:
    check = same_bytes(b"a" * 200)
    assert check(b"a" * 200) is None
    assert check(b"a" * 199) == "the body (199 bytes) is not the upstream's (200 bytes)"
