"""An AuthorizationServer that is deleted, its credential with it: the clients go first; made again, all is well again.

It is one of the test's own, at the shared authorization server.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

from ..support.kubectl import Object
from .conftest import MakeNamespace
from .product import ISSUER, SYSTEM, Product, condition

pytestmark = pytest.mark.cluster


@pytest.fixture
def server(product: Product) -> Iterator[str]:
    """Name of an AuthorizationServer of the test's own, which has a credential Secret of its name."""
    name = f"e2e-{secrets.token_hex(3)}"
    create(product, name)
    yield name
    product.kubectl.run(
        "delete", f"authorizationserver/{name}", f"secret/{name}", f"--namespace={SYSTEM}", "--ignore-not-found"
    )


def create(product: Product, name: str) -> None:
    metadata = {"name": name, "namespace": SYSTEM}
    token = product.initial_access_token()
    product.kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"token": token}})
    product.kubectl.apply(
        {
            "apiVersion": "protectedservice.dev/v1alpha1",
            "kind": "AuthorizationServer",
            "metadata": metadata,
            "spec": {
                "issuer": ISSUER,
                "allowInsecureHTTP": True,
                "registration": {
                    "dynamicClientRegistration": {"idempotencyKey": "Honoured"},
                    "credentialsSecret": {"name": name},
                },
                "allowedNamespaces": {"from": "All"},
            },
        }
    )


def found(product: Product, name: str) -> Object | None:
    return product.kubectl.get("authorizationserver", name, namespace=SYSTEM)


def test_a_deleted_authorization_server_takes_its_clients_along_and_comes_back_with_others(
    product: Product, make_namespace: MakeNamespace, server: str
) -> None:
    namespace = make_namespace()
    product.until(lambda: condition(found(product, server), "Ready").get("status") == "True", 60, f"{server} is Ready")
    product.protect(namespace, authorizationServerRef={"name": server, "namespace": SYSTEM})
    product.ready(namespace)
    old = product.credentials(namespace)
    token, url = product.token(old), product.url(namespace) + "/protected"
    assert product.caller.ask("GET", url, token=token, until=200, patience=30).status == 200

    product.kubectl.run("delete", f"authorizationserver/{server}", f"secret/{server}", f"--namespace={SYSTEM}")

    assert found(product, server) is None
    assert product.clients_of(namespace) == {}
    product.until(
        lambda: product.condition(namespace).get("reason") == "AuthorizationServerDeleted", 30, "the service says so"
    )
    answer = product.caller.ask("GET", url, token=token, until=503, patience=30)
    assert answer.status in (401, 503)  # never let through
    assert product.caller.ask("GET", url).status == 401

    create(product, server)

    product.ready(namespace, timeout=180)
    new = product.credentials(namespace)
    assert new[0] != old[0]
    assert list(product.clients_of(namespace)) == [new[0]]
    assert product.caller.ask("GET", url, token=product.token(new), until=200, patience=90).status == 200

    product.kubectl.delete("protectedservice", "orders", namespace=namespace)
    assert product.clients_of(namespace) == {}
