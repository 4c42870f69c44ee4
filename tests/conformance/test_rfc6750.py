"""RFC 6750, Bearer Token Usage: how a token is taken, and what is said when it is not good enough."""

from __future__ import annotations

import re
from typing import Any

import pytest

from .conversation import Answer, ask, head
from .fronts import Front
from .upstreams import fresh_target

B64TOKEN = "AZaz09-._~+/"
LONGEST = 16 * 1024


def challenge(answer: Answer) -> dict[str, str]:
    """The parameters of the one Bearer challenge; it must be well-formed (RFC 9110 section 11.6.1)."""
    (value,) = answer.values("www-authenticate")
    assert re.fullmatch(r'Bearer( [a-z_]+="(?:[^"\\]|\\.)*")(, [a-z_]+="(?:[^"\\]|\\.)*")*', value), value
    found = re.findall(r'([a-z_]+)="((?:[^"\\]|\\.)*)"', value)
    assert len(dict(found)) == len(found), "no parameter may stand twice (section 3)"
    return dict(found)


async def with_lines(front: Front, *lines: str, target: str | None = None, body: str = "") -> Answer:
    """The answer to a request with these field lines. Whatever is not let in must not reach the upstream."""
    mark = front.upstream.mark()
    sent = head("POST" if body else "GET", target or fresh_target("lines"), *lines) + body.encode()
    answer = await ask(front.port, sent)
    seen = await front.seen_since(mark)
    assert len(seen) == (answer.status == 200)
    return answer


async def test_a_good_token_is_let_in(front: Front) -> None:
    assert (await with_lines(front, f"Authorization: Bearer {front.token()}")).status == 200


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR"])
async def test_the_scheme_s_case_does_not_matter(front: Front, scheme: str) -> None:
    assert (await with_lines(front, f"Authorization: {scheme} {front.token()}")).status == 200


@pytest.mark.parametrize("name", ["authorization", "AUTHORIZATION"])
async def test_the_field_name_s_case_does_not_matter(front: Front, name: str) -> None:
    assert (await with_lines(front, f"{name}: Bearer {front.token()}")).status == 200


@pytest.mark.parametrize("spaces", [1, 2, 9])
async def test_one_space_or_more_stand_behind_the_scheme(front: Front, spaces: int) -> None:
    # RFC 9110 section 11.4: 1*SP.
    assert (await with_lines(front, f"Authorization: Bearer{' ' * spaces}{front.token()}")).status == 200


async def test_every_character_of_a_b64token_is_taken(front: Front) -> None:
    token = B64TOKEN + front.token() + "=="
    front.server.tokens[token] = {"active": True, "scope": "read", "client_id": "caller"}

    assert (await with_lines(front, f"Authorization: Bearer {token}")).status == 200
    assert front.server.asked.count(token) == 1


