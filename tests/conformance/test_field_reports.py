"""What went wrong in other gateways, as tests of our own. Each names the report that it stands for."""

from __future__ import annotations

import asyncio
import time

import pytest

from ..support.introspection_server import plain
from .background import Background
from .conversation import ask, head
from .fronts import Front
from .upstreams import fresh_target

CALLERS = 60


async def status(front: Front, target: str, token: str) -> int:
    return (await ask(front.port, head("GET", target, token=token))).status


async def test_a_scope_is_looked_at_on_a_path_that_was_not_the_first_to_see_the_token(remembering: Front) -> None:
    """dadrus/heimdall#3452: a remembered answer skipped the scopes of another rule."""
    token = remembering.token("read")
    before = remembering.server.asked.count(token)
    statuses = [await status(remembering, target, token) for target in ("/orders", "/admin/a", "/orders", "/admin/a")]

    assert statuses == [200, 403, 200, 403]
    assert remembering.server.asked.count(token) == before + 1, (
        "the answer was not remembered: this test proves nothing"
    )


async def test_a_refusal_for_one_path_is_not_remembered_for_another(remembering: Front) -> None:
    """The same the other way round: what is remembered are facts, and never a verdict."""
    token = remembering.token("read")

    assert [await status(remembering, target, token) for target in ("/admin/a", "/orders", "/closed/a", "/orders")] == [
        403,
        200,
        403,
        200,
    ]


async def test_a_remembered_token_is_judged_by_the_scopes_it_has_and_not_by_those_that_were_asked(
    remembering: Front,
) -> None:
    """ory/oathkeeper#743: a token that was remembered passed rules whose scopes it does not have."""
    reader, admin = remembering.token("read"), remembering.token("admin")
    first = [await status(remembering, "/orders", reader), await status(remembering, "/admin/a", admin)]
    crossed = [await status(remembering, "/admin/a", reader), await status(remembering, "/orders", admin)]

    assert first == [200, 200]
    assert crossed == [403, 403]


async def test_a_token_s_own_end_holds_although_it_is_remembered_for_longer(remembering: Front) -> None:
    """heimdall again: a token of 3 s was let in for the whole life of the entry."""
    ends = int(time.time()) + 2
    token = remembering.token(exp=ends)
    first = await status(remembering, "/orders", token)
    async with asyncio.timeout(30):
        while (last := await status(remembering, "/orders", token)) == 200:
            assert time.time() < ends + 1, "let in beyond the token's own end"
            await asyncio.sleep(0.05)

    assert (first, last) == (200, 401)


async def test_many_callers_with_one_unknown_token_are_one_question(remembering: Front, background: Background) -> None:
    """zmartzone/lua-resty-openidc#573: as many questions as there were callers at the moment of a miss."""
    token = remembering.token()
    # The server's loop is another thread's: its event is told there.
    background.call(remembering.server.open.clear)
    try:
        callers = [asyncio.create_task(status(remembering, fresh_target("flight"), token)) for _ in range(CALLERS)]
        async with asyncio.timeout(20):
            while not remembering.server.under_way:  # noqa: ASYNC110 another thread's state, which has no event
                await asyncio.sleep(0.01)
        # Most of those before it have been read now; who was not finds the answer remembered, and asks nothing either.
        assert await status(remembering, fresh_target("behind"), "") == 400
    finally:
        background.call(remembering.server.open.set)
    statuses = await asyncio.gather(*callers)

    assert statuses == [200] * CALLERS
    assert remembering.server.asked.count(token) == 1


@pytest.mark.parametrize(
    ("code", "body"),
    [
        pytest.param(401, '{"error": "invalid_client"}', id="401, the secret was rotated"),
        pytest.param(500, '{"error": "server_error"}', id="500"),
        pytest.param(200, '{"error": "server_error"}', id="200 without active"),
        pytest.param(200, '{"active": "yes"}', id="active is no boolean"),
        pytest.param(200, "null", id="null"),
        pytest.param(200, "[]", id="a list"),
        pytest.param(403, "", id="403 without a body"),
    ],
)
async def test_an_answer_without_active_is_503_and_the_process_lives(front: Front, code: int, body: str) -> None:
    """Kuadrant/authorino#651: such an answer ended the process, and with it every other service."""
    front.server.scripted.append(plain(code, body))
    answer = await ask(front.port, head("GET", fresh_target("odd"), token=front.token()))

    assert (answer.status, answer.values("www-authenticate")) == (503, [])
    assert front.process.poll() is None
    assert (await front.good())[1].status == 200
