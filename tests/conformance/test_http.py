"""RFC 9110 and 9112: what every HTTP/1.1 server owes its callers. (Where a request ends is in test_smuggling.)"""

from __future__ import annotations

import pytest

from .conversation import NoAnswer, ask, connection, head
from .fronts import PROXIES, Front
from .upstreams import fresh_target

proxies = pytest.mark.parametrize("front", PROXIES, indirect=True)


async def test_head_is_answered_without_a_body(front: Front) -> None:
    target = fresh_target("head")
    async with connection(front.port) as talk:
        await talk.send(head("HEAD", target, token=front.token()))
        answer = await talk.answer("HEAD")
        await talk.send(head("GET", target, "Connection: close", token=front.token()))
        after = await talk.answer()

    assert answer.status == 200
    assert after.body.startswith(f"GET {target}".encode()), "a body behind HEAD would stand here"


@pytest.mark.parametrize("token", [None, "unknown-token"])
async def test_a_refused_head_has_the_status_and_fields_of_get_and_no_body(front: Front, token: str | None) -> None:
    async with connection(front.port) as talk:
        await talk.send(head("HEAD", "/head", token=token))
        first = await talk.answer("HEAD")
        await talk.send(head("GET", "/head", token=token))
        second = await talk.answer()

    assert first.status == second.status == 401
    assert first.value("www-authenticate") == second.value("www-authenticate")
    assert first.value("content-length") in (None, str(len(second.body)))


async def test_options_of_a_path_needs_a_token_like_the_rest(front: Front) -> None:
    mark = front.upstream.mark()
    without = await ask(front.port, head("OPTIONS", "/options"))
    with_token = await ask(front.port, head("OPTIONS", "/options", token=front.token()))
    seen = await front.seen_since(mark)

    assert (without.status, with_token.status) == (401, 200)
    assert [(request.method, request.target) for request in seen] == [("OPTIONS", "/options")]


async def test_a_preflight_without_a_token_is_no_way_in(front: Front) -> None:
    lines = ("Origin: https://elsewhere", "Access-Control-Request-Method: GET")
    mark = front.upstream.mark()
    answer = await ask(front.port, head("OPTIONS", "/preflight", *lines))

    assert answer.status == 401
    assert await front.seen_since(mark) == []


@pytest.mark.parametrize("target", ["*", "svc", "svc:80", "http://", "http:///a", "ftp://svc/a"])
async def test_a_target_that_is_no_path_is_refused(front: Front, target: str) -> None:
    method = "OPTIONS" if target == "*" else "GET"
    mark = front.upstream.mark()
    async with connection(front.port) as talk:
        await talk.send(head(method, target, "Connection: close", token=front.token()))
        try:
            status = (await talk.answer()).status
        except NoAnswer:
            status = 400
    assert await front.seen_since(mark) == []
    assert status in (400, 404, 405, 501)


@pytest.mark.parametrize("method", ["CONNECT", "connect"])
async def test_connect_is_refused(front: Front, method: str) -> None:
    mark = front.upstream.mark()
    async with connection(front.port) as talk:
        await talk.send(head(method, "svc:443", token=front.token()))
        answer = await talk.answer()
        await talk.ended()

    assert answer.status in (400, 405, 501)
    assert await front.seen_since(mark) == []


async def test_the_absolute_form_means_its_path(front: Front) -> None:
    target = fresh_target("absolute")
    mark = front.upstream.mark()
    answer = await ask(front.port, head("GET", f"http://svc{target}?a=b", token=front.token()))
    seen = await front.seen_since(mark)

    assert answer.status == 200
    assert [request.target for request in seen] == [f"{target}?a=b"]


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param((), id="none"),
        pytest.param(("Host: a", "Host: a"), id="two that are the same"),
        pytest.param(("Host: a", "Host: b"), id="two that differ"),
        pytest.param(("Host: a/b",), id="with a path"),
        pytest.param(("Host: user@a",), id="with a user"),
        pytest.param(("Host: a b",), id="with a space"),
        pytest.param(("Host: a, b",), id="a list"),
        pytest.param(("Host: a:port",), id="a port that is no number"),
        pytest.param(("Host: [::1",), id="half of an IPv6 address"),
        pytest.param(("Host: a\\b",), id="a backslash"),
        pytest.param(("Host: a#b",), id="a fragment"),
        pytest.param(("Host: http://a",), id="a URL"),
    ],
)
async def test_a_host_that_names_no_one_place_is_400(front: Front, lines: tuple[str, ...]) -> None:
    mark = front.upstream.mark()
    answer = await ask(front.port, head("GET", "/host", *lines, token=front.token(), host=None))

    assert answer.status == 400
    assert await front.seen_since(mark) == []


