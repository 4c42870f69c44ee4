"""Whatever is done to a service's children is put right within seconds, with the same client."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import MakeNamespace
from .product import Product

pytestmark = pytest.mark.cluster

PROMISED = 5.0  # seconds
CHILD = "orders-protected"


@pytest.fixture(scope="module")
def orders(product: Product, make_namespace: MakeNamespace) -> str:
    namespace = make_namespace()
    product.protect(namespace)
    product.ready(namespace)
    return namespace


def policy(product: Product, namespace: str) -> str:
    """Name of the policy ConfigMap that the Deployment mounts."""
    deployment = product.kubectl.get("deployment", CHILD, namespace=namespace)
    assert deployment is not None
    volumes = {volume["name"]: volume for volume in deployment["spec"]["template"]["spec"]["volumes"]}
    name: str = volumes["policy"]["configMap"]["name"]
    return name


@pytest.mark.parametrize("kind", ["secret", "deployment", "service", "configmap", "serviceaccount"])
def test_a_deleted_child_is_back_within_5_seconds_with_the_same_client(
    product: Product, orders: str, kind: str
) -> None:
    client = product.credentials(orders)
    name = {"secret": "orders-oauth2-client", "configmap": policy(product, orders)}.get(kind, CHILD)
    before = product.kubectl.get(kind, name, namespace=orders)
    assert before is not None

    product.kubectl.delete(kind, name, namespace=orders, wait=False)

    def is_back() -> bool:
        now = product.kubectl.get(kind, name, namespace=orders)
        return now is not None and now["metadata"]["uid"] != before["metadata"]["uid"]

    seconds = product.until(is_back, PROMISED, f"{kind} {name} is back")
    print(f"{kind} was back after {seconds:.1f} s")
    assert product.credentials(orders) == client
    assert list(product.clients_of(orders)) == [client[0]]
    product.ready(orders)


def _container(**changes: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"containers": [{"name": "resource-server", **changes}]}}}}


EDITS: dict[str, dict[str, Any]] = {
    "another image": _container(image="protectedservice/operator:0.1.0"),
    "other replicas": {"spec": {"replicas": 0}},
    "an added sidecar": {
        "spec": {
            "template": {"spec": {"containers": [{"name": "sidecar", "image": "protectedservice/operator:0.1.0"}]}}
        }
    },
    "an added variable": _container(env=[{"name": "PROTECTEDSERVICE_LOG_LEVEL", "value": "debug"}]),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_deployment_is_put_back_within_5_seconds(product: Product, orders: str, edit: str) -> None:
    product.ready(orders)
    before = product.kubectl.get("deployment", CHILD, namespace=orders)
    assert before is not None

    product.kubectl.run(
        "patch", "deployment", CHILD, f"--namespace={orders}", "--type=strategic", f"--patch={json.dumps(EDITS[edit])}"
    )

    def is_put_back() -> bool:
        now = product.kubectl.get("deployment", CHILD, namespace=orders)
        return now is not None and now["spec"] == before["spec"]

    seconds = product.until(is_put_back, PROMISED, f"the Deployment is as before {edit}")
    print(f"{edit}: put back after {seconds:.1f} s")
    product.ready(orders)


def test_a_foreign_deployment_of_the_childs_name_is_left_alone(product: Product, make_namespace: MakeNamespace) -> None:
    namespace = make_namespace()
    foreign: dict[str, Any] = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": CHILD, "namespace": namespace},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "foreign"}},
            "template": {
                "metadata": {"labels": {"app": "foreign"}},
                "spec": {"containers": [{"name": "foreign", "image": "protectedservice/operator:0.1.0"}]},
            },
        },
    }
    product.kubectl.create(foreign)
    before = product.kubectl.get("deployment", CHILD, namespace=namespace)
    product.protect(namespace)

    product.until(lambda: product.condition(namespace).get("reason") == "NotOwned", 30, "NotOwned")

    after = product.kubectl.get("deployment", CHILD, namespace=namespace)
    assert before is not None
    assert after is not None
    assert after["spec"] == before["spec"]
    assert "ownerReferences" not in after["metadata"]

    product.kubectl.delete("deployment", CHILD, namespace=namespace)
    product.ready(namespace)
