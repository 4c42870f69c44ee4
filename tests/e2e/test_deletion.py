"""A deleted service leaves nothing behind; while the authorization server is away it waits, and says why."""

from __future__ import annotations

import pytest

from .conftest import MakeNamespace
from .product import SYSTEM, Product

pytestmark = pytest.mark.cluster


def leftovers(product: Product, namespace: str, uid: str) -> list[str]:
    """What is still there of a service."""
    found = list(product.clients_of(namespace))
    for kind in ("deployment", "service", "serviceaccount", "secret", "configmap", "pod"):
        selector = "app.kubernetes.io/managed-by=protectedservice"
        found += [
            item["metadata"]["name"] for item in product.kubectl.list(kind, namespace=namespace, selector=selector)
        ]
    if product.kubectl.get("secret", f"psvc-{uid}", namespace=SYSTEM) is not None:
        found.append(f"psvc-{uid}")
    return found


def test_a_deleted_service_takes_client_secrets_ledger_and_workload_with_it(
    product: Product, make_namespace: MakeNamespace
) -> None:
    namespace = make_namespace()
    uid = product.protect(namespace)["metadata"]["uid"]
    product.ready(namespace)
    product.remember(namespace)
    assert len(leftovers(product, namespace, uid)) >= 7

    product.kubectl.delete("protectedservice", "orders", namespace=namespace)

    product.until(lambda: leftovers(product, namespace, uid) == [], 60, "nothing is left")


def test_a_service_deleted_while_the_authorization_server_is_down_waits_says_why_and_completes(
    product: Product, make_namespace: MakeNamespace
) -> None:
    namespace = make_namespace()
    uid = product.protect(namespace)["metadata"]["uid"]
    product.ready(namespace)
    product.remember(namespace)

    product.stop_server()
    try:
        product.kubectl.delete("protectedservice", "orders", namespace=namespace, wait=False)
        product.until(
            lambda: "waiting to delete client" in product.condition(namespace).get("message", ""), 60, "it says why"
        )
        assert product.service(namespace) is not None
        assert product.kubectl.get("secret", f"psvc-{uid}", namespace=SYSTEM) is not None
    finally:
        product.start_server()

    product.until(lambda: product.service(namespace) is None, 90, "it completes")
    product.until(lambda: leftovers(product, namespace, uid) == [], 60, "nothing is left")
