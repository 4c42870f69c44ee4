"""One service calls another, from two manifests: with consent 200, without it a condition, no token and no trace."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest

from ..contract.manifests import K8S
from .conftest import MakeNamespace
from .product import Product, condition

pytestmark = pytest.mark.cluster

EXAMPLE = (K8S / "examples" / "service-to-service.yaml").read_text(encoding="utf-8")
ANNOTATION = "protectedservice.dev/rotate"
OVERLAP = 30.0  # seconds
TOKEN_LIFETIME = 120.0  # seconds, of the authorization server of this cluster
STRANGERS = {"from": "Selector", "selector": {"matchLabels": {"e2e-team": "strangers"}}}


@pytest.fixture(scope="module")
def shop(product: Product, make_namespace: MakeNamespace) -> str:
    """A namespace with the example in it: `shop`, which calls `stock`."""
    namespace = make_namespace()
    product.kubectl.apply(EXAMPLE, namespace=namespace)
    product.ready(namespace, "stock")
    product.until(lambda: told(product, namespace)["status"] == "True", 60, "ServiceClient shop is Ready")
    product.kubectl.run(
        "rollout", "status", "deployment/shop", f"--namespace={namespace}", "--timeout=90s", timeout=100
    )
    return namespace


def told(product: Product, namespace: str, type_: str = "Ready", name: str = "shop") -> dict[str, Any]:
    """The condition of a ServiceClient; of no status while there is none."""
    found = product.kubectl.get("serviceclient", name, namespace=namespace)
    return {"status": "", "reason": "", "message": "", **condition(found, type_)}


def status(product: Product, namespace: str) -> dict[str, Any]:
    found = product.kubectl.get("serviceclient", "shop", namespace=namespace)
    assert found is not None
    return dict(found.get("status") or {})


def credentials(product: Product, namespace: str, name: str = "shop") -> dict[str, str]:
    """The caller's Secret, decoded."""
    secret = product.kubectl.get("secret", f"{name}-oauth2-caller", namespace=namespace)
    assert secret is not None
    values = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    product.seen[values["client_secret"]] = f"client secret of ServiceClient {namespace}/{name}"
    return values


def consent(product: Product, namespace: str, allowed: dict[str, Any]) -> None:
    product.kubectl.apply(
        {
            "apiVersion": "protectedservice.dev/v1alpha1",
            "kind": "ProtectedService",
            "metadata": {"name": "stock", "namespace": namespace},
            "spec": {
                "scopes": ["read"],
                "audience": "https://stock.example",
                "demo": True,
                "workload": {"replicas": 1},
                "allowedClients": allowed,
            },
        }
    )


def test_the_caller_gets_200_from_the_service_with_a_token_of_its_own_client(product: Product, shop: str) -> None:
    answer = product.caller.ask("GET", f"http://shop.{shop}.svc:8080/", until=200, patience=30)

    assert answer.status == 200, answer
    said = answer.json()
    assert said["status"] == 200
    assert said["said"]["client_id"] == credentials(product, shop)["client_id"]
    assert said["said"]["client_id"] != product.credentials(shop, "stock")[0]
    columns = product.kubectl.run("get", "sclient", "shop", f"--namespace={shop}")
    assert columns.split("\n")[0].split() == ["NAME", "READY", "REASON", "CLIENT", "SECRET", "AGE"]


def test_its_secret_is_back_within_5_seconds_with_the_same_client(product: Product, shop: str) -> None:
    before = credentials(product, shop)
    product.kubectl.delete("secret", "shop-oauth2-caller", namespace=shop, wait=False)

    def is_back() -> bool:
        return product.kubectl.get("secret", "shop-oauth2-caller", namespace=shop) is not None

    product.until(is_back, 5, "the Secret is back")
    assert credentials(product, shop) == before


