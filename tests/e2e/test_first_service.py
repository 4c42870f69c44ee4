"""`smallest.yaml`, as a newcomer applies it: 401, 200, 403, 401 after revocation, and what the upstream gets to see."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import MakeNamespace
from .product import SMALLEST, SYSTEM, UPSTREAM, Product, condition

pytestmark = pytest.mark.cluster

BOUND = 5.0  # seconds: the default of spec.validation.maxRevocationDelay
READY_BOUND = 15.0  # seconds from apply to Ready that the product promises with images loaded


@pytest.fixture(scope="module")
def orders(product: Product, make_namespace: MakeNamespace) -> str:
    """A namespace with the upstream and smallest.yaml, Ready."""
    namespace = make_namespace()
    product.kubectl.apply(UPSTREAM, namespace=namespace)
    product.kubectl.run(
        "rollout", "status", "deployment/orders", f"--namespace={namespace}", "--timeout=90s", timeout=100
    )
    product.kubectl.apply(SMALLEST, namespace=namespace)
    seconds = product.ready(namespace)
    print(f"smallest.yaml was Ready {seconds:.1f} s after kubectl apply (promised: {READY_BOUND:.0f} s)")
    return namespace


def test_smallest_yaml_becomes_ready_with_all_conditions_and_columns(product: Product, orders: str) -> None:
    service = product.service(orders)

    for type_ in (
        "AuthorizationServerReady", "ClientRegistered", "CredentialsReady", "WorkloadAvailable", "Verified", "Ready",
    ):  # fmt: skip
        assert condition(service, type_)["status"] == "True", type_
    assert condition(service, "Verified")["reason"] == "Proved"
    assert service is not None
    assert service["status"]["verification"]["revocationDelay"]
    columns = product.kubectl.run("get", "psvc", "orders", f"--namespace={orders}")
    assert columns.split("\n")[0].split() == ["NAME", "READY", "REASON", "CLIENT", "SCOPES", "AGE"]
    assert columns.split("\n")[1].split()[:3] == ["orders", "True", "Ready"]


def test_a_call_without_a_token_gets_401_and_a_challenge_without_an_error(product: Product, orders: str) -> None:
    answer = product.caller.ask("GET", product.url(orders))

    challenge = answer.header("www-authenticate") or ""
    assert answer.status == 401
    assert challenge.startswith("Bearer ")
    assert 'scope="read"' in challenge
    assert "error" not in challenge
    assert "realm=" in challenge


def test_a_call_with_a_token_reaches_the_upstream_with_identity_and_without_the_token(
    product: Product, orders: str
) -> None:
    credentials = product.credentials(orders)
    token = product.token(credentials)
    forged = [
        ("X-Auth-Subject", "root"),
        ("x_auth_scope", "admin"),
        ("X-Forwarded-For", "1.2.3.4"),
        ("X-Plain", "kept"),
    ]

    answer = product.caller.ask("GET", product.url(orders) + "/deep/path?q=1", token=token, headers=forged)

    assert answer.status == 200
    received: dict[str, Any] = answer.json()
    headers = [(name.lower(), value) for name, value in received["headers"]]
    assert received["path"] == "/deep/path?q=1"
    assert [value for name, value in headers if name == "x-auth-client-id"] == [credentials[0]]
    assert [value for name, value in headers if name == "x-auth-scope"] == ["read"]
    assert ("x-plain", "kept") in headers
    assert "authorization" not in dict(headers)
    assert token not in answer.body
    assert "root" not in json.dumps(headers)
    assert not any(name.replace("_", "-") == "x-auth-scope" and value == "admin" for name, value in headers)
    assert not any(name == "x-forwarded-for" and "1.2.3.4" in value for name, value in headers)


def test_a_token_without_the_scope_gets_403_naming_the_scope(product: Product, orders: str) -> None:
    # The service's own client may not ask for less than `read`; another service's client has another scope.
    product.protect(orders, "writer", scopes=["write"])
    product.ready(orders, "writer")
    token = product.token(product.credentials(orders, "writer"), scope="write")

    answer = product.caller.ask("GET", product.url(orders), token=token)

    assert answer.status == 403
    assert 'error="insufficient_scope"' in (answer.header("www-authenticate") or "")
    assert 'scope="read"' in (answer.header("www-authenticate") or "")


def test_a_token_nobody_issued_gets_401_invalid_token(product: Product, orders: str) -> None:
    answer = product.caller.ask("GET", product.url(orders), token="never-issued")

    assert answer.status == 401
    assert 'error="invalid_token"' in (answer.header("www-authenticate") or "")


def test_a_revoked_token_is_refused_within_the_bound(product: Product, orders: str) -> None:
    credentials = product.credentials(orders)
    token = product.token(credentials)
    assert product.caller.ask("GET", product.url(orders), token=token).status == 200

    product.revoke(credentials, token)
    answer = product.caller.ask("GET", product.url(orders), token=token, until=401, patience=BOUND + 5)

    print(f"401 came {answer.seconds:.2f} s after the revocation was answered (maxRevocationDelay {BOUND:.0f} s)")
    assert answer.status == 401
    assert answer.seconds <= BOUND


def test_pods_and_children_are_as_least_privileged_as_the_restricted_namespace_demands(
    product: Product, orders: str
) -> None:
    deployment = product.kubectl.get("deployment", "orders-protected", namespace=orders)
    service = product.kubectl.get("service", "orders-protected", namespace=orders)

    assert deployment is not None
    assert service is not None
    assert deployment["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    assert [port["name"] for port in service["spec"]["ports"]] == ["http"]  # never the management port
    for child in (deployment, service):
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["controller"]) == ("ProtectedService", "orders", True)


def test_an_update_of_scopes_keeps_the_client_and_serves_the_new_scope(product: Product, orders: str) -> None:
    product.protect(orders, "growing")
    product.ready(orders, "growing")
    credentials = product.credentials(orders, "growing")

    product.protect(orders, "growing", scopes=["read", "write"], client={"name": "Growing"})
    product.ready(orders, "growing")

    assert product.credentials(orders, "growing") == credentials
    assert product.clients()[credentials[0]].startswith("Growing ")
    narrow, wide = product.token(credentials, "read"), product.token(credentials, "read write")
    url = product.url(orders, "growing") + "/protected"
    assert product.caller.ask("GET", url, token=narrow).status == 403
    assert product.caller.ask("GET", url, token=wide).status == 200
    wait = "condition=CrossClientIntrospection"  # True: this server tells each client about all tokens
    product.kubectl.wait("authorizationserver", "default", wait, namespace=SYSTEM, timeout=90)
