"""`workload.tls`: callers speak HTTPS by the service's own certificate, and the same pods serve a renewed one."""

from __future__ import annotations

import base64
import json
import ssl

import pytest

from ..support.certificates import Authority
from ..support.kubectl import Object
from .conftest import MakeNamespace
from .product import Product

pytestmark = pytest.mark.cluster

SECRET = "certificate"


@pytest.fixture(scope="module")
def place(make_namespace: MakeNamespace) -> str:
    return make_namespace()


def put_certificate(product: Product, namespace: str, authority: Authority) -> str:
    """Write a fresh one for the service's name into the Secret; returns it."""
    certificate, key = authority.issue(f"secure-protected.{namespace}.svc")
    product.seen[key] = "the service's private key"
    files = {"tls.crt": certificate, "tls.key": key}
    product.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET, "namespace": namespace},
            "type": "kubernetes.io/tls",
            "data": {name: base64.b64encode(text.encode()).decode() for name, text in files.items()},
        }
    )
    return certificate


def pods(product: Product, namespace: str) -> list[Object]:
    return product.kubectl.list("pods", namespace=namespace, selector="protectedservice.dev/name=secure")


def identities(product: Product, namespace: str) -> set[tuple[str, int]]:
    """Which pods there are, and how often their containers were started again."""
    return {
        (pod["metadata"]["uid"], status["restartCount"])
        for pod in pods(product, namespace)
        for status in pod["status"]["containerStatuses"]
    }


def test_callers_speak_https_the_proof_holds_and_a_renewed_certificate_needs_no_restart(
    product: Product, place: str
) -> None:
    first, second = Authority("First CA"), Authority("Second CA")
    put_certificate(product, place, first)
    product.protect(place, "secure", workload={"replicas": 1, "tls": {"secretName": SECRET}}, service={"port": 443})
    product.ready(place, "secure")
    url = f"https://secure-protected.{place}.svc"
    token = product.token(product.credentials(place, "secure"))
    service = product.service(place, "secure")

    without = product.caller.ask("GET", url + "/protected", authority=first.pem)
    with_token = product.caller.ask("GET", url + "/protected", token=token, authority=first.pem)
    stranger = product.caller.ask("GET", url + "/protected", token=token, authority=second.pem)
    plain = product.caller.ask("GET", url.replace("https:", "http:") + ":443/protected", token=token)

    assert service is not None
    assert service["status"]["url"] == url
    assert product.condition(place, "secure", "Verified")["status"] == "True"
    assert (without.status, with_token.status, stranger.status, plain.status) == (401, 200, None, None)
    assert "CERTIFICATE_VERIFY_FAILED" in stranger.error

    before = identities(product, place)
    renewed = put_certificate(product, place, second)
    for pod in pods(product, place):  # any change of a pod has the kubelet look at its Secrets now, and not in a minute
        product.kubectl.run(
            "annotate", "pod", pod["metadata"]["name"], f"--namespace={place}", "test/looked-at=now", "--overwrite"
        )
    after = product.caller.ask(
        "GET", url + "/protected", token=token, authority=second.pem, until=200, patience=120, timeout=5
    )
    old = product.caller.ask("GET", url + "/protected", token=token, authority=first.pem)

    assert after.status == 200, after.error
    assert after.certificate == ssl.PEM_cert_to_DER_cert(renewed).hex()
    assert old.status is None
    assert identities(product, place) == before
    assert "PRIVATE KEY" not in json.dumps(product.service(place, "secure"))
