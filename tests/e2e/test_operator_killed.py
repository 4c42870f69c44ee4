"""SIGKILL from the node, in the middle of onboarding: each service ends Ready with exactly one client."""

from __future__ import annotations

import time

import pytest

from .conftest import MakeNamespace
from .product import Product

pytestmark = pytest.mark.cluster

NAMES = [f"service-{number}" for number in range(5)]


def test_three_kills_while_five_services_are_onboarded_leave_one_client_each(
    product: Product, make_namespace: MakeNamespace
) -> None:
    namespace = make_namespace()
    product.operator_runs()

    for name in NAMES:
        product.protect(namespace, name)
    kills = 0
    for registered in (0, 2, 4):  # before the first client, amid them, and at the end
        product.until(lambda enough=registered: len(product.clients_of(namespace)) >= enough, 120, "onboarding goes on")  # type: ignore[misc]
        product.until(lambda: product.operator_process() is not None, 60, "the operator runs")
        product.kill_operator()
        kills += 1
        time.sleep(0.5)  # let the process be gone before it is looked for again

    for name in NAMES:
        product.ready(namespace, name, timeout=180)

    clients = product.clients_of(namespace)
    assert kills == 3
    assert len(clients) == len(NAMES)
    for name in NAMES:
        client_id, _ = product.credentials(namespace, name)
        assert f"/{namespace}/{name}/" in clients[client_id]
