"""The product on the cluster that scripts/e2e_kind.sh made, namespaces of the run's own, the state after a failure."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Generator, Iterator

import pytest

from ..support.kubectl import CLUSTER_VARIABLE, NO_CLUSTER, Kubectl, KubectlError
from .caller import Caller
from .product import SERVER_NAMESPACE, SERVER_SELECTOR, SYSTEM, Product

KEEP_VARIABLE = "PROTECTEDSERVICE_E2E_KEEP_NAMESPACE"  # scripts/e2e_kind.sh --keep-namespace
MakeNamespace = Callable[..., str]


def _create(kubectl: Kubectl, name: str, labels: dict[str, str]) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "restricted", **labels}
    kubectl.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})


@pytest.fixture(scope="session")
def product() -> Iterator[Product]:
    """The running product, with a caller in the cluster."""
    if not os.environ.get(CLUSTER_VARIABLE):
        pytest.skip(NO_CLUSTER)
    kubectl = Kubectl.of_e2e_cluster(os.environ)
    name = f"e2e-caller-{secrets.token_hex(3)}"
    _create(kubectl, name, {})
    with Caller(kubectl, name) as caller:
        product = Product(kubectl, caller, os.environ[CLUSTER_VARIABLE])
        yield product
        for leaving in product.leaving:
            product.until(
                lambda name=leaving: kubectl.get("namespace", name) is None,  # type: ignore[misc]
                180,
                f"namespace {leaving} is gone",
            )
    kubectl.delete("namespace", name, wait=False)


@pytest.fixture(scope="module")
def make_namespace(product: Product, request: pytest.FixtureRequest) -> Iterator[MakeNamespace]:
    """Makes restricted namespaces that end with the module; what they held is remembered for the search of the run."""
    made: list[str] = []

    def make(**labels: str) -> str:
        module = request.module.__name__.rpartition(".test_")[2].replace("_", "-")
        name = f"e2e-{module}-{secrets.token_hex(3)}"
        _create(product.kubectl, name, {f"protectedservice.dev/{key}": value for key, value in labels.items()})
        made.append(name)
        return name

    yield make
    for name in made:
        product.remember(name)
        if not os.environ.get(KEEP_VARIABLE):
            # The services first, while somebody looks: what is left of a namespace is Kubernetes' own affair, and the
            # session waits for all of them once, at its end.
            product.kubectl.run(
                "delete", "serviceclients,protectedservices", "--all", f"--namespace={name}", "--timeout=120s",
                timeout=130,
            )  # fmt: skip
            product.kubectl.delete("namespace", name, wait=False)
            product.leaving.append(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the state of the cluster to the report of a failed test."""
    report = yield
    product = getattr(item, "funcargs", {}).get("product")
    if report.failed and isinstance(product, Product):
        report.sections.append(("state of the cluster", _state(product)))
    return report


def _state(product: Product) -> str:
    questions: list[list[str]] = [
        ["get", "protectedservices,serviceclients,authorizationservers", "-A", "-o", "yaml"],
        ["get", "pods,services,deployments,statefulsets,jobs", "-A", "-o", "wide"],
        ["get", "events", "-A", "--sort-by=.lastTimestamp"],
        ["logs", "-n", SYSTEM, "deployment/protectedservice-operator", "--tail=80"],
        ["logs", "-n", SYSTEM, "deployment/protectedservice-operator", "--tail=40", "--previous"],
        ["logs", "-n", SERVER_NAMESPACE, f"--selector={SERVER_SELECTOR}", "--prefix", "--tail=40"],
        ["logs", "-n", SERVER_NAMESPACE, "statefulset/postgresql", "--tail=40"],
    ]
    parts = []
    for question in questions:
        try:
            answer = product.kubectl.run(*question)[-12_000:]
        except KubectlError as error:
            answer = str(error)
        parts.append(f"$ kubectl {' '.join(question)}\n{answer}")
    return "\n".join(parts)
