"""What the API server lets the operator and tenants do, asked as these users."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..support.kubectl import Kubectl, KubectlError
from .test_refusals import CALLER, SERVER, SERVICE, changed

pytestmark = pytest.mark.cluster

HOME = "protectedservice-system"
OPERATOR = f"system:serviceaccount:{HOME}:protectedservice-operator"
TENANT = "tenant-of-the-api-server-tests"


@pytest.fixture(scope="module")
def operator(kubectl: Kubectl) -> Kubectl:
    return kubectl.impersonating(OPERATOR)


@pytest.fixture(scope="module")
def tenant(kubectl: Kubectl, namespace: str) -> Iterator[Kubectl]:
    """A user who holds the cluster's own role `edit` in one namespace."""
    # The controller manager adds our rules to `edit`: those for reading last, because they come by way of `view`.
    ours = "jsonpath={.rules[?(@.resources[0]=='authorizationservers')].apiGroups[0]}=protectedservice.dev"
    kubectl.wait("clusterrole", "edit", ours)
    kubectl.run("create", "rolebinding", TENANT, "--clusterrole=edit", f"--user={TENANT}", f"--namespace={namespace}")
    yield kubectl.impersonating(TENANT)
    kubectl.delete("rolebinding", TENANT, namespace=namespace)


def test_somebody_without_rights_may_do_nothing(kubectl: Kubectl) -> None:
    assert not kubectl.impersonating("nobody").can("get", "protectedservices.protectedservice.dev")


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("update", "protectedservices.protectedservice.dev"),
        ("delete", "protectedservices.protectedservice.dev"),
        ("update", "serviceclients.protectedservice.dev"),
        ("delete", "serviceclients.protectedservice.dev"),
        ("update", "authorizationservers.protectedservice.dev"),
        ("delete", "authorizationservers.protectedservice.dev"),
        ("delete", "secrets"),
        ("update", "secrets"),
        ("delete", "deployments.apps"),
        ("create", "pods"),
        ("create", "pods/exec"),
        ("get", "pods/log"),
        ("patch", "namespaces"),
        ("patch", "customresourcedefinitions.apiextensions.k8s.io"),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io"),
        ("get", "nodes"),
    ],
)
def test_the_operator_may_not(operator: Kubectl, verb: str, resource: str) -> None:
    assert not operator.can(verb, resource)


def test_the_operator_replaces_and_deletes_secrets_at_home_only(operator: Kubectl, namespace: str) -> None:
    assert operator.can("update", "secrets", namespace=HOME)
    assert operator.can("delete", "secrets", namespace=HOME)
    assert not operator.can("delete", "secrets", namespace=namespace)


def test_the_operator_applies_a_child_that_was_not_there(operator: Kubectl, namespace: str) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "orders-protected"}}

    applied = operator.apply(account, namespace=namespace, manager="protectedservice-operator", dry_run=True)

    assert applied["metadata"]["name"] == "orders-protected"


def test_a_tenant_writes_protected_services(tenant: Kubectl, namespace: str) -> None:
    applied = tenant.apply(changed(SERVICE, {"metadata.name": "mine"}), namespace=namespace, dry_run=True)

    assert applied["metadata"]["name"] == "mine"


def test_a_tenant_writes_service_clients(tenant: Kubectl, namespace: str) -> None:
    applied = tenant.apply(changed(CALLER, {"metadata.name": "mine"}), namespace=namespace, dry_run=True)

    assert applied["metadata"]["name"] == "mine"


def test_a_tenant_writes_no_status(tenant: Kubectl, namespace: str) -> None:
    assert not tenant.can("patch", "protectedservices.protectedservice.dev/status", namespace=namespace)
    assert not tenant.can("patch", "serviceclients.protectedservice.dev/status", namespace=namespace)


def test_a_tenant_reads_authorization_servers_and_cannot_write_them(tenant: Kubectl, namespace: str) -> None:
    assert tenant.can("get", "authorizationservers.protectedservice.dev", namespace=namespace)
    with pytest.raises(KubectlError, match="Forbidden"):
        tenant.apply(SERVER, namespace=namespace, dry_run=True)


def test_a_tenant_sees_nothing_of_the_operators_namespace(tenant: Kubectl) -> None:
    assert not tenant.can("get", "secrets", namespace=HOME)
    assert not tenant.can("get", "authorizationservers.protectedservice.dev", namespace=HOME)
