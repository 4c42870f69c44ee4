"""Rules, metadata, headers, the webhook and the shape of the workload, as callers and the cluster see them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import MakeNamespace
from .product import UPSTREAM, Product

pytestmark = pytest.mark.cluster

HOOK = "a-secret-that-nobody-guesses"


@pytest.fixture(scope="module")
def place(product: Product, make_namespace: MakeNamespace) -> str:
    """A namespace with an upstream, Service orders, that tells what it was sent."""
    namespace = make_namespace()
    product.kubectl.apply(UPSTREAM, namespace=namespace)
    product.kubectl.run(
        "rollout", "status", "deployment/orders", f"--namespace={namespace}", "--timeout=90s", timeout=100
    )
    return namespace


def test_each_path_needs_what_its_rule_says_and_the_metadata_tell_everybody(product: Product, place: str) -> None:
    rules: list[dict[str, Any]] = [
        {"paths": ["/docs/*"], "methods": ["GET"], "access": "Public"},
        {"paths": ["/internal/*"], "access": "Deny"},
        {"paths": ["/orders/*"], "methods": ["POST"], "scopes": ["write"]},
    ]
    product.protect(
        place,
        "ruled",
        rules=rules,
        resource="https://api.example/ruled",
        upstream={
            "url": f"http://orders.{place}.svc:8080",
            "forwardToken": True,
            "identityHeaders": {"names": {"clientId": "X-Remote-Client"}},
        },
    )
    product.ready(place, "ruled")
    url, credentials = product.url(place, "ruled"), product.credentials(place, "ruled")
    token = product.token(credentials)

    public = product.caller.ask("GET", url + "/docs/api", headers=[("X-Remote-Client", "root")])
    denied = product.caller.ask("GET", url + "/internal/x", token=token)
    reading = product.caller.ask("GET", url + "/orders/1", token=token)
    writing = product.caller.ask("POST", url + "/orders/1", token=token)
    confused = product.caller.ask("GET", url + "//internal/x", token=token)
    metadata = product.caller.ask("GET", url + "/.well-known/oauth-protected-resource/ruled")

    assert [answer.status for answer in (public, denied, reading, writing, confused)] == [200, 403, 200, 403, 400]
    assert "root" not in json.dumps(public.json()["headers"])
    assert 'scope="write"' in (writing.header("www-authenticate") or "")
    assert "oauth-protected-resource/ruled" in (writing.header("www-authenticate") or "")
    received = {name.lower(): value for name, value in reading.json()["headers"]}
    assert received["x-remote-client"] == credentials[0]
    assert received["authorization"] == f"Bearer {token}"
    assert metadata.status == 200
    assert metadata.json()["resource"] == "https://api.example/ruled"
    assert metadata.json()["scopes_supported"] == ["read", "write"]


def test_a_revocation_that_is_told_to_the_pod_holds_at_once(product: Product, place: str) -> None:
    product.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "hook", "namespace": place},
            "stringData": {"secret": HOOK},
        }
    )
    validation = {"maxRevocationDelay": "1h", "revocationWebhook": {"secretName": "hook"}}
    product.protect(place, "told", validation=validation)
    product.ready(place, "told")
    url, credentials = product.url(place, "told") + "/protected", product.credentials(place, "told")
    token = product.token(credentials)
    (pod,) = json.loads(
        product.kubectl.run(
            "get", "pods", f"--namespace={place}", "--selector=protectedservice.dev/name=told", "--output=json"
        )
    )["items"]
    hook = f"http://{pod['status']['podIP']}:9090/revoked"
    form = [("Content-Type", "application/x-www-form-urlencoded")]

    before = product.caller.ask("GET", url, token=token)
    product.revoke(credentials, token)
    remembered = product.caller.ask("GET", url, token=token)
    stranger = product.caller.ask("POST", hook, token="somebody-else-s-secret", headers=form, body=f"token={token}")
    told = product.caller.ask("POST", hook, token=HOOK, headers=form, body=f"token={token}")
    after = product.caller.ask("GET", url, token=token)

    assert [answer.status for answer in (before, remembered, stranger, told, after)] == [200, 200, 401, 204, 401]


def test_the_number_of_pods_is_the_autoscaler_s_and_a_drain_leaves_some(product: Product, place: str) -> None:
    def replicas() -> int:
        deployment = product.kubectl.get("deployment", "scaled-protected", namespace=place)
        assert deployment is not None
        found: int = deployment["spec"]["replicas"]
        return found

    product.protect(place, "scaled", workload={"replicas": 1})
    product.ready(place, "scaled")
    workload = {"autoscaling": {"min": 2, "max": 3}, "podDisruptionBudget": {"minAvailable": 1}}
    product.protect(place, "scaled", workload=workload)
    # The autoscaler keeps the least number without any metrics, too.
    product.until(lambda: replicas() == 2, 90, "the autoscaler has made two pods")
    product.ready(place, "scaled")
    product.protect(place, "scaled", workload={**workload, "logLevel": "debug"})
    product.ready(place, "scaled")
    budget = product.kubectl.get("poddisruptionbudget", "scaled-protected", namespace=place)

    assert replicas() == 2
    assert budget is not None
    assert budget["spec"]["minAvailable"] == 1

    product.protect(place, "scaled", workload={"replicas": 1})
    product.until(lambda: replicas() == 1, 60, "the operator's number holds again")
    product.ready(place, "scaled")
    assert product.kubectl.get("horizontalpodautoscaler", "scaled-protected", namespace=place) is None
    assert product.kubectl.get("poddisruptionbudget", "scaled-protected", namespace=place) is None
