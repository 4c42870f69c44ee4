"""A namespace deleted while the authorization server is away: it goes at the deadline, and its client when it can."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from .conftest import MakeNamespace
from .product import SYSTEM, Product

pytestmark = pytest.mark.cluster

DEADLINE = 60.0  # seconds; a day, as shipped, is more than a test can wait


@pytest.fixture
def short_deadline(product: Product) -> Iterator[None]:
    product.set_operator_environment("PROTECTEDSERVICE_DELETION_DEADLINE", f"{DEADLINE:.0f}")
    yield
    product.set_operator_environment("PROTECTEDSERVICE_DELETION_DEADLINE", None)


def test_a_namespace_deleted_in_an_outage_is_gone_at_the_deadline_and_its_client_is_deleted_afterwards(
    product: Product, make_namespace: MakeNamespace, short_deadline: None
) -> None:
    namespace = make_namespace()
    uid = product.protect(namespace)["metadata"]["uid"]
    product.ready(namespace)
    product.remember(namespace)
    client_id, _ = product.credentials(namespace)
    ledger = f"psvc-{uid}"

    product.stop_server()
    try:
        began = time.monotonic()
        product.kubectl.delete("namespace", namespace, wait=False)
        product.until(
            lambda: "waiting to delete client" in product.condition(namespace).get("message", ""), 40, "it says why"
        )
        product.until(
            lambda: product.kubectl.get("namespace", namespace) is None, DEADLINE + 90, f"namespace {namespace} is gone"
        )
        seconds = time.monotonic() - began
        print(f"the namespace was gone {seconds:.0f} s after its deletion (deadline {DEADLINE:.0f} s)")
        assert seconds > DEADLINE - 5  # a client is given up neither earlier nor without a trace
        assert client_id in product.clients()
        assert product.kubectl.get("secret", ledger, namespace=SYSTEM) is not None
        told = [
            event["message"]
            for event in product.kubectl.list("events", namespace=SYSTEM)
            if (event["reason"], event["involvedObject"]["kind"]) == ("ClientOrphaned", "AuthorizationServer")
        ]
        assert any(client_id in message and f"{namespace}/orders" in message for message in told)
    finally:
        product.start_server()

    seconds = product.until(lambda: client_id not in product.clients(), 180, "the client is deleted")
    print(f"the client left behind was deleted {seconds:.0f} s after the server was back")
    product.until(
        lambda: product.kubectl.get("secret", ledger, namespace=SYSTEM) is None, 30, "its ledger entry is gone"
    )