@pytest.mark.parametrize("host", ["svc", "svc:8080", "[::1]:80", "192.0.2.1", "a.b-c.example", "svc:"])
async def test_a_host_that_does_is_taken(front: Front, host: str) -> None:
    assert (await ask(front.port, head("GET", "/host", host=host, token=front.token()))).status == 200


async def test_http_1_0_needs_no_host_and_ends_with_its_answer(front: Front) -> None:
    request = f"GET /old HTTP/1.0\r\nAuthorization: Bearer {front.token()}\r\n\r\n".encode()
    async with connection(front.port) as talk:
        await talk.send(request)
        answer = await talk.answer()
        rest = await talk.ended()

    assert answer.status == 200
    assert rest == b""


@proxies
async def test_http_1_0_is_never_answered_in_chunks(front: Front) -> None:
    request = f"GET /trailers-old HTTP/1.0\r\nAuthorization: Bearer {front.token()}\r\n\r\n".encode()
    async with connection(front.port) as talk:
        await talk.send(request)
        answer = await talk.answer()

    assert answer.value("transfer-encoding") is None
    assert answer.body == b"GET /trailers-old 0\n"


async def test_http_1_0_with_keep_alive_goes_on_or_says_that_it_does_not(front: Front) -> None:
    lines = f"GET /old HTTP/1.0\r\nConnection: keep-alive\r\nAuthorization: Bearer {front.token()}\r\n\r\n".encode()
    async with connection(front.port) as talk:
        await talk.send(lines)
        first = await talk.answer()
        if (first.value("connection") or "").lower() == "keep-alive":
            await talk.send(lines)
            assert (await talk.answer()).status == 200
        else:
            await talk.ended()

    assert first.status == 200


async def test_a_connection_is_kept_and_closed_when_asked_for(front: Front) -> None:
    async with connection(front.port) as talk:
        for number in range(5):
            await talk.send(head("GET", f"/kept/{number}", token=front.token()))
            answer = await talk.answer()
            assert (answer.status, answer.closes) == (200, False)
        await talk.send(head("GET", "/last", "Connection: close", token=front.token()))
        last = await talk.answer()
        rest = await talk.ended()

    assert last.closes
    assert rest == b""


async def test_a_connection_that_was_refused_a_token_is_kept(front: Front) -> None:
    async with connection(front.port) as talk:
        await talk.send(head("GET", "/first"))
        first = await talk.answer()
        await talk.send(head("GET", "/second", token=front.token()))
        second = await talk.answer()

    assert (first.status, second.status) == (401, 200)


async def test_close_among_other_words_ends_the_connection_too(front: Front) -> None:
    async with connection(front.port) as talk:
        await talk.send(head("GET", "/words", "Connection: x-thing, Close", token=front.token()))
        answer = await talk.answer()
        await talk.ended()

    assert answer.status == 200


async def test_pipelined_requests_are_answered_in_order_each_by_its_own_token(front: Front) -> None:
    mark = front.upstream.mark()
    good, unknown = front.token(), "unknown-token"
    tokens = [good, None, good, unknown, good, good, None, good]
    targets = [fresh_target("pipelined") for _ in tokens]
    request = b"".join(head("GET", target, token=token) for target, token in zip(targets, tokens, strict=True))
    async with connection(front.port) as talk:
        await talk.send(request)
        answers = [await talk.answer() for _ in tokens]
    seen = await front.seen_since(mark)

    assert [answer.status for answer in answers] == [200 if token == good else 401 for token in tokens]
    for target, token, answer in zip(targets, tokens, answers, strict=True):
        assert token != good or answer.body.startswith(f"GET {target} ".encode())
    assert [request.target for request in seen] == [
        t for t, token in zip(targets, tokens, strict=True) if token == good
    ]


async def test_pipelined_bodies_stay_with_their_requests(front: Front) -> None:
    mark = front.upstream.mark()
    bodies = [b"a" * 10, b"", b"b" * 20_000, b"GET /x HTTP/1.1\r\n\r\n", b"c"]
    token = front.token()
    sent = b"".join(
        head("POST", f"/body/{number}", f"Content-Length: {len(body)}", token=token) + body
        for number, body in enumerate(bodies)
    )
    async with connection(front.port) as talk:
        await talk.send(sent)
        answers = [await talk.answer("POST") for _ in bodies]
    seen = await front.seen_since(mark)

    assert [answer.status for answer in answers] == [200] * len(bodies)
    assert [request.body for request in seen] == bodies


