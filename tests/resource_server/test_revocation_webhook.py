"""Whoever has the secret may tell of revoked tokens; nobody else, and nothing else."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote_plus

import pytest

from protectedservice_server.http1.server import HttpServer
from protectedservice_server.http1.ticker import Ticker
from protectedservice_server.management import Management
from protectedservice_server.metrics import Metrics
from protectedservice_server.revocation_webhook import LARGEST_BODY, RevocationWebhook, Secret, SecretError

from ..support.introspection_server import IntrospectionServer
from .running import service
from .wire import ask

SECRET = "a-secret-that-nobody-guesses"
TOKEN = "a.revoked~token+/="
FORM = (b"content-type", b"application/x-www-form-urlencoded")


@dataclass
class Hook:
    file: Path
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.file.write_text(SECRET + "\n")
        self.webhook = RevocationWebhook(Secret(self.file), self.told.append)

    def post(
        self,
        body: bytes = b"token=" + quote_plus(TOKEN).encode(),
        *,
        authorization: Sequence[str] = (f"Bearer {SECRET}",),
        kind: tuple[bytes, bytes] | None = FORM,
        method: str = "POST",
    ) -> int:
        headers = [(b"Authorization", value.encode()) for value in authorization]
        refusal = self.webhook.refusal(method, [*headers, *([kind] if kind else [])])
        return (refusal or self.webhook.answer(body)).status


@pytest.fixture
def hook(tmp_path: Path) -> Hook:
    return Hook(tmp_path / "secret")


def test_a_told_token_is_forgotten_whether_anything_was_known_of_it_or_not(hook: Hook) -> None:
    assert hook.post() == 204
    assert hook.post(b"token_type_hint=access_token&token=x") == 204
    assert hook.post(b"token=x", kind=(b"Content-Type", b"Application/X-WWW-Form-Urlencoded; charset=UTF-8")) == 204
    assert hook.told == [TOKEN, "x", "x"]


@pytest.mark.parametrize(
    "authorization",
    [
        [],
        ["Bearer"],
        [f"Bearer {SECRET}x"],
        [f"Bearer {SECRET[:-1]}"],
        [f"Bearer {SECRET.upper()}"],
        [f"Basic {SECRET}"],
        [SECRET],
        ["Bearer missing"],
        ["Bearer malformed"],
        [f"Bearer {SECRET}", f"Bearer {SECRET}"],
        ["Bearer é"],
    ],
)
def test_without_the_secret_nothing_is_done_and_401_is_the_answer_to_everything(
    hook: Hook, authorization: list[str]
) -> None:
    assert hook.post(authorization=authorization) == 401
    assert hook.post(b"nonsense", authorization=authorization, method="GET", kind=None) == 401
    assert hook.told == []


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"token", b"token=", b"Token=x", b"token=a&token=b", b"token=a%20b", b"token=%C3%A9", b"token=\xff"),
        *(b'{"token": "x"}', b"token=x&broken", b"token=" + b"x" * (16 * 1024 + 1), b"a=1&" * 8 + b"token=x"),
        b"token=x&pad=" + b"x" * LARGEST_BODY,
    ],
)
def test_a_body_that_holds_no_single_token_is_400(hook: Hook, body: bytes) -> None:
    assert hook.post(body) == 400
    assert hook.told == []


@pytest.mark.parametrize("kind", [None, (b"content-type", b"application/json")])
def test_another_type_of_body_is_400_and_another_method_405(hook: Hook, kind: tuple[bytes, bytes] | None) -> None:
    assert hook.post(kind=kind) == 400
    assert hook.post(method="GET") == 405
    assert hook.told == []


def test_a_changed_secret_holds_at_once_and_the_old_one_no_more(hook: Hook) -> None:
    hook.file.write_text("another-secret-of-length")

    assert hook.post() == 401
    assert hook.post(authorization=["Bearer another-secret-of-length"]) == 204


def test_the_old_secret_holds_while_the_file_cannot_be_used_and_the_log_says_why_without_it(
    hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hook.file.unlink()

    assert hook.post() == 204
    assert "cannot be read" in caplog.text
    assert SECRET not in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "cannot be read: No such file"),
        ("", "must hold 16 to 4096 characters"),
        ("x" * 15 + "\n", "must hold 16 to 4096 characters"),
        ("x" * 4097, "must hold 16 to 4096 characters"),
        ("hunter2 hunter2 hunter2", "must be one line of letters"),
        ("hunter2hunter2hunter2\nx", "must be one line of letters"),
    ],
)
def test_a_secret_that_cannot_be_used_is_refused_by_the_file_s_name(
    tmp_path: Path, content: str | None, fault: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_text(content)

    with pytest.raises(SecretError) as caught:
        Secret(file)

    assert str(caught.value).startswith(f"{file}: {fault}")
    assert "hunter2" not in str(caught.value)


async def test_the_service_port_knows_no_such_path(server: IntrospectionServer) -> None:
    async with service(server) as running:
        assert (await ask(running.port, "/revoked", method="POST", token=SECRET)).status == 404


@asynccontextmanager
async def management_port(webhook: RevocationWebhook | None) -> AsyncIterator[int]:
    front = HttpServer(Management(Metrics(), webhook), ticker=Ticker())
    listening = socket.create_server(("127.0.0.1", 0))
    await front.start(listening)
    try:
        yield listening.getsockname()[1]
    finally:
        front.close()


async def told(port: int, body: bytes, secret: str | None = SECRET) -> int:
    headers = [("Content-Type", "application/x-www-form-urlencoded")]
    return (await ask(port, "/revoked", method="POST", headers=headers, token=secret, body=body)).status


async def test_the_management_port_reads_the_body_only_of_who_shows_the_secret_and_only_so_far(hook: Hook) -> None:
    endless = b"token=" + b"x" * 2_000_000
    async with management_port(hook.webhook) as port:
        assert await told(port, b"token=x") == 204
        assert await told(port, endless) == 400
        assert await told(port, b"token=y", secret=None) == 401

    assert hook.told == ["x"]


async def test_without_a_secret_in_the_policy_there_is_no_webhook() -> None:
    async with management_port(None) as port:
        assert await told(port, b"token=x") == 404


async def test_a_token_that_is_told_is_asked_about_again_within_the_bound(
    server: IntrospectionServer, tmp_path: Path
) -> None:
    validation = {"maxRevocationDelay": "1h"}
    async with service(server, validation=validation) as running:
        token = server.issue()
        before = await ask(running.port, "/protected", token=token)
        server.revoke(token)
        still = await ask(running.port, "/protected", token=token)
        webhook = RevocationWebhook(Secret(_file(tmp_path)), running.forget)
        assert webhook.answer(f"token={token}".encode()).status == 204
        after = await ask(running.port, "/protected", token=token)

    assert [answer.status for answer in (before, still, after)] == [200, 200, 401]


def _file(folder: Path) -> Path:
    file = folder / "secret"
    file.write_text(SECRET)
    return file
