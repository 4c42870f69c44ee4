"""Certification authorities of one's own, against real TLS, and what of a text is taken for one."""

from __future__ import annotations

import logging
import ssl

import pytest

from protectedservice_operator.authorization_server import Rates
from protectedservice_operator.authorization_server_connection import connect
from protectedservice_operator.errors import ServerUnavailable
from protectedservice_operator.registration import trust

from ...support.certificates import Authority
from ...support.introspection_server import IntrospectionServer

SECRET = "s3cret-value+with/signs"


@pytest.fixture(scope="module")
def ours() -> Authority:
    return Authority("Ours")


@pytest.fixture(scope="module")
def other() -> Authority:
    return Authority("Another")


async def ask(server: IntrospectionServer, bundle: str | None) -> int:
    remote = connect("AuthorizationServer ns/as", Rates(), bundle)
    try:
        answer = await remote.request(
            "introspect", "POST", server.url, form={"token": SECRET}, authorization="Basic OnM=", json_due=False
        )
        return answer.status
    finally:
        await remote.aclose()


async def test_a_server_of_our_authority_is_asked(ours: Authority, other: Authority) -> None:
    async with IntrospectionServer(tls=ours.server()) as server:
        assert await ask(server, ours.pem) == 403  # an answer: we gave no credential that it knows
        assert await ask(server, other.pem + ours.pem) == 403
        assert server.asked == [SECRET, SECRET]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("expired", "certificate has expired"),
        ("another authority", "certificate verify failed"),
        ("another host", "not valid for '127.0.0.1'"),
        ("the system's authorities", "certificate verify failed"),
    ],
)
async def test_any_doubt_about_the_certificate_is_an_outage_in_which_nothing_was_sent(
    fault: str, told: str, ours: Authority, other: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    host = "elsewhere.example" if fault == "another host" else "127.0.0.1"
    bundle = {"another authority": other.pem, "the system's authorities": None}.get(fault, ours.pem)
    async with IntrospectionServer(tls=ours.server(host=host, expired=fault == "expired")) as server:
        with pytest.raises(ServerUnavailable) as caught:
            await ask(server, bundle)

    assert told in caught.value.message
    assert caught.value.uncertain is False
    assert server.asked == []
    assert SECRET not in caplog.text + str(caught.value)


def test_certificates_alone_are_taken_from_a_text_with_words_around_them(ours: Authority, other: Authority) -> None:
    bundle = trust.certificates(f"# ours\n{ours.pem}subject=Another\r\n" + other.pem.replace("\n", "\r\n") + "the end")

    assert bundle == ours.pem + other.pem


def test_the_context_verifies_certificate_and_host_and_knows_nobody_else(ours: Authority) -> None:
    context = trust.context(ours.pem)

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname is True
    assert len(context.get_ca_certs()) == 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no certificate"),
        ("-----BEGIN CERTIFICATE-----", "no certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "cannot be read"),
        (" " * (trust.LARGEST + 1), "larger than 512 KiB"),
    ],
)
def test_a_text_that_cannot_be_used_is_refused_by_its_fault(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        trust.certificates(text)


def test_a_text_with_a_private_key_is_refused_and_not_quoted(ours: Authority) -> None:
    with pytest.raises(ValueError, match="private key") as caught:
        trust.certificates(ours.pem + ours.private_pem)

    assert ours.private_pem.splitlines()[1] not in str(caught.value)
