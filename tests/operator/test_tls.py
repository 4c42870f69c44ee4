"""Pods that speak HTTPS: what they mount, what status says, and whom the proof believes."""

from __future__ import annotations

import asyncio
import base64
import ssl
from typing import Any

import httpx
import pytest

from protectedservice_operator.pod_certificate import Unusable, pinned
from protectedservice_operator.resource import DEPLOYMENT, SECRET

from ..support.certificates import Authority
from ..support.objects import protected_service
from ..support.world import World


def secret(certificate: str) -> dict[str, Any]:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in {"tls.crt": certificate}.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "certificate", "namespace": "tenant"},
        "type": "kubernetes.io/tls",
        "data": encoded,
    }


def speaking_tls(**service: Any) -> dict[str, Any]:
    workload: dict[str, Any] = {"replicas": 1, "tls": {"secretName": "certificate"}}
    return protected_service("orders", workload=workload, service=service)


async def test_pods_serve_with_the_certificate_and_are_proved_by_https() -> None:
    world = World()
    schemes: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        schemes.append(request.url.scheme)
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        good = bool(token) and world.server.is_active(token)
        return httpx.Response(204 if good else 401, headers={"WWW-Authenticate": "Bearer"})

    world.pod_answers = answer
    world.cluster.insert(SECRET, secret(Authority().pem))
    world.add(speaking_tls(port=443))
    await world.settle()

    pod = world.cluster.read(DEPLOYMENT, "tenant", "orders-protected")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == "tls"]
    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "tls"]
    assert {"name": "PROTECTEDSERVICE_TLS", "value": mount["mountPath"]} in container["env"]
    assert volume["secret"]["secretName"] == "certificate"
    assert [item["path"] for item in volume["secret"]["items"]] == ["tls.crt", "tls.key"]
    assert world.service()["status"]["url"] == "https://orders-protected.tenant.svc"
    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert set(schemes) == {"https"}
    assert world.verifier._secure == {}


async def test_another_port_stands_in_the_url() -> None:
    world = World()
    world.cluster.insert(SECRET, secret(Authority().pem))
    world.add(speaking_tls())
    await world.settle()

    assert world.service()["status"]["url"] == "https://orders-protected.tenant.svc:80"


@pytest.mark.parametrize("there", [True, False])
async def test_without_a_certificate_nothing_is_proved_and_the_message_says_what_to_correct(there: bool) -> None:
    world = World()
    if there:
        world.cluster.insert(SECRET, secret("no certificate"))
    world.add(speaking_tls())
    await world.settle()

    assert world.condition("orders", "Verified") == ("Unknown", "PodsUnreachable")
    assert "spec.workload.tls.secretName" in world.message("orders", "Verified")

    if there:
        world.cluster.remove(SECRET, "tenant", "certificate")
    world.cluster.insert(SECRET, secret(Authority().pem))
    await world.later(600)

    assert world.condition("orders", "Ready") == ("True", "Ready")


async def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """Raises ssl.SSLError where the client does not believe the server."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server)
    port = listening.sockets[0].getsockname()[1]
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="10.0.0.1")
        writer.close()
    finally:
        listening.close()
        await listening.wait_closed()


async def test_the_pod_s_own_certificate_is_believed_under_any_name_and_no_other_of_the_same_authority() -> None:
    authority = Authority()
    ours, certificate = authority.server_and_certificate(host="orders.example")
    other, _ = authority.server_and_certificate(host="orders.example")

    await handshake(ours, pinned(secret(certificate + authority.pem)))
    with pytest.raises(ssl.SSLError):
        await handshake(other, pinned(secret(certificate + authority.pem)))


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (None, "does not exist"),
        ({"data": {}}, "holds no certificate in PEM"),
        ({}, "holds no certificate in PEM"),
        ({"data": {"tls.crt": "!"}}, "holds no certificate in PEM"),
        (secret("-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----"), "cannot be read"),
    ],
)
def test_what_is_no_certificate_is_told_without_its_content(found: dict[str, Any] | None, fault: str) -> None:
    with pytest.raises(Unusable) as caught:
        pinned(found)

    assert fault in str(caught.value)
    assert "hunter2" not in str(caught.value)
