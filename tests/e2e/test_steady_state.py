"""Silence: what does not change costs no write and no call, and neither does a restart of the operator."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from .conftest import MakeNamespace
from .product import SYSTEM, Product

pytestmark = pytest.mark.cluster

NAMES = [f"service-{number}" for number in range(5)]
PROBE = "/.well-known/oauth-authorization-server"  # of the AuthorizationServer, every 30 s: named by the design


def calls(product: Product) -> list[str]:
    """Paths that the operator asked of the authorization server, probes and the hourly looks at clients left out."""
    return [line["path"] for line in product.server_requests() if line["path"] != PROBE and not is_look(line)]


def is_look(line: dict[str, object]) -> bool:
    return line["method"] == "GET" and str(line["path"]).startswith("/oauth/register/")


def looks(product: Product) -> Counter[str]:
    """How often each client was looked at; named by the design: once an hour."""
    return Counter(line["path"] for line in product.server_requests() if is_look(line))


def probes(product: Product) -> int:
    return sum(line["path"] == PROBE for line in product.server_requests())


def described(writes: list[dict[str, object]]) -> list[str]:
    return [f"{write['verb']} {write['requestURI']}" for write in writes]


def test_five_services_cost_no_write_and_no_call_in_a_minute_nor_at_a_restart(
    product: Product, make_namespace: MakeNamespace
) -> None:
    namespace = make_namespace()
    product.operator_runs()
    for name in NAMES:
        product.protect(namespace, name)
    for name in NAMES:
        product.ready(namespace, name)
    # The number of clients in the AuthorizationServer's status follows within a minute and a half (design: at most one
    # write a minute, at a probe, of which there is one every 30 s): let it, before silence is measured.
    time.sleep(95)
    asked, probed, looked, began = len(calls(product)), probes(product), looks(product), time.time()

    time.sleep(60)

    writes = product.audited_writes(began)
    print(f"60 s with 5 services: {len(writes)} API writes, {len(calls(product)) - asked} calls, "
          f"{probes(product) - probed} probes")  # fmt: skip
    assert described(writes) == []
    assert calls(product)[asked:] == []
    assert 1 <= probes(product) - probed <= 3

    began = time.time()
    product.kubectl.run("delete", "pods", f"--namespace={SYSTEM}", "--selector=app.kubernetes.io/name=operator")
    product.operator_runs()
    time.sleep(20)

    writes = product.audited_writes(began)
    print(f"restart with 5 services: {len(writes)} API writes, {len(calls(product)) - asked} calls")
    assert described(writes) == []
    assert calls(product)[asked:] == []
    assert all(times <= 2 for times in (looks(product) - looked).values())  # once by each of two processes
    for name in NAMES:
        product.ready(namespace, name, timeout=5)
