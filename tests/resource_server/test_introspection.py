"""What an introspection answer means, and the credentials it is asked with."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protectedservice_server import introspection_response, policy_file
from protectedservice_server.credentials import Credentials, CredentialsError, read
from protectedservice_server.decision import INACTIVE, Facts
from protectedservice_server.introspection import LARGEST_ANSWER, Introspection
from protectedservice_server.introspection_response import facts_of
from protectedservice_server.question import RefusedUs, Unavailable

from ..support.asking import Awaited, ask
from ..support.introspection_server import Answer, IntrospectionServer, cut_off, plain
from .running import policy_text


def test_every_member_is_read() -> None:
    body = {
        "active": True, "scope": " read  write ", "client_id": "c", "sub": "s", "username": "u",
        "aud": ["a", "b"], "iss": "i", "exp": 12, "nbf": 1.5, "extra": {"x": [1]},
    }  # fmt: skip

    assert facts_of(json.dumps(body).encode()) == Facts(
        active=True,
        scope="read write",
        scopes=frozenset({"read", "write"}),
        client_id="c",
        sub="s",
        username="u",
        aud=("a", "b"),
        iss="i",
        exp=12.0,
        nbf=1.5,
    )


def test_an_audience_may_be_one_string_and_members_may_be_absent_or_null() -> None:
    assert facts_of(b'{"active": true, "aud": "a", "scope": null, "exp": null}') == Facts(active=True, aud=("a",))


TEXTS = st.sampled_from(["", "read", " a  b ", "\u00e4", "\ud800", "\x00"])
VALUES = st.one_of(
    st.sampled_from([None, True, False, 0, -1, 1.5, 10**18, 10**30, 10**400]), TEXTS, st.lists(TEXTS, max_size=2)
)
MEMBERS = ["scope", "client_id", "sub", "username", "aud", "iss", "exp", "nbf", "other"]


@given(st.one_of(st.just(True), VALUES), st.dictionaries(st.sampled_from(MEMBERS), VALUES), st.booleans())
def test_the_short_way_of_reading_says_what_the_long_one_says(
    active: object, members: dict[str, Any], ascii_only: bool
) -> None:
    body = json.dumps({**members, "active": active}, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")

    def read_by(way: Callable[[bytes], object]) -> object:
        try:
            return way(body)
        except Unavailable as failure:
            return failure.kind, failure.counts

    with pytest.MonkeyPatch.context() as patch:
        short = read_by(facts_of)
        patch.setattr(introspection_response, "_read", lambda data: None)
        assert read_by(facts_of) == short


def test_nothing_but_active_counts_in_an_inactive_answer() -> None:
    assert facts_of(b'{"active": false, "scope": 7, "exp": "soon"}') is INACTIVE


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "not_json"),
        (b"<html>", "not_json"),
        (b'{"active": true', "not_json"),
        (b"[]", "not_json"),
        (b"true", "not_json"),
        (b'{"active": true, "sub": "\xff"}', "not_json"),
        (b'{"active": true, "of no interest": "\xff"}', "not_json"),
        (b"[" * 60_000, "not_json"),
        (b"{}", "active_absent"),
        (b'{"active": null}', "active_absent"),
        (b'{"active": "true"}', "active_absent"),
        (b'{"active": 1}', "active_absent"),
        (b'{"active": true, "scope": ["read"]}', "malformed"),
        (b'{"active": true, "exp": "1"}', "malformed"),
        (b'{"active": true, "exp": true}', "malformed"),
        (b'{"active": true, "exp": 1' + b"0" * 400 + b"}", "malformed"),
        (b'{"active": true, "aud": 1}', "malformed"),
        (b'{"active": true, "aud": ["a", 1]}', "malformed"),
        (b'{"active": true, "sub": {}}', "malformed"),
    ],
)
def test_an_answer_that_cannot_be_trusted_is_an_outage(body: bytes, kind: str) -> None:
    with pytest.raises(Unavailable) as caught:
        facts_of(body)

    assert caught.value.kind in (kind, "not_json")


@asynccontextmanager
async def client(
    server: IntrospectionServer, reread: Callable[[], Credentials] | None = None, retries: int = 1
) -> AsyncIterator[Introspection]:
    policy = policy_file.parse(policy_text(server, validation={"retries": retries}))
    held = Credentials(server.client_id, server.client_secret)
    introspection = Introspection(policy, held, reread or (lambda: held))
    try:
        yield introspection
    finally:
        await introspection.close()


@pytest.mark.parametrize(
    ("answer", "kind", "retry_after"),
    [
        (plain(500, "{}"), "status_5xx", None),
        (plain(503, "busy", "text/plain", retry_after="7"), "status_5xx", 7.0),
        (plain(429, "{}", retry_after="999999"), "status_4xx", 300.0),
        (plain(429, "{}", retry_after="Wed, 21 Oct 2026 07:28:00 GMT"), "status_4xx", None),
        (plain(404, "nothing here"), "status_4xx", None),
        (plain(302, "", location="/elsewhere"), "status_3xx", None),
        (plain(201, '{"active": true}'), "status_2xx", None),
        (plain(400, "oops", "text/plain"), "status_4xx", None),
        (plain(400, '{"error": "server_error"}'), "status_4xx", None),
        (
            plain(400, '{"error": "invalid_request", "error_description": "token parameter is missing"}'),
            "status_4xx",
            None,
        ),
        (plain(200, "<html>login</html>", "text/html"), "not_json", None),
        (plain(200, '{"active": tr'), "not_json", None),
        (plain(200, '{"scope": "read"}'), "active_absent", None),
        (plain(200, b'{"active": true, "x": "' + b"y" * LARGEST_ANSWER + b'"}'), "too_large", None),
    ],
)
async def test_everything_that_is_no_clear_answer_is_an_outage(
    answer: Answer, kind: str, retry_after: float | None
) -> None:
    async with IntrospectionServer(always=answer) as server, client(server) as introspect:
        with pytest.raises(Unavailable) as caught:
            await ask(introspect, server.issue())

    assert not isinstance(caught.value, RefusedUs)
    assert (caught.value.kind, caught.value.retry_after) == (kind, retry_after)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "body",
    [
        '{"error": "unsupported_token_type", "error_description": "structured JWT tokens are not supported"}',
        '{"error": "invalid_token"}',
        '{"error": "invalid_request", "error_description": "the token has a bad format"}',
    ],
)
async def test_a_refusal_that_blames_the_token_is_an_answer_about_the_token(body: str) -> None:
    async with IntrospectionServer(always=plain(400, body)) as server, client(server) as introspect:
        learnt = await ask(introspect, "eyJ.eyJ.x")

    assert learnt.blames_token
    assert not learnt.facts.active


async def test_a_lost_connection_is_tried_again_as_often_as_the_policy_says() -> None:
    async with IntrospectionServer() as server, client(server, retries=2) as introspect:
        token = server.issue()
        server.scripted.extend([cut_off, cut_off])
        learnt = await ask(introspect, token)

    assert learnt.facts.active
    assert len(server.asked) == 3


async def test_a_question_that_is_given_up_ends_its_connection_and_tells_nothing() -> None:
    async with IntrospectionServer() as server, client(server) as introspect:
        awaited = Awaited()
        asking = introspect("t", awaited)
        async with asyncio.timeout(10):
            while not introspect.pool.open:  # noqa: ASYNC110 a connection has no event
                await asyncio.sleep(0)
        asking.give_up()
        await asyncio.sleep(0)

        assert introspect.pool.open == 0
        assert not awaited.outcome.done()


async def test_nor_is_it_tried_again() -> None:
    async with IntrospectionServer(always=cut_off) as server, client(server, retries=3) as introspect:
        awaited = Awaited()
        asking = introspect("t", awaited)
        async with asyncio.timeout(10):
            while asking._pause is None:  # noqa: ASYNC110 the pause has no event
                await asyncio.sleep(0)
        asking.give_up()

        assert asking._pause.cancelled()
        assert not awaited.outcome.done()
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        None,
        plain(503, "busy"),
        plain(400, '{"error": "server_error"}'),
        plain(200, "<html>"),
        plain(401, "{}"),
        cut_off,
    ],
    ids=["good", "503", "400", "no JSON", "401", "lost connection"],
)
async def test_a_question_that_has_ended_is_held_by_nobody_nor_is_its_token(answer: Answer | None) -> None:
    async with IntrospectionServer() as server, client(server, retries=1) as introspect:
        server.scripted.extend([answer] if answer is not None else [])
        awaited = Awaited()
        gc.disable()
        try:
            asking = weakref.ref(introspect(server.issue(), awaited))
            async with asyncio.timeout(10):
                await asyncio.wait([awaited.outcome])
            await asyncio.sleep(0)
            assert asking() is None
        finally:
            gc.enable()
        awaited.outcome.exception()


async def test_credentials_that_cannot_be_read_for_a_reason_nobody_foresaw_are_a_fault_of_our_own() -> None:
    def broken() -> Credentials:
        raise ZeroDivisionError

    async with IntrospectionServer(always=plain(401, "{}")) as server, client(server, broken) as introspect:
        with pytest.raises(ZeroDivisionError):
            await ask(introspect, "t")


async def test_without_retries_the_first_lost_connection_is_an_outage() -> None:
    async with IntrospectionServer(always=cut_off) as server, client(server, retries=0) as introspect:
        with pytest.raises(Unavailable, match="connection"):
            await ask(introspect, "t")

    assert len(server.asked) == 1


async def test_a_server_that_is_not_there_is_an_outage() -> None:
    async with IntrospectionServer() as server:
        pass
    async with client(server) as introspect:
        with pytest.raises(Unavailable, match="connection"):
            await ask(introspect, "t")


@pytest.mark.parametrize(
    "refusal", [plain(401, "{}"), plain(403, ""), plain(400, '{"error": "invalid_client"}')], ids=["401", "403", "400"]
)
async def test_refused_credentials_are_read_again_and_not_repeated_when_they_are_the_same(refusal: Answer) -> None:
    readings: list[str] = []
    async with IntrospectionServer(always=refusal) as server:
        held = Credentials(server.client_id, server.client_secret)

        def again() -> Credentials:
            readings.append("read")
            return held

        async with client(server, again) as introspect:
            with pytest.raises(RefusedUs):
                await ask(introspect, "t")

    assert readings == ["read"]
    assert len(server.asked) == 1


async def test_changed_credentials_are_used_at_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with IntrospectionServer() as server:
        token, old = server.issue(), server.client_secret
        fresh = Credentials(server.client_id, "a new secret/with+signs:%")
        async with client(server, lambda: fresh) as introspect:
            server.client_secret = fresh.client_secret
            first = await ask(introspect, token)
            second = await ask(introspect, token)

    assert first.facts.active
    assert second.facts.active
    assert len(server.asked) == 3  # refused once, asked again, and then right from the start
    assert not [secret for secret in (old, fresh.client_secret, token) if secret in caplog.text]


async def test_a_second_refusal_is_told_as_such() -> None:
    async with (
        IntrospectionServer(always=plain(401, "{}")) as server,
        client(server, lambda: Credentials("other", "other")) as introspect,
    ):
        with pytest.raises(RefusedUs):
            await ask(introspect, "t")

    assert len(server.asked) == 2


async def test_a_folder_that_cannot_be_read_leaves_the_old_credentials_in_use() -> None:
    def broken() -> Credentials:
        raise CredentialsError(["client_id: cannot be read"])

    async with IntrospectionServer() as server, client(server, broken) as introspect:
        token = server.issue()
        server.scripted.append(plain(401, "{}"))
        with pytest.raises(RefusedUs):
            await ask(introspect, token)
        learnt = await ask(introspect, token)

    assert learnt.facts.active


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post", "none"])
async def test_it_says_who_it_is_as_the_policy_has_it_and_in_no_other_way(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "with a+sign/and %41:more"
    async with IntrospectionServer(client_secret=secret, authentication=method) as server:
        document = json.loads(policy_text(server))
        document["authorizationServers"][0]["introspection"] = {"clientAuthentication": method}
        held = Credentials(server.client_id, secret)
        introspection = Introspection(policy_file.parse(json.dumps(document)), held, lambda: held)
        token = server.issue()
        try:
            learnt = await ask(introspection, token)
        finally:
            await introspection.close()

    assert learnt.facts.active
    assert len(server.asked) == 1
    assert secret not in caplog.text


async def test_many_questions_share_connections_and_do_not_mix_answers() -> None:
    async with IntrospectionServer() as server, client(server) as introspect:
        tokens = [server.issue(sub=str(number)) for number in range(50)]
        learnt = await asyncio.gather(*(ask(introspect, token) for token in tokens))

    assert [one.facts.sub for one in learnt] == [str(number) for number in range(50)]


def folder(place: Path, client_id: bytes | None, client_secret: bytes | None) -> Path:
    for name, content in (("client_id", client_id), ("client_secret", client_secret)):
        if content is not None:
            (place / name).write_bytes(content)
    return place


def test_credentials_are_form_urlencoded_before_they_are_joined(tmp_path: Path) -> None:
    held = read(folder(tmp_path, b"a+b/c:d\n", b"100% & more\r\n"))

    assert held == Credentials("a+b/c:d", "100% & more")
    assert held.basic() == "Basic YSUyQmIlMkZjJTNBZDoxMDAlMjUrJTI2K21vcmU="
    assert "100%" not in repr(held)


@pytest.mark.parametrize(
    ("client_id", "client_secret", "faults"),
    [
        (None, None, ["client_id: cannot be read", "client_secret: cannot be read"]),
        (b"", b"s", ["client_id: is empty"]),
        (b"c", b"\n", ["client_secret: is empty"]),
        (b"c", b"s3cr3t\nsecond", ["client_secret: must be one line"]),
        (b"c", b"s3cr3t\xc3\xa4", ["client_secret: must be one line"]),
        (b"c\x00", b"s3cr3t" * 1000, ["client_id: must be one line", "client_secret: is larger"]),
    ],
)
def test_every_fault_of_a_folder_is_told_and_no_content(
    tmp_path: Path, client_id: bytes | None, client_secret: bytes | None, faults: list[str]
) -> None:
    with pytest.raises(CredentialsError) as caught:
        read(folder(tmp_path, client_id, client_secret))

    told = [fault.removeprefix(f"{tmp_path}/") for fault in caught.value.faults]
    assert len(told) == len(faults)
    assert all(found.startswith(fault) for found, fault in zip(told, faults, strict=True))
    assert "s3cr3t" not in str(caught.value)


def test_a_mounted_secret_is_read_from_one_version(tmp_path: Path) -> None:
    for version in ("..1", "..2"):
        (tmp_path / version).mkdir()
        folder(tmp_path / version, f"id{version}".encode(), f"secret{version}".encode())
    for name in ("client_id", "client_secret"):
        (tmp_path / name).symlink_to(Path("..data") / name)
    (tmp_path / "..data").symlink_to("..1")
    first = read(tmp_path)
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").rename(tmp_path / "..data")

    assert first == Credentials("id..1", "secret..1")
    assert read(tmp_path) == Credentials("id..2", "secret..2")