async def test_a_caller_that_waits_for_100_sends_its_body_after_it(front: Front) -> None:
    mark = front.upstream.mark()
    lines = ("Expect: 100-continue", "Content-Length: 5")
    async with connection(front.port) as talk:
        await talk.send(head("POST", "/expect", *lines, token=front.token()))
        assert (await talk.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        await talk.send(b"hello")
        answer = await talk.answer("POST")
    seen = await front.seen_since(mark)

    assert answer.status == 200
    assert [request.body for request in seen] == [b"hello"]


async def test_a_caller_that_waits_for_100_is_refused_before_it_sends(front: Front) -> None:
    async with connection(front.port) as talk:
        await talk.send(head("POST", "/expect", "Expect: 100-continue", "Content-Length: 1000000"))
        answer = await talk.answer("POST")
        await talk.ended()

    assert (answer.status, answer.interim) == (401, ())


async def test_http_1_0_is_never_sent_an_interim_answer(front: Front) -> None:
    token = front.token()
    request = (
        f"POST /old HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\nAuthorization: Bearer {token}\r\n\r\nhi"
    )
    assert (await ask(front.port, request.encode(), "POST")).interim == ()


@proxies
async def test_trailers_of_a_request_reach_the_upstream(front: Front) -> None:
    mark = front.upstream.mark()
    lines = ("Transfer-Encoding: chunked", "Trailer: X-Sum", "TE: trailers")
    body = b"5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n"
    answer = await ask(front.port, head("POST", "/sent", *lines, token=front.token()) + body, "POST")
    seen = await front.seen_since(mark)

    assert answer.status == 200
    assert [request.body for request in seen] == [b"hello"]
    assert seen[0].values("trailer x-sum") == ["42"]


@pytest.mark.parametrize(
    "name", ["Authorization", "Host", "Content-Length", "Transfer-Encoding", "X-Auth-Subject", "Cookie"]
)
async def test_what_routes_or_authorizes_is_nothing_in_a_trailer(front: Front, name: str) -> None:
    mark = front.upstream.mark()
    value = {"Authorization": f"Bearer {front.token()}", "Content-Length": "70"}.get(name, "chunked")
    body = f"5\r\nhello\r\n0\r\n{name}: {value}\r\n\r\n".encode()
    async with connection(front.port) as talk:
        await talk.send(head("POST", "/trailing", "Transfer-Encoding: chunked") + body)
        without = await talk.answer("POST")
    await ask(front.port, head("POST", "/trailing", "Transfer-Encoding: chunked", token=front.token()) + body, "POST")
    seen = await front.seen_since(mark)

    assert without.status == 401
    for request in seen:
        assert request.body == b"hello"
        assert value not in request.values(name.lower()) or name == "Transfer-Encoding"
        assert request.values(f"trailer {name.lower()}") == []


@proxies
async def test_trailers_of_an_answer_reach_the_caller(front: Front) -> None:
    answer = await ask(front.port, head("GET", "/trailers", "TE: trailers", token=front.token()))

    assert (answer.status, answer.trailers) == (200, (("x-sum", "42"),))


@proxies
async def test_interim_answers_of_the_upstream_reach_the_caller(front: Front) -> None:
    answer = await ask(front.port, head("GET", "/hints", token=front.token()))

    assert (answer.status, answer.interim) == (200, (103,))


@proxies
@pytest.mark.parametrize(
    "name",
    [
        "X-Auth-Client-Id",
        "x-auth-subject",
        "X_Auth_Scope",
        "X-AUTH_SUBJECT",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "Forwarded",
    ],
)
async def test_nobody_can_say_who_they_are_but_by_their_token(front: Front, name: str) -> None:
    mark = front.upstream.mark()
    await ask(front.port, head("GET", "/identity", f"{name}: an-intruder", token=front.token(sub="alice")))
    (seen,) = await front.seen_since(mark)

    assert "an-intruder" not in repr(seen.fields)
    assert seen.values("x-auth-subject") == ["alice"]
    assert seen.values("authorization") == []


@proxies
async def test_fields_that_concern_one_connection_end_at_it(front: Front) -> None:
    mark = front.upstream.mark()
    lines = (
        "Connection: X-Private, keep-alive",
        "X-Private: 1",
        "Keep-Alive: timeout=5",
        "Proxy-Authorization: Basic YTpi",
        "TE: gzip",
        "X-Kept: 1",
    )
    answer = await ask(front.port, head("GET", "/hop", *lines, token=front.token()))
    (seen,) = await front.seen_since(mark)

    assert answer.status == 200
    assert seen.values("x-kept") == ["1"]
    assert [name for name in ("x-private", "keep-alive", "proxy-authorization", "te") if seen.values(name)] == []
