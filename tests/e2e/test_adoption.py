"""A client that was registered by hand becomes a service's, keeps its id, and outlives it."""

from __future__ import annotations

import json

import pytest

from .conftest import MakeNamespace
from .product import ISSUER, SYSTEM, Product

pytestmark = pytest.mark.cluster


def allow_adoption(product: Product, *, allowed: bool) -> None:
    patch = json.dumps({"spec": {"allowAdoption": allowed}})
    product.kubectl.run(
        "patch", "authorizationserver", "default", f"--namespace={SYSTEM}", "--type=merge", f"--patch={patch}"
    )


def registered_by_hand(product: Product, namespace: str) -> tuple[str, str]:
    """As a team would do it that has no operator."""
    metadata = {
        "client_name": f"made by hand in {namespace}",
        "grant_types": ["client_credentials"],
        "response_types": [],
        "redirect_uris": [],
        "token_endpoint_auth_method": "client_secret_basic",
        "scope": "read",
    }
    headers = [
        ("Authorization", f"Bearer {product.initial_access_token()}"),
        ("Content-Type", "application/json"),
    ]
    answer = product.caller.ask(
        "POST", f"{ISSUER}/oauth/register", headers=headers, body=json.dumps(metadata), until=201, patience=30
    )
    assert answer.status == 201
    client = answer.json()
    product.seen[client["client_secret"]] = "client secret of a client made by hand"
    product.seen[client["registration_access_token"]] = "registration token of a client made by hand"
    return client["client_id"], client["client_secret"]


def test_a_client_made_by_hand_is_adopted_and_outlives_its_service(
    product: Product, make_namespace: MakeNamespace
) -> None:
    namespace = make_namespace()
    client_id, client_secret = registered_by_hand(product, namespace)
    product.kubectl.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "legacy", "namespace": namespace, "labels": {"protectedservice.dev/watch": "true"}},
            "stringData": {"client_id": client_id, "client_secret": client_secret},
        }
    )
    product.protect(namespace, client={"adopt": {"clientId": client_id, "credentialsSecret": {"name": "legacy"}}})
    product.until(
        lambda: product.condition(namespace, type_="ClientRegistered").get("reason") == "AdoptionNotAllowed",
        30,
        "adoption is refused as long as the AuthorizationServer does not allow it",
    )

    allow_adoption(product, allowed=True)
    try:
        product.ready(namespace, timeout=120)
    finally:
        allow_adoption(product, allowed=False)
    service = product.service(namespace)
    assert service is not None
    assert service["status"]["clientId"] == client_id
    assert product.credentials(namespace) == (client_id, client_secret)
    assert product.clients_of(namespace) == {}  # nothing was registered for it
    token = product.token((client_id, client_secret))
    answer = product.caller.ask("GET", product.url(namespace) + "/protected", token=token)
    assert answer.status == 200

    product.kubectl.run("delete", "protectedservice", "orders", f"--namespace={namespace}", "--timeout=60s", timeout=70)
    assert client_id in product.clients()
    assert product.token((client_id, client_secret))