async def test_a_token_of_16_kib_is_taken(front: Front) -> None:
    token = front.token().ljust(LONGEST, "x")
    front.server.tokens[token] = {"active": True, "scope": "read", "client_id": "caller"}

    assert (await with_lines(front, f"Authorization: Bearer {token}")).status == 200


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param((), id="no Authorization"),
        pytest.param(("Authorization: Basic YTpi",), id="Basic"),
        pytest.param(("Authorization: DPoP abc",), id="DPoP"),
        pytest.param(("Authorization: Bearerx abc",), id="a longer name"),
        pytest.param(("Authorization:",), id="an empty value"),
        pytest.param(("Proxy-Authorization: Bearer {token}",), id="for a proxy"),
        pytest.param(("X-Authorization: Bearer {token}",), id="another field"),
        pytest.param(("Cookie: access_token={token}",), id="a cookie"),
        pytest.param(("X-Forwarded-Access-Token: {token}",), id="what another gateway would have said"),
    ],
)
async def test_without_a_bearer_token_the_challenge_has_no_error(front: Front, lines: tuple[str, ...]) -> None:
    token = front.token()
    before = front.server.asked.count(token)
    answer = await with_lines(front, *[line.format(token=token) for line in lines])

    assert answer.status == 401
    # Section 3.1: neither an error code nor other error information.
    assert challenge(answer) == {"realm": "protectedservice", "scope": "read"}
    assert front.server.asked.count(token) == before


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(("Authorization: Bearer",), id="no token"),
        pytest.param(("Authorization: Bearer ",), id="a space and no token"),
        pytest.param(("Authorization: Bearer {token} {token}",), id="two tokens"),
        pytest.param(("Authorization: Bearer {token},Bearer {token}",), id="a list"),
        pytest.param(("Authorization: Bearer {token}, Basic YTpi",), id="two schemes in a list"),
        pytest.param(("Authorization: Bearer\t{token}",), id="a tab"),
        pytest.param(("Authorization: Bearer \t{token}",), id="a space and a tab"),
        pytest.param(('Authorization: Bearer "{token}"',), id="quoted"),
        pytest.param(("Authorization: Bearer token={token}",), id="a parameter"),
        pytest.param(("Authorization: Bearer {token}==x",), id="padding within"),
        pytest.param(("Authorization: Bearer ==",), id="padding alone"),
        pytest.param(("Authorization: Bearer {token}%20",), id="percent-encoded"),
        pytest.param(("Authorization: Bearer {token}\u00e9",), id="not ASCII"),
        pytest.param(("Authorization: Bearer {token}*",), id="a character that none may be"),
        pytest.param(("Authorization: Bearer {token}:",), id="a colon"),
        pytest.param(("Authorization: Bearer " + "x" * (LONGEST + 1),), id="over 16 KiB"),
        pytest.param(("Authorization: Bearer {token}", "Authorization: Bearer {token}"), id="twice the same"),
        pytest.param(("Authorization: Basic YTpi", "Authorization: Bearer {token}"), id="another scheme before"),
        pytest.param(("Authorization: Bearer {token}", "authorization: Basic YTpi"), id="another scheme behind"),
        pytest.param(("Authorization: Bearer {token}", "Authorization:"), id="an empty one behind"),
    ],
)
async def test_what_is_malformed_is_400_and_never_asked_about(front: Front, lines: tuple[str, ...]) -> None:
    token = front.token()
    answer = await with_lines(front, *[line.format(token=token) for line in lines])

    assert answer.status == 400
    assert challenge(answer)["error"] == "invalid_request"
    assert token not in front.server.asked


@pytest.mark.parametrize("name", ["access_token", "ACCESS_TOKEN", "token", "bearer_token"])
async def test_a_token_in_the_query_does_not_count(front: Front, name: str) -> None:
    token = front.token()
    answer = await with_lines(front, target=f"{fresh_target('query')}?{name}={token}")

    assert answer.status == 401
    assert "error" not in challenge(answer)
    assert token not in front.server.asked


async def test_a_token_in_the_body_does_not_count(front: Front) -> None:
    token = front.token()
    body = f"access_token={token}"
    lines = ("Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}")
    answer = await with_lines(front, *lines, body=body)

    assert answer.status == 401
    assert token not in front.server.asked


async def test_an_unknown_token_is_401_invalid_token(front: Front) -> None:
    answer = await with_lines(front, "Authorization: Bearer unknown-token")

    assert answer.status == 401
    assert challenge(answer)["error"] == "invalid_token"


@pytest.mark.parametrize(
    ("members", "word"),
    [
        pytest.param({"exp": 1}, "invalid_token", id="expired"),
        pytest.param({"nbf": 4_000_000_000}, "invalid_token", id="not valid yet"),
        pytest.param({"iss": "http://other"}, "invalid_token", id="of another issuer"),
    ],
)
async def test_a_token_that_is_not_good_here_is_401(front: Front, members: dict[str, Any], word: str) -> None:
    answer = await with_lines(front, f"Authorization: Bearer {front.token(**members)}")

    assert answer.status == 401
    assert challenge(answer)["error"] == word


@pytest.mark.parametrize("scope", ["", "write", "READ", "read:all", "reader", "re ad", "read\u00a0", "read,write"])
async def test_a_scope_that_is_missing_is_403_with_the_scope_that_is_needed(front: Front, scope: str) -> None:
    answer = await with_lines(front, f"Authorization: Bearer {front.token(scope)}")

    assert answer.status == 403
    said = challenge(answer)
    assert (said["error"], said["scope"]) == ("insufficient_scope", "read")


async def test_error_answers_are_json_that_no_cache_keeps_and_never_hold_the_token(front: Front) -> None:
    token = front.token("write")
    answer = await with_lines(front, f"Authorization: Bearer {token}")

    assert set(answer.json()) == {"error", "error_description"}
    assert (answer.value("content-type"), answer.value("cache-control")) == ("application/json", "no-store")
    assert token not in repr(answer)


async def test_a_revoked_token_is_refused_with_the_next_request(front: Front) -> None:
    token = front.token()
    before = await with_lines(front, f"Authorization: Bearer {token}")
    front.server.revoke(token)
    after = await with_lines(front, f"Authorization: Bearer {token}")

    assert (before.status, after.status) == (200, 401)
