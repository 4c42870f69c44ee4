"""The client is replaced while callers ask without a pause, and none of them is refused."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from .caller import Caller
from .conftest import MakeNamespace
from .product import Product

pytestmark = pytest.mark.cluster

ROLL = 60.0  # seconds in which two pods are replaced, each with its last calls and its drain
TOKEN_LIFETIME = 120.0  # seconds, of the authorization server of this cluster
ANNOTATION = "protectedservice.dev/rotate"


def test_a_rotation_on_demand_refuses_nobody_and_leaves_one_client(
    product: Product, make_namespace: MakeNamespace
) -> None:
    namespace = make_namespace()
    product.protect(namespace, workload={"replicas": 2})
    product.ready(namespace)
    old = product.credentials(namespace)
    url, token = product.url(namespace) + "/protected", product.token(old)

    def client() -> str | None:
        return ((product.service(namespace) or {}).get("status") or {}).get("clientId")

    with Caller(product.kubectl, namespace) as caller, ThreadPoolExecutor(1) as thread:
        load = thread.submit(caller.ask_lasting, url, token=token, seconds=ROLL)
        product.kubectl.run(
            "annotate", "--overwrite", "protectedservice", "orders", f"--namespace={namespace}", f"{ANNOTATION}=now"
        )
        seconds = product.until(lambda: client() not in (None, old[0]), 60, "another client is in use")
        print(f"another client was in use after {seconds:.1f} s")
        new = product.credentials(namespace)
        assert new[0] == client()
        assert set(product.clients_of(namespace)) == {old[0], new[0]}
        counts = load.result()
        print(f"requests with a token of the old client while the pods rolled: {counts}")
        assert counts.keys() == {"200"}
        product.ready(namespace)
        assert product.condition(namespace, type_="Rotating")["status"] == "True"
        counts = caller.ask_lasting(url, token=product.token(new), seconds=5)
        assert counts.keys() == {"200"}
        counts = caller.ask_lasting(url, token=token, seconds=5)  # it lives on
        assert counts.keys() == {"200"}

        seconds = product.until(
            lambda: list(product.clients_of(namespace)) == [new[0]], TOKEN_LIFETIME + 60, "the old client is gone"
        )
        print(f"the old client was gone after {seconds:.1f} s more")
        assert caller.ask_lasting(url, token=product.token(new), seconds=5).keys() == {"200"}

    product.until(lambda: product.condition(namespace, type_="Rotating") == {}, 10, "the rotation has ended")
    service = product.service(namespace)
    assert service is not None
    assert "rotatedAt" in service["status"]
    product.ready(namespace, timeout=5)
