"""A certification authority of one's own, against real TLS: who is believed, what is re-read, what is told."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from protectedservice_server import policy_file
from protectedservice_server.credentials import Credentials
from protectedservice_server.introspection import Introspection
from protectedservice_server.question import Unavailable
from protectedservice_server.trust import LARGEST_FILE, Trust, TrustError

from ..support import asking
from ..support.certificates import Authority
from ..support.introspection_server import IntrospectionServer
from .running import Running, policy_text, service


@pytest.fixture(scope="module")
def ours() -> Authority:
    return Authority("Ours")


@pytest.fixture(scope="module")
def other() -> Authority:
    return Authority("Another")


def put(file: Path, text: str, time: int) -> None:
    """A new version of the file; its time is given, because clocks of file systems are coarse."""
    file.write_text(text)
    os.utime(file, ns=(time, time))


def trusting(server: IntrospectionServer, file: Path | None) -> dict[str, Any]:
    tls = {"tls": {"caFile": str(file)}} if file is not None else {}
    return {"authorizationServers": [{"endpoints": {"introspection": server.url}, **tls}]}


async def ask(running: Running, token: str) -> int:
    async with (
        aiohttp.ClientSession() as session,
        session.get(
            f"http://127.0.0.1:{running.port}/protected", headers={"Authorization": f"Bearer {token}"}
        ) as answer,
    ):
        return answer.status


async def test_a_server_certified_by_the_file_is_asked(ours: Authority, tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    file.write_text(ours.pem)
    async with IntrospectionServer(tls=ours.server()) as server, service(server, **trusting(server, file)) as running:
        assert await ask(running, server.issue()) == 200
        assert await ask(running, "unknown") == 401


@pytest.mark.parametrize(
    "fault", ["expired", "another authority", "another host", "the system's authorities", "plain text on the port"]
)
async def test_any_doubt_about_the_certificate_is_an_outage_and_shows_nothing(
    fault: str, ours: Authority, other: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    file: Path | None = tmp_path / "ca.crt"
    (tmp_path / "ca.crt").write_text(other.pem if fault == "another authority" else ours.pem)
    tls: ssl.SSLContext | None = ours.server(
        host="elsewhere.example" if fault == "another host" else "127.0.0.1", expired=fault == "expired"
    )
    if fault == "the system's authorities":
        file = None
    async with IntrospectionServer(tls=tls) as server:
        token, changes = server.issue(), trusting(server, file)
        if fault == "plain text on the port":
            async with IntrospectionServer() as plain:
                endpoint = {"introspection": f"https://127.0.0.1:{plain.port}/introspect"}
                changes["authorizationServers"][0]["endpoints"] = endpoint
                async with service(server, **changes) as running:
                    status = await ask(running, token)
        else:
            async with service(server, **changes) as running:
                status = await ask(running, token)

    assert status == 503
    assert server.asked == []
    assert not [secret for secret in (token, server.client_secret) if secret in caplog.text]


async def test_a_changed_file_counts_for_the_next_question_without_a_restart(
    ours: Authority, other: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file = tmp_path / "ca.crt"
    put(file, ours.pem, 1)
    async with IntrospectionServer(tls=ours.server()) as server:
        policy = policy_file.parse(policy_text(server, **trusting(server, file)))
        held = Credentials(server.client_id, server.client_secret)
        introspect = Introspection(policy, held, lambda: held)
        token = server.issue()
        first = await asking.ask(introspect, token)
        put(file, other.pem, 2)
        with pytest.raises(Unavailable, match="tls"):
            await asking.ask(introspect, token)  # not by a connection of before, either
        put(file, other.pem + ours.pem, 3)
        third = await asking.ask(introspect, token)
        await introspect.close()

    assert first.facts.active
    assert third.facts.active
    assert caplog.text.count("Read changed certification authorities") == 2


def test_a_file_that_is_spoilt_or_gone_leaves_what_was_read_in_force_and_warns_once(
    ours: Authority, other: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "ca.crt"
    put(file, ours.pem, 1)
    trust = Trust(file)
    before = trust.context()

    put(file, "", 2)
    contexts = [trust.context() for _ in range(3)]
    file.unlink()
    contexts += [trust.context() for _ in range(3)]

    assert [context is before for context in contexts] == [True] * 6
    assert len(caplog.records) == 2

    put(file, other.pem, 3)

    assert trust.context() is not before


def test_an_unchanged_file_is_not_read_again(ours: Authority, tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    file.write_text(ours.pem)
    trust = Trust(file)

    assert trust.context() is trust.context()


def test_the_context_verifies_whatever_the_file_is(ours: Authority, tmp_path: Path) -> None:
    file = tmp_path / "ca.crt"
    file.write_text(ours.pem)
    context = Trust(file).context()

    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname is True
    assert [found["subject"] for found in context.get_ca_certs()] == [((("commonName", "Ours"),),)]
    systems = Trust(None).context()
    assert systems.verify_mode is ssl.CERT_REQUIRED
    assert systems.check_hostname is True


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "holds no certificate in PEM"),
        ("something", "holds no certificate in PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "holds a certificate that cannot be read"),
        ("x" * (LARGEST_FILE + 1), "is larger than"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_cannot_be_used_at_the_start_is_told_by_its_fault(
    content: str | None, fault: str, tmp_path: Path
) -> None:
    file = tmp_path / "ca.crt"
    if content is not None:
        file.write_text(content)

    with pytest.raises(TrustError) as caught:
        Trust(file)

    assert fault in caught.value.faults[0]
    assert str(file) in caught.value.faults[0]
