"""No front end sees a request where another reader would see two, or the other way round.

Each entry of the corpus is sent, then a request on the same connection, then one on another: whoever is out of step
answers one of them wrongly, or shows the upstream something else.
"""

from __future__ import annotations

import pytest

from .conversation import Answer, Conversation, NoAnswer, connection, head
from .fronts import Front
from .smuggling import CORPUS, REFUSED, WAITS, Case, Outcome, fill
from .upstreams import Seen, fresh_target

PATIENCE = 0.7
"""Seconds after which a front is taken to wait for more, where the entry allows that."""

REFUSALS = frozenset({400, 405, 408, 411, 413, 414, 417, 426, 431, 501, 505})


async def _sent(talk: Conversation, data: bytes, apart: bool) -> None:
    await (talk.send_apart(data) if apart else talk.send(data))


async def outcome(front: Front, case: Case, apart: bool = False) -> tuple[Outcome, list[Seen]]:
    """What came of an entry; and what else the upstream saw, which must be nothing."""
    host = f"Host: svc\r\nAuthorization: Bearer {front.token()}\r\n".encode()
    mark = front.upstream.mark()
    after = fresh_target("after")
    answers: list[Answer] = []
    waits = False
    async with connection(front.port) as talk:
        await _sent(talk, fill(case.data, host), apart)
        try:
            answers.append(await talk.answer(deadline=PATIENCE if WAITS in case.allowed else 20.0))
            if not answers[0].closes:
                await talk.send(head("GET", after, "Connection: close", token=front.token()))
                answers.append(await talk.answer())
            rest = await talk.ended()
            assert rest == b"", f"more answers than requests: {rest[:200]!r}"
        except NoAnswer:
            pass
        except TimeoutError:
            assert WAITS in case.allowed, "neither an answer nor the end of the connection"
            waits = True
    seen = await front.seen_since(mark)
    if seen and seen[-1].target == after:
        assert answers[-1].body.startswith(f"GET {after}".encode())
        seen.pop()
    if seen and answers and answers[0].status == 200 and seen[0].target == case.target:
        return fill_back(seen.pop(0).body, host), seen
    if waits:
        return WAITS, seen
    if case.target == "/early" and not seen and answers and answers[0].body.endswith(b" early\n"):
        return b"", seen  # who was answered early need not send the upstream the rest: nobody read the body
    assert not answers or answers[0].status in REFUSALS, answers
    may_go_on = case.framed or any(isinstance(allowed, bytes) for allowed in case.allowed)
    assert may_go_on or len(answers) < 2, "refused, and still went on: what follows could be a part of what was refused"
    return REFUSED, seen


def fill_back(body: bytes, host: bytes) -> bytes:
    """A body as the corpus writes it."""
    return body.replace(host, b"%(host)s")


@pytest.mark.parametrize("case", CORPUS, ids=str)
async def test_a_request_ends_where_every_reader_sees_its_end(front: Front, case: Case) -> None:
    came, more = await outcome(front, case)

    assert more == []
    assert came in case.allowed


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CORPUS if len(case.data) < 1000], ids=str)
async def test_the_same_holds_when_each_byte_comes_in_a_packet_of_its_own(front: Front, case: Case) -> None:
    came, more = await outcome(front, case, apart=True)

    assert more == []
    assert came in case.allowed


@pytest.mark.slow
@pytest.mark.parametrize("case", CORPUS, ids=str)
async def test_a_real_upstream_agrees_where_each_request_ends(before_real: Front, case: Case) -> None:
    came, more = await outcome(before_real, case)

    assert more == []
    assert came in case.allowed
