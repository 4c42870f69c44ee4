"""What was matched is what is forwarded: a path either reaches the upstream byte by byte, or does not at all."""

from __future__ import annotations

import pytest

from .conversation import NoAnswer, connection, head
from .fronts import Front

SAME = True
REFUSED = False

PATHS = [
    ("/a", SAME),
    ("/", SAME),
    ("/a/", SAME),
    ("/A/b", SAME),
    ("/a//b", SAME),
    ("//a", SAME),
    ("/a///", SAME),
    ("/a;b=c/d", SAME),
    ("/a;jsessionid=1", SAME),
    ("/a:b", SAME),
    ("/a@b", SAME),
    ("/...", SAME),
    ("/.a", SAME),
    ("/a.", SAME),
    ("/..a", SAME),
    ("/%7Ea", SAME),
    ("/%7ea", SAME),
    ("/~a", SAME),
    ("/a%20b", SAME),
    ("/%C3%A4", SAME),
    ("/%c3%a4", SAME),
    ("/%41dmin", SAME),
    ("/a?b=../c", SAME),
    ("/a?b=%2f%00", SAME),
    ("/a?b?c", SAME),
    ("/a?", "/a?|/a"),
    ("/a?b=c&b=d", SAME),
    ("/a?b=%zz", SAME),
    ("/a+b", SAME),
    ("/a,b", SAME),
    ("/$a!'()*", SAME),
    ("/.", REFUSED),
    ("/..", REFUSED),
    ("/./a", REFUSED),
    ("/a/.", REFUSED),
    ("/a/./b", REFUSED),
    ("/a/..", REFUSED),
    ("/a/../b", REFUSED),
    ("/../a", REFUSED),
    ("//../a", REFUSED),
    ("/%2e", REFUSED),
    ("/%2e%2e", REFUSED),
    ("/%2E%2E/a", REFUSED),
    ("/a/%2e./b", REFUSED),
    ("/a/.%2e/b", REFUSED),
    ("/a/..;/b", REFUSED),
    ("/a/..;x=y/b", REFUSED),
    ("/a/.;/b", REFUSED),
    ("/a/%2e%2e;/b", REFUSED),
    ("/a/..%3b/b", REFUSED),
    ("/a/..%3B/b", REFUSED),
    ("/a%2fb", REFUSED),
    ("/a%2Fb", REFUSED),
    ("/a%2f..%2fb", REFUSED),
    ("/a%5cb", REFUSED),
    ("/a%5Cb", REFUSED),
    ("/a\\b", REFUSED),
    ("/a\\..\\b", REFUSED),
    ("/..\\a", REFUSED),
    ("/a%00", REFUSED),
    ("/a%00.html", REFUSED),
    ("/a%0a", REFUSED),
    ("/a%0d%0aX: y", REFUSED),
    ("/a%0d%0aX:%20y", REFUSED),
    ("/a%7f", REFUSED),
    ("/a%252e", REFUSED),
    ("/a%252fb", REFUSED),
    ("/%252e%252e/b", REFUSED),
    ("/a%25", REFUSED),
    ("/a%", REFUSED),
    ("/a%2", REFUSED),
    ("/a%zz", REFUSED),
    ("/a%u002f", REFUSED),
    ("/%c0%af", REFUSED),
    ("/%c0%ae%c0%ae/a", REFUSED),
    ("/%e0%80%af", REFUSED),
    ("/%ff", REFUSED),
    ("/%ed%a0%80", REFUSED),
    ("/\u00e4", REFUSED),
    ("/a#b", REFUSED),
    ("/a#/../b", REFUSED),
    ('/a"b', REFUSED),
    ("/a<b>", REFUSED),
    ("/a?b=\u00e4", REFUSED),
    ("/a?b#c", REFUSED),
]


@pytest.mark.parametrize(("target", "passes"), PATHS, ids=[repr(target) for target, _ in PATHS])
@pytest.mark.parametrize("form", ["origin", "absolute"])
async def test_a_path_reaches_the_upstream_as_it_was_sent_or_not_at_all(
    front: Front, form: str, target: str, passes: bool | str
) -> None:
    mark = front.upstream.mark()
    sent = target if form == "origin" else f"http://svc{target}"
    async with connection(front.port) as talk:
        await talk.send(head("GET", sent, "Connection: close", token=front.token()))
        try:
            status = (await talk.answer()).status
        except NoAnswer:
            status = 400
    seen = [request.target for request in await front.seen_since(mark)]

    if passes:
        assert status == 200
        assert len(seen) == 1
        assert seen[0] in (passes.split("|") if isinstance(passes, str) else [target])
    else:
        assert (status, seen) == (400, [])


@pytest.mark.parametrize("target", ["/.well-known/protectedservice/check", "/.well-known/protectedservice/check?a=b"])
async def test_the_reserved_path_is_never_forwarded(front: Front, target: str) -> None:
    mark = front.upstream.mark()
    async with connection(front.port) as talk:
        await talk.send(head("GET", target))
        without = await talk.answer()
        await talk.send(head("GET", target, token=front.token()))
        with_token = await talk.answer()

    assert (without.status, with_token.status) == (401, 204)
    assert await front.seen_since(mark) == []
