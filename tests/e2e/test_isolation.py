"""`upstream.isolate` in a cluster whose network enforces NetworkPolicies: who still gets through, and what is said."""

from __future__ import annotations

import pytest

from .conftest import MakeNamespace
from .product import UPSTREAM, Product

pytestmark = pytest.mark.cluster

CHILD = "orders-protected"


@pytest.fixture(scope="module")
def place(product: Product, make_namespace: MakeNamespace) -> str:
    """A namespace with an upstream, Service orders, behind a ProtectedService that isolates nothing yet."""
    namespace = make_namespace()
    product.kubectl.apply(UPSTREAM, namespace=namespace)
    product.kubectl.run(
        "rollout", "status", "deployment/orders", f"--namespace={namespace}", "--timeout=90s", timeout=100
    )
    protect(product, namespace, isolate=False)
    product.ready(namespace)
    return namespace


def protect(product: Product, namespace: str, *, isolate: bool) -> None:
    product.protect(namespace, upstream={"service": {"name": "orders", "port": 8080}, "isolate": isolate})


def isolated(product: Product, namespace: str, status: str, reason: str, timeout: float = 90) -> str:
    """Wait until the condition says so; returns its message."""

    def holds() -> bool:
        told = product.condition(namespace, type_="UpstreamIsolated")
        return (told.get("status"), told.get("reason")) == (status, reason)

    product.until(holds, timeout, f"UpstreamIsolated is {status} ({reason})")
    message: str = product.condition(namespace, type_="UpstreamIsolated")["message"]
    return message


def directly(product: Product, namespace: str) -> int | None:
    return product.caller.ask("GET", f"http://orders.{namespace}.svc:8080/", timeout=2).status


def test_nobody_goes_past_the_resource_server_and_the_operator_has_tried(product: Product, place: str) -> None:
    before = directly(product, place)
    protect(product, place, isolate=True)
    message = isolated(product, place, "True", "DirectConnectionRefused")
    token = product.token(product.credentials(place))
    through = product.caller.ask("GET", product.url(place) + "/orders/1", token=token)

    assert "refused" in message
    assert (before, directly(product, place), through.status) == (200, None, 200)
    assert product.condition(place)["status"] == "True"


def test_a_policy_that_somebody_deletes_comes_back(product: Product, place: str) -> None:
    product.kubectl.delete("networkpolicy", CHILD, namespace=place)
    product.until(
        lambda: product.kubectl.get("networkpolicy", CHILD, namespace=place) is not None, 30, "the policy is back"
    )
    product.until(lambda: directly(product, place) is None, 30, "nobody gets past the resource server")
    isolated(product, place, "True", "DirectConnectionRefused")


def test_a_policy_of_others_that_lets_everybody_in_is_found_out(product: Product, place: str) -> None:
    product.kubectl.apply(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "everybody", "namespace": place},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]},
        }
    )
    message = isolated(product, place, "False", "NotEnforced", 120)
    reached = directly(product, place)
    ready = product.condition(place)["status"]
    product.kubectl.delete("networkpolicy", "everybody", namespace=place)
    isolated(product, place, "True", "DirectConnectionRefused")

    assert "another policy" in message
    assert (reached, ready, directly(product, place)) == (200, "True", None)


def test_switched_off_the_way_is_open_again(product: Product, place: str) -> None:
    protect(product, place, isolate=False)
    product.until(
        lambda: product.kubectl.get("networkpolicy", CHILD, namespace=place) is None, 30, "the policy is gone"
    )
    product.until(lambda: directly(product, place) == 200, 30, "the upstream answers everybody")
    product.until(lambda: product.condition(place, type_="UpstreamIsolated") == {}, 30, "nothing is said of isolation")
    product.ready(place)
