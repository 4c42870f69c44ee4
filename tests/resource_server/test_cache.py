"""What is remembered, for how long and how much of it."""

from __future__ import annotations

import pytest

from protectedservice_server.cache import INACTIVE_LIFETIME, Cache, key_of
from protectedservice_server.decision import INACTIVE, Facts

GOOD = Facts(active=True, scopes=frozenset({"read"}))
LONG = float("inf")


def test_the_key_is_a_digest_and_not_the_token() -> None:
    assert len(key_of("secret-token")) == 32
    assert b"secret" not in key_of("secret-token")


@pytest.mark.parametrize(
    ("facts", "bound", "lifetime", "expected"),
    [
        pytest.param(GOOD, 5.0, LONG, 5.0, id="the bound"),
        pytest.param(GOOD, 5.0, 1.5, 1.5, id="the token's own end"),
        pytest.param(INACTIVE, 60.0, LONG, INACTIVE_LIFETIME, id="inactive, at most two seconds"),
        pytest.param(INACTIVE, 1.0, LONG, 1.0, id="inactive, within the bound"),
    ],
)
def test_an_answer_is_used_until_its_end_counted_from_the_question(
    facts: Facts, bound: float, lifetime: float, expected: float
) -> None:
    cache = Cache(bound)
    cache.put(b"k", facts, 100.0, lifetime)

    assert cache.get(b"k", 100.0 + expected - 0.001) is facts
    assert cache.get(b"k", 100.0 + expected) is None


@pytest.mark.parametrize(("bound", "lifetime"), [(0.0, LONG), (5.0, 0.0), (5.0, -1.0)])
def test_nothing_is_remembered_without_a_lifetime(bound: float, lifetime: float) -> None:
    cache = Cache(bound)
    cache.put(b"k", GOOD, 100.0, lifetime)

    assert cache.sizes() == (0, 0)


def test_of_two_answers_the_one_asked_for_later_stays() -> None:
    cache = Cache(60.0)
    cache.put(b"k", INACTIVE, 101.0, LONG)
    cache.put(b"k", GOOD, 100.0, LONG)

    assert cache.get(b"k", 101.5) is INACTIVE
    assert cache.sizes() == (0, 1)


def test_a_later_answer_replaces_an_earlier_one_in_the_other_table() -> None:
    cache = Cache(60.0)
    cache.put(b"k", GOOD, 100.0, LONG)
    cache.put(b"k", INACTIVE, 101.0, LONG)

    assert cache.get(b"k", 101.5) is INACTIVE
    assert cache.sizes() == (0, 1)


def test_a_full_table_drops_its_oldest_and_leaves_the_other_alone() -> None:
    cache = Cache(60.0, most_active=2, most_inactive=2)
    cache.put(b"good", GOOD, 100.0, LONG)
    for number in range(5):
        cache.put(b"bad%d" % number, INACTIVE, 100.0 + number / 10, LONG)

    assert cache.sizes() == (1, 2)
    assert cache.get(b"good", 101.0) is GOOD
    assert [cache.get(b"bad%d" % number, 101.0) for number in range(5)] == [None, None, None, INACTIVE, INACTIVE]


def test_entries_that_have_ended_make_room_by_themselves() -> None:
    cache = Cache(5.0)
    for number in range(10):
        cache.put(b"%d" % number, GOOD, 100.0, LONG)
    cache.put(b"new", GOOD, 106.0, LONG)

    assert cache.sizes() == (1, 0)


def test_a_good_answer_is_kept_beyond_the_bound_for_those_who_can_ask_nobody() -> None:
    cache = Cache(5.0, 60.0)
    cache.put(b"k", GOOD, 100.0, LONG)

    assert cache.get(b"k", 105.0) is None
    assert cache.stale(b"k", 164.999) is GOOD
    assert cache.stale(b"k", 165.0) is None


@pytest.mark.parametrize(("facts", "lifetime"), [(INACTIVE, LONG), (GOOD, 5.0)])
def test_a_refused_token_and_one_that_has_ended_are_not(facts: Facts, lifetime: float) -> None:
    cache = Cache(5.0, 60.0)
    cache.put(b"k", facts, 100.0, lifetime)

    assert cache.stale(b"k", 105.0) is None
    assert cache.stale(b"k", 106.0) is None


def test_an_inactive_answer_takes_the_good_one_s_place_even_where_nothing_fresh_is_kept() -> None:
    cache = Cache(0.0, 60.0)
    cache.put(b"k", GOOD, 100.0, LONG)
    cache.put(b"k", INACTIVE, 101.0, LONG)

    assert cache.stale(b"k", 101.0) is None
    assert cache.sizes() == (0, 0)


@pytest.mark.parametrize(
    ("later", "earlier", "left"), [(GOOD, GOOD, (1, 0)), (INACTIVE, GOOD, (0, 1)), (GOOD, INACTIVE, (0, 0))]
)
def test_an_answer_that_was_asked_for_earlier_replaces_none_but_an_inactive_one_ends_a_good_one(
    later: Facts, earlier: Facts, left: tuple[int, int]
) -> None:
    cache = Cache(5.0, 60.0)
    cache.put(b"k", later, 101.0, LONG)
    cache.put(b"k", earlier, 100.0, LONG)

    assert cache.sizes() == left


def test_what_may_still_be_needed_in_an_outage_does_not_make_room_by_itself() -> None:
    cache = Cache(5.0, 60.0)
    cache.put(b"old", GOOD, 100.0, LONG)
    cache.put(b"new", GOOD, 120.0, LONG)
    before = cache.sizes()
    cache.put(b"newer", GOOD, 170.0, LONG)

    assert (before, cache.sizes()) == ((2, 0), (2, 0))


def test_what_is_forgotten_is_in_neither_table() -> None:
    cache = Cache(5.0, 60.0)
    cache.put(b"good", GOOD, 100.0, LONG)
    cache.put(b"refused", INACTIVE, 100.0, LONG)
    for key in (b"good", b"refused", b"unknown"):
        cache.forget(key)

    assert cache.sizes() == (0, 0)
