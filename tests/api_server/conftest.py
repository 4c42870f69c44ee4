"""A real API server with the shipped schemas and rights, and a namespace of the run's own.

Only on the cluster that scripts/e2e_kind.sh made; without one, the tests are skipped and say so. Where an operator
runs there, it may not register anything for these tests: the namespace carries the label that the overlay e2e denies.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from ..contract.manifests import K8S
from ..contract.schema import ROOT
from ..support.kubectl import CLUSTER_VARIABLE, NO_CLUSTER, Kubectl

KEEP_VARIABLE = "PROTECTEDSERVICE_E2E_KEEP_NAMESPACE"  # scripts/e2e_kind.sh --keep-namespace
RIGHTS = ("namespace", "service_account", "cluster_role", "role", "user_roles")


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    """kubectl on a cluster that has the schemas and rights of this checkout."""
    if not os.environ.get(CLUSTER_VARIABLE):
        pytest.skip(NO_CLUSTER)
    kubectl = Kubectl.of_e2e_cluster(os.environ)
    kubectl.run("apply", "--server-side", f"--kustomize={ROOT / 'crds'}")
    for plural in ("protectedservices", "serviceclients", "authorizationservers"):
        kubectl.wait("crd", f"{plural}.protectedservice.dev", "condition=Established")
    kubectl.run("apply", "--server-side", *(f"--filename={K8S / 'base' / name}.yaml" for name in RIGHTS))
    return kubectl


@pytest.fixture(scope="session")
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """A restricted namespace that no authorization server allows."""
    name = f"api-server-{secrets.token_hex(4)}"
    labels = {"protectedservice.dev/e2e-denied": "true", "pod-security.kubernetes.io/enforce": "restricted"}
    kubectl.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    yield name
    if not os.environ.get(KEEP_VARIABLE):
        kubectl.delete("namespace", name, wait=False)
