"""`workload.autoscaling` with a real metrics-server: CPU is measured, and load makes another pod."""

from __future__ import annotations

import pytest

from .conftest import MakeNamespace
from .product import Product, condition

# The metrics-server is built from its Go module, and a rise takes a minute: scripts/test.sh --all.
pytestmark = [pytest.mark.cluster, pytest.mark.slow]

CHILD = "busy-protected"
ROUNDS, ROUND_SECONDS = 24, 5.0  # the load ends by itself


@pytest.fixture(scope="module")
def place(make_namespace: MakeNamespace) -> str:
    return make_namespace()


def test_load_makes_another_pod(product: Product, place: str) -> None:
    autoscaling = {"min": 1, "max": 2, "targetCPUUtilization": 50}
    product.protect(place, "busy", workload={"autoscaling": autoscaling, "resources": {"requests": {"cpu": "20m"}}})
    product.ready(place, "busy")

    def scaler_says(type_: str) -> str | None:
        found = product.kubectl.get("horizontalpodautoscaler", CHILD, namespace=place)
        status: str | None = condition(found, type_).get("status")
        return status

    def pods() -> int:
        deployment = product.kubectl.get("deployment", CHILD, namespace=place)
        assert deployment is not None
        found: int = deployment["spec"]["replicas"]
        return found

    product.until(lambda: scaler_says("ScalingActive") == "True", 150, "the autoscaler has measured CPU")
    at_rest = pods()
    url, token = product.url(place, "busy") + "/protected", product.token(product.credentials(place, "busy"))
    counts: dict[str, int] = {}
    for _ in range(ROUNDS):
        for outcome, times in product.caller.ask_lasting(url, token=token, seconds=ROUND_SECONDS).items():
            counts[outcome] = counts.get(outcome, 0) + times
        if pods() == 2:
            break
    product.ready(place, "busy")

    assert (at_rest, pods()) == (1, 2)
    assert set(counts) == {"200"}
