"""Which rule decides about a request."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protectedservice_server.policy import (
    CHECK_PATH,
    Access,
    AuthorizationServer,
    Need,
    Policy,
    Requirement,
    Rule,
    Rules,
)
from protectedservice_server.request_target import RefusedTarget

OTHERWISE = Requirement(("read",))
WRITE = Requirement(("write",))


def policy(*rules: Rule, demo: bool = False) -> Policy:
    return Policy(OTHERWISE, AuthorizationServer("https://as/introspect"), demo=demo, rules=Rules(rules))


def public(*paths: str, methods: Sequence[str] | None = None) -> Rule:
    return Rule(paths, Access.PUBLIC, None if methods is None else frozenset(methods))


@pytest.mark.parametrize(
    ("rule", "path", "fits"),
    [
        ("/orders", "/orders", True),
        ("/orders", "/orders/", False),
        ("/orders", "/Orders", False),
        ("/orders", "/orders/1", False),
        ("/orders/", "/orders/", True),
        ("/orders/", "/orders", False),
        ("/orders/*", "/orders", True),
        ("/orders/*", "/orders/", True),
        ("/orders/*", "/orders/1/lines", True),
        ("/orders/*", "/ordersX", False),
        ("/orders/*", "/orderS/1", False),
        ("/a/b/*", "/a", False),
        ("/a/b/*", "/a/b/c/d/e/f", True),
        ("/a/b/*", "/a/c/b", False),
        ("/*", "/", True),
        ("/*", "/anything/at/all", True),
        ("/", "/", True),
        ("/", "/a", False),
        ("/é/*", "/é/x", True),
    ],
)
def test_a_path_is_exact_or_reaches_downwards(rule: str, path: str, fits: bool) -> None:
    assert policy(public(rule)).requirement_for("GET", path) == (Access.PUBLIC if fits else OTHERWISE)


@pytest.mark.parametrize(
    ("methods", "method", "fits"),
    [
        (None, "DELETE", True),
        (["GET"], "GET", True),
        (["GET"], "HEAD", True),
        (["HEAD"], "GET", False),
        (["GET", "POST"], "OPTIONS", False),
        (["OPTIONS"], "OPTIONS", True),
        (["GET"], "get", False),
    ],
)
def test_methods_are_those_named_and_head_with_get(methods: list[str] | None, method: str, fits: bool) -> None:
    need = policy(public("/a", methods=methods)).requirement_for(method, "/a")

    assert need == (Access.PUBLIC if fits else OTHERWISE)


def test_the_first_rule_that_fits_decides_however_exact_a_later_one_is() -> None:
    rules = policy(
        Rule(("/orders/private",), Access.DENY), public("/orders/*", methods=["GET"]), Rule(("/orders/1",), WRITE)
    )

    assert rules.requirement_for("GET", "/orders/private") is Access.DENY
    assert rules.requirement_for("GET", "/orders/1") is Access.PUBLIC
    assert rules.requirement_for("PUT", "/orders/1") is WRITE
    assert rules.requirement_for("PUT", "/orders/2") is OTHERWISE


@pytest.mark.parametrize("rule", [public("/*"), public(CHECK_PATH), Rule(("/*",), Access.DENY), Rule(("/*",), WRITE)])
def test_no_rule_changes_what_the_path_of_the_proof_needs(rule: Rule) -> None:
    assert policy(rule).requirement_for("GET", CHECK_PATH) is OTHERWISE


@pytest.mark.parametrize("path", ["//admin", "/admin//x", "/admin//", "/admin;x", "/admin;/x"])
def test_a_path_that_servers_read_differently_is_refused_where_there_are_rules(path: str) -> None:
    with pytest.raises(RefusedTarget):
        policy(public("/public")).requirement_for("GET", path)

    assert policy().requirement_for("GET", path) is OTHERWISE


def test_a_rule_comes_before_the_routes_of_the_demonstration() -> None:
    rules = policy(Rule(("/public",), WRITE), public("/protected"), demo=True)

    assert rules.requirement_for("GET", "/public") is WRITE
    assert rules.requirement_for("GET", "/protected") is Access.PUBLIC
    assert rules.requirement_for("GET", "/health") is Access.PUBLIC


def naive(rules: Sequence[Rule], method: str, path: str) -> Need | None:
    """The definition: one rule after the other."""
    for rule in rules:
        if rule.methods is not None and method not in rule.methods and not (method == "HEAD" and "GET" in rule.methods):
            continue
        for pattern in rule.paths:
            below = pattern.endswith("/*") and (path == pattern[:-2] or path.startswith(pattern[:-1]))
            if path == pattern or below:
                return rule.need
    return None


_SEGMENTS = st.lists(st.sampled_from(["a", "b", "ab"]), max_size=4)
_PATHS = st.builds(lambda segments, end: "/" + "/".join(segments) + (end if segments else ""), _SEGMENTS, st.just(""))
_PATHS |= st.builds(lambda segments: "/" + "".join(f"{segment}/" for segment in segments), _SEGMENTS)
_PATTERNS = _PATHS | st.builds(lambda segments: "".join(f"/{segment}" for segment in segments) + "/*", _SEGMENTS)
_METHODS = st.none() | st.frozensets(st.sampled_from(["GET", "HEAD", "PUT"]), min_size=1)
_RULES = st.lists(
    st.builds(
        Rule,
        st.lists(_PATTERNS, min_size=1, max_size=3).map(tuple),
        st.integers().map(lambda number: Requirement((str(number),))),
        _METHODS,
    ),
    max_size=8,
)


@settings(max_examples=500)
@given(rules=_RULES, method=st.sampled_from(["GET", "HEAD", "PUT", "OPTIONS"]), path=_PATHS)
def test_the_lookup_finds_what_walking_the_rules_one_by_one_would(rules: list[Rule], method: str, path: str) -> None:
    assert Rules(tuple(rules)).need(method, path) is naive(rules, method, path)
