"""RFC 7662, Token Introspection: what each kind of answer of the authorization server means for a caller.

An outage is never an answer about a token: 503, and neither 401 nor 200.
"""

from __future__ import annotations

import pytest

from ..support.introspection_server import cut_off, plain
from .conversation import Answer, ask, head
from .fronts import Front
from .upstreams import fresh_target

Scripted = tuple[int, str | bytes]


async def under(front: Front, status: int, body: str | bytes, **headers: str) -> Answer:
    """A request whose question is answered so. Nothing is remembered of it; nobody else notices."""
    mark = front.upstream.mark()
    front.server.scripted.append(plain(status, body, **headers))
    answer = await ask(front.port, head("GET", fresh_target("scripted"), token=front.token()))
    assert not front.server.scripted
    seen = await front.seen_since(mark)
    assert len(seen) == (answer.status == 200)
    return answer


def active(**members: str) -> str:
    rest = "".join(f', "{name}": {value}' for name, value in members.items())
    return f'{{"active": true, "scope": "read"{rest}}}'


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(active(), id="the least"),
        pytest.param(active(unknown='{"deep": [1, null]}'), id="a member nobody knows"),
        pytest.param(active(aud='["a", "b"]', sub='"s"', exp="4000000000"), id="many members"),
        pytest.param(active(exp="4000000000.5"), id="a fraction of a second"),
        pytest.param(active(client_id="null", exp="null"), id="members that are null"),
        pytest.param('\n {"scope": "write  read", "active": true}\n', id="two spaces between scopes"),
        pytest.param('{"active": false, "active": true, "scope": "read"}', id="active twice, the last true"),
    ],
)
async def test_a_clear_yes_lets_in(front: Front, body: str) -> None:
    assert (await under(front, 200, body)).status == 200


@pytest.mark.parametrize(
    "body",
    [
        pytest.param('{"active": false}', id="the least"),
        pytest.param('{"active": false, "scope": "read", "exp": 4000000000}', id="with members of a good one"),
        pytest.param('{"active": false, "exp": "nonsense"}', id="with members that are wrong"),
        pytest.param('{"active": true, "active": false, "scope": "read"}', id="active twice, the last false"),
    ],
)
async def test_a_clear_no_is_401(front: Front, body: str) -> None:
    assert (await under(front, 200, body)).status == 401


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("{}", id="active absent"),
        pytest.param('{"Active": true, "scope": "read"}', id="active by another name"),
        pytest.param('{"active": "true", "scope": "read"}', id="active a string"),
        pytest.param('{"active": 1, "scope": "read"}', id="active a number"),
        pytest.param('{"active": null, "scope": "read"}', id="active null"),
        pytest.param('{"active": [true], "scope": "read"}', id="active a list"),
        pytest.param('[{"active": true, "scope": "read"}]', id="a list"),
        pytest.param("true", id="a boolean"),
        pytest.param("", id="nothing"),
        pytest.param("<html>active: true</html>", id="HTML"),
        pytest.param('{"active": true, "scope": "read"', id="cut"),
        pytest.param('{"active": true, "scope": "read"}{"active": true}', id="two documents"),
        pytest.param("{'active': true}", id="other quotes"),
        pytest.param(b'\xff\xfe{"active": true}', id="not UTF-8"),
        pytest.param('{"active": true, "scope": ["read"]}', id="scope a list"),
        pytest.param(active(exp='"4000000000"'), id="exp a string"),
        pytest.param(active(exp="true"), id="exp a boolean"),
        pytest.param(active(exp="1e999"), id="exp without end"),
        pytest.param(active(exp="1" * 400), id="exp of 400 digits"),
        pytest.param(active(nbf="{}"), id="nbf an object"),
        pytest.param(active(aud='{"a": 1}'), id="aud an object"),
        pytest.param(active(aud="[1]"), id="aud a list of numbers"),
        pytest.param(active(sub="1"), id="sub a number"),
        pytest.param(active(x=f'"{"y" * 64 * 1024}"'), id="over 64 KiB"),
        pytest.param("[" * 20_000, id="very deep"),
        pytest.param(active(x="[" * 2000 + "]" * 2000), id="a very deep member"),
    ],
)
async def test_what_is_no_clear_answer_is_503_and_never_401_or_200(front: Front, body: str | bytes) -> None:
    answer = await under(front, 200, body)

    assert answer.status == 503
    assert int(answer.value("retry-after") or "") >= 1
    assert answer.values("www-authenticate") == []
    assert answer.json()["error"] == "temporarily_unavailable"


@pytest.mark.parametrize(
    "status", [201, 202, 204, 206, 301, 302, 303, 307, 308, 404, 405, 406, 415, 429, 500, 502, 503, 504]
)
async def test_any_other_status_is_503_whatever_the_body_says(front: Front, status: int) -> None:
    body = "" if status == 204 else active()
    answer = await under(front, status, body, Location=front.server.url)

    assert answer.status == 503
    assert int(answer.value("retry-after") or "") >= 1


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("body", ['{"error": "invalid_client"}', '{"active": true, "scope": "read"}', ""])
async def test_a_refusal_of_our_own_credentials_is_503(front: Front, status: int, body: str) -> None:
    answer = await under(front, status, body)

    assert answer.status == 503
    assert answer.values("www-authenticate") == []


@pytest.mark.parametrize("word", ["unsupported_token_type", "invalid_token"])
async def test_a_server_that_blames_the_token_has_said_no(front: Front, word: str) -> None:
    answer = await under(front, 400, f'{{"error": "{word}"}}')

    assert answer.status == 401
    assert 'error="invalid_token"' in (answer.value("www-authenticate") or "")


async def test_a_connection_that_is_cut_is_503(front: Front) -> None:
    front.server.scripted += [cut_off, cut_off]  # a kept connection that turns out to be dead may be replaced once
    answer = await ask(front.port, head("GET", fresh_target("cut"), token=front.token()))
    front.server.scripted.clear()

    assert answer.status == 503
    assert (await front.good())[1].status == 200


async def test_the_server_s_own_wait_is_passed_on(front: Front) -> None:
    answer = await under(front, 503, "", Retry_After="17")

    assert (answer.status, answer.value("retry-after")) == (503, "17")


async def test_many_tokens_that_are_blamed_take_the_service_from_nobody(front: Front) -> None:
    for _ in range(8):
        assert (await under(front, 400, '{"error": "unsupported_token_type"}')).status == 401
