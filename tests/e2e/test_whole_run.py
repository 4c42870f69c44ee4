"""Last of the run, by its name: no client secret and no token in any log, event, status or annotation of all of it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import MakeNamespace
from .product import SERVER_NAMESPACE, SYSTEM, Product

pytestmark = pytest.mark.cluster


def test_no_secret_and_no_token_stands_in_any_log_event_status_or_annotation(
    product: Product, make_namespace: MakeNamespace
) -> None:
    namespace = make_namespace()
    product.protect(namespace)
    product.ready(namespace)
    product.token(product.credentials(namespace))
    product.initial_access_token()
    for place in (namespace, SYSTEM, SERVER_NAMESPACE):
        product.remember(place)
    places = dict(product.logs)
    for kind in ("events", "protectedservices", "authorizationservers", "deployments", "configmaps", "pods", "secrets"):
        for item in product.kubectl.list(kind):
            name = f"{kind} {item['metadata'].get('namespace')}/{item['metadata']['name']}"
            places[name] = _text_of(kind, item)
    places["audit log"] = product.on_node("cat", "/var/log/kubernetes/audit.log")

    found = {(what, place) for secret, what in product.seen.items() for place, text in places.items() if secret in text}
    print(f"searched {len(places)} places for {len(product.seen)} secrets and tokens")

    assert len(product.seen) >= 4
    assert any(place.startswith(f"{SYSTEM}/protectedservice-operator") and text for place, text in places.items())
    assert found == set()


def _text_of(kind: str, item: dict[str, Any]) -> str:
    """All of an object; of a Secret everything but its data."""
    return json.dumps({key: value for key, value in item.items() if kind != "secrets" or key != "data"})
