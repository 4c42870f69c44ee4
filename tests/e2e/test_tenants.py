"""Two tenants on one authorization server: their tokens are good for nothing at each other's services."""

from __future__ import annotations

import pytest

from .conftest import MakeNamespace
from .product import Product

pytestmark = pytest.mark.cluster


def test_two_tenants_with_different_scopes_refuse_each_others_tokens(
    product: Product, make_namespace: MakeNamespace
) -> None:
    first, second = make_namespace(), make_namespace()
    product.protect(first, scopes=["orders:read"])
    product.protect(second, scopes=["orders:write"])
    product.ready(first)
    product.ready(second)
    tokens = {
        first: product.token(product.credentials(first), "orders:read"),
        second: product.token(product.credentials(second), "orders:write"),
    }

    for here in (first, second):
        for owner, token in tokens.items():
            answer = product.caller.ask("GET", product.url(here) + "/protected", token=token)
            assert answer.status == (200 if owner == here else 403), (here, owner)


def test_two_services_with_one_scope_and_different_audiences_refuse_each_others_tokens(
    product: Product, make_namespace: MakeNamespace
) -> None:
    first, second = make_namespace(), make_namespace()
    audiences = {first: f"https://first.{first}.example", second: f"https://second.{second}.example"}
    for namespace, audience in audiences.items():
        product.protect(namespace, audience=audience)
    tokens = {}
    for namespace, audience in audiences.items():
        product.ready(namespace)
        tokens[namespace] = product.token(product.credentials(namespace), "read", resource=audience)

    for here in audiences:
        for owner, token in tokens.items():
            answer = product.caller.ask("GET", product.url(here) + "/protected", token=token)
            assert answer.status == (200 if owner == here else 401), (here, owner)
            if owner != here:
                assert 'error="invalid_token"' in (answer.header("www-authenticate") or "")
    # and nobody can mint for an audience that is not his
    stranger = product.oauth(
        "token",
        product.credentials(first),
        {"grant_type": "client_credentials", "scope": "read", "resource": audiences[second]},
    )
    assert stranger.status == 400
    assert stranger.json()["error"] == "invalid_target"


def test_an_audience_held_by_another_tenant_is_refused(product: Product, make_namespace: MakeNamespace) -> None:
    first, second = make_namespace(), make_namespace()
    audience = f"https://shared.{first}.example"
    product.protect(first, audience=audience)
    product.ready(first)

    product.protect(second, audience=audience)

    product.until(
        lambda: product.condition(second, type_="ClientRegistered").get("reason") == "AudienceTaken",
        20,
        "AudienceTaken",
    )
    assert product.clients_of(second) == {}


def test_a_namespace_that_the_authorization_server_does_not_allow_is_refused_with_a_condition(
    product: Product, make_namespace: MakeNamespace
) -> None:
    namespace = make_namespace(**{"e2e-denied": "true"})

    product.protect(namespace)

    product.until(lambda: product.condition(namespace).get("reason") == "NotAllowed", 20, "NotAllowed")
    message = product.condition(namespace, type_="AuthorizationServerReady")["message"]
    assert namespace in message
    assert "allowedNamespaces" in message
    assert product.clients_of(namespace) == {}
    assert product.kubectl.get("deployment", "orders-protected", namespace=namespace) is None

    product.kubectl.run("label", "namespace", namespace, "protectedservice.dev/e2e-denied-")
    product.ready(namespace)