def test_a_rotation_on_demand_refuses_no_call_and_ends_the_old_client_after_the_overlap(
    product: Product, shop: str
) -> None:
    old = credentials(product, shop)
    overlap = json.dumps({"spec": {"rotation": {"overlap": f"{OVERLAP:.0f}s"}}})
    product.kubectl.run("patch", "serviceclient", "shop", f"--namespace={shop}", "--type=merge", f"--patch={overlap}")
    url = product.url(shop, "stock") + "/protected"

    product.kubectl.run("annotate", "--overwrite", "serviceclient", "shop", f"--namespace={shop}", f"{ANNOTATION}=now")
    product.until(lambda: credentials(product, shop)["client_id"] != old["client_id"], 60, "the Secret has changed")
    began, new = time.monotonic(), credentials(product, shop)
    assert {old["client_id"], new["client_id"]} < set(product.clients_of(shop))  # stock's is the third
    product.until(lambda: status(product, shop).get("clientId") == new["client_id"], 10, "status tells the new client")
    assert status(product, shop)["previousClient"]["clientId"] == old["client_id"]
    assert told(product, shop)["status"] == "True"

    last = ""
    for secret in (new, old):  # whichever a program has read
        last = product.token((secret["client_id"], secret["client_secret"]), resource="https://stock.example")
        assert product.caller.ask("GET", url, token=last, until=200, patience=10).status == 200
        assert product.caller.ask_lasting(url, token=last, seconds=5).keys() == {"200"}
    assert time.monotonic() - began < OVERLAP + TOKEN_LIFETIME, "too slow to tell what the overlap is good for"

    product.until(
        lambda: old["client_id"] not in product.clients_of(shop), OVERLAP + TOKEN_LIFETIME + 60, "the old one is gone"
    )
    seconds = time.monotonic() - began
    print(f"the old client was gone {seconds:.1f} s after the Secret had changed")
    assert seconds > OVERLAP + TOKEN_LIFETIME - 10
    form = {"grant_type": "client_credentials", "scope": "read", "resource": "https://stock.example"}
    refused = product.oauth("token", (old["client_id"], old["client_secret"]), form)
    assert (refused.status, refused.json()["error"]) == (401, "invalid_client")
    product.until(lambda: "rotatedAt" in status(product, shop), 10, "status tells the end of the rotation")
    assert "previousClient" not in status(product, shop)
    assert condition(product.kubectl.get("serviceclient", "shop", namespace=shop), "Rotating") == {}
    # The program reads its files at each token; the kubelet has brought the new ones long since.
    answer = product.caller.ask("GET", f"http://shop.{shop}.svc:8080/", until=200, patience=30)
    assert answer.json()["said"]["client_id"] == new["client_id"], answer


def test_a_caller_of_another_namespace_is_refused_with_a_condition_that_names_the_service(
    product: Product, shop: str, make_namespace: MakeNamespace
) -> None:
    namespace = make_namespace()
    product.kubectl.apply(
        {
            "apiVersion": "protectedservice.dev/v1alpha1",
            "kind": "ServiceClient",
            "metadata": {"name": "thief", "namespace": namespace},
            "spec": {"services": [{"name": "stock", "namespace": shop}]},
        }
    )

    product.until(
        lambda: told(product, namespace, "ServicesAllowed", "thief")["reason"] == "ServiceNotAllowed", 30, "refused"
    )
    message = told(product, namespace, "ServicesAllowed", "thief")["message"]
    assert f"{shop}/stock" in message
    assert "spec.allowedClients" in message
    assert product.clients_of(namespace) == {}
    assert product.kubectl.get("secret", "thief-oauth2-caller", namespace=namespace) is None


def test_consent_taken_back_takes_the_client_and_given_again_brings_another(product: Product, shop: str) -> None:
    before = credentials(product, shop)
    form = {"grant_type": "client_credentials", "scope": "read", "resource": "https://stock.example"}

    consent(product, shop, STRANGERS)

    product.until(lambda: told(product, shop)["reason"] == "ServiceNotAllowed", 30, "the consent is gone")
    product.until(lambda: before["client_id"] not in product.clients_of(shop), 30, "the client is gone")
    refused = product.oauth("token", (before["client_id"], before["client_secret"]), form)
    assert refused.status == 401, refused
    assert refused.json()["error"] == "invalid_client"

    consent(product, shop, {"from": "Same"})

    product.until(lambda: told(product, shop)["status"] == "True", 30, "ServiceClient shop is Ready")
    assert credentials(product, shop)["client_id"] != before["client_id"]
    # The pod reads its files anew when its token is refused; the kubelet brings them within a minute or two.
    answer = product.caller.ask("GET", f"http://shop.{shop}.svc:8080/", until=200, patience=150)
    assert answer.json()["status"] == 200, answer


def test_a_deleted_service_client_leaves_neither_client_nor_secret_nor_ledger(product: Product, shop: str) -> None:
    client_id = credentials(product, shop)["client_id"]
    found = product.kubectl.get("serviceclient", "shop", namespace=shop)
    assert found is not None
    ledger = f"psvc-{found['metadata']['uid']}"
    assert product.kubectl.get("secret", ledger, namespace="protectedservice-system") is not None
    product.remember(shop)

    product.kubectl.delete("serviceclient", "shop", namespace=shop)

    product.until(lambda: client_id not in product.clients_of(shop), 30, "the client is gone")
    assert product.kubectl.get("secret", ledger, namespace="protectedservice-system") is None
    product.until(
        lambda: product.kubectl.get("secret", "shop-oauth2-caller", namespace=shop) is None, 30, "the Secret is gone"
    )
    assert product.condition(shop, "stock")["status"] == "True"
