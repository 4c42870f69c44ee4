"""What the API server makes of good objects: defaults, immutable fields, who owns which field, examples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..contract.manifests import EXAMPLES, documents, shipped
from ..contract.schema import schema, with_defaults
from ..support.kubectl import Kubectl, KubectlError, Object
from .test_refusals import CALLER, SERVER, SERVICE, changed

pytestmark = pytest.mark.cluster

CONDITION = {
    "type": "Ready",
    "status": "True",
    "reason": "Ready",
    "message": "",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}
STATUS: Object = {
    "observedGeneration": 1,
    "conditions": [{**CONDITION, "observedGeneration": 1}],
    "clientId": "client-1",
    "credentialsSecret": "stored-oauth2-client",
    "authorizationServer": {"namespace": "protectedservice-system", "name": "default"},
    "url": "http://stored-protected.tenant.svc",
    "registeredAt": "2026-01-01T00:00:00Z",
    "verification": {
        "lastVerified": "2026-01-01T00:00:00Z",
        "revocationDelay": "1.2s",
        "hash": "0123456789abcdef",
        "checks": [{"pod": "stored-protected-1", "name": "without a token", "result": "401"}],
    },
}


@pytest.fixture(scope="module")
def stored(kubectl: Kubectl, namespace: str) -> Iterator[str]:
    """Name of a ProtectedService that a tenant applied server-side and that says nothing but what it must."""
    kubectl.apply(changed(SERVICE, {"metadata.name": "stored"}), namespace=namespace, manager="tenant")
    yield "stored"
    kubectl.delete("protectedservice", "stored", namespace=namespace, wait=False)


@pytest.mark.parametrize("manifest", [SERVICE, SERVER], ids=["ProtectedService", "AuthorizationServer"])
def test_the_api_server_fills_in_the_defaults_that_the_contract_tests_assume(
    kubectl: Kubectl, namespace: str, manifest: Object
) -> None:
    accepted = kubectl.create(manifest, namespace=namespace, dry_run=True)

    assert accepted["spec"] == with_defaults(schema(manifest["kind"]), manifest)["spec"]


def test_the_smallest_protected_service_gets_the_defaults_of_the_design(kubectl: Kubectl, namespace: str) -> None:
    accepted = kubectl.create(SERVICE, namespace=namespace, dry_run=True)

    assert accepted["spec"] == {
        "scopes": ["read"],
        "scopeMatch": "All",
        "demo": False,
        "upstream": {
            "service": {"name": "orders", "port": 8080},
            "timeout": "30s",
            "forwardToken": False,
            "isolate": False,
        },
        "validation": {"maxRevocationDelay": "5s", "timeout": "2s", "retries": 1, "serveStale": "0s"},
        "workload": {
            "replicas": 2,
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
            "logLevel": "info",
        },
        "service": {"port": 80, "type": "ClusterIP"},
        "allowedClients": {"from": "Same"},
        "suspend": False,
    }


def test_the_smallest_authorization_server_allows_its_own_namespace_and_trusts_nothing(
    kubectl: Kubectl, namespace: str
) -> None:
    spec = kubectl.create(SERVER, namespace=namespace, dry_run=True)["spec"]

    assert spec["allowedNamespaces"] == {"from": "Same"}
    assert spec["allowInsecureHTTP"] is False
    assert spec["registration"]["dynamicClientRegistration"] == {"idempotencyKey": "Ignored", "open": False}


def test_the_defaults_of_a_service_client_are_those_of_the_schema(kubectl: Kubectl, namespace: str) -> None:
    spec = kubectl.create(CALLER, namespace=namespace, dry_run=True)["spec"]

    assert spec == with_defaults(schema("ServiceClient"), {"spec": CALLER["spec"]})["spec"]


@pytest.fixture(scope="module")
def caller(kubectl: Kubectl, namespace: str) -> Iterator[str]:
    """Name of a ServiceClient that says what is immutable."""
    changes: dict[str, Any] = {
        "metadata.name": "caller",
        "spec.authorizationServerRef": {"name": "default", "namespace": "platform"},
        "spec.credentialsSecret": {"name": "caller"},
    }
    kubectl.apply(changed(CALLER, changes), namespace=namespace, manager="tenant")
    yield "caller"
    kubectl.delete("serviceclient", "caller", namespace=namespace, wait=False)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param({"authorizationServerRef": {"name": "other"}}, "spec.authorizationServerRef", id="another server"),
        pytest.param({"authorizationServerRef": None}, "spec.authorizationServerRef", id="the reference goes"),
        pytest.param({"credentialsSecret": {"name": "other"}}, "spec.credentialsSecret.name", id="another Secret"),
        pytest.param({"credentialsSecret": {"name": None}}, "spec.credentialsSecret.name", id="the Secret's name goes"),
    ],
)
def test_what_is_immutable_of_a_service_client_cannot_be_changed(
    kubectl: Kubectl, namespace: str, caller: str, change: dict[str, Any], named: str
) -> None:
    with pytest.raises(KubectlError) as refusal:
        kubectl.patch("serviceclient", caller, {"spec": change}, namespace=namespace, dry_run=True)

    assert f"{named} is immutable" in refusal.value.stderr


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"services": [{"name": "other", "namespace": "a"}]}, id="other services"),
        pytest.param({"services": None, "scopes": ["read"], "audience": "urn:a:b"}, id="from services to scopes"),
        pytest.param({"credentialsSecret": {"keys": {"clientId": "ID"}}}, id="a key"),
        pytest.param({"deletionPolicy": "Retain", "services": None, "scopes": ["a"], "suspend": True}, id="policy"),
    ],
)
def test_the_rest_of_a_service_client_may_be_changed(
    kubectl: Kubectl, namespace: str, caller: str, change: dict[str, Any]
) -> None:
    kubectl.patch("serviceclient", caller, {"spec": change}, namespace=namespace, dry_run=True)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_every_example_is_accepted_as_it_stands(kubectl: Kubectl, namespace: str, file: Path) -> None:
    # Those that name a namespace go there, as a user would apply them.
    namespaces = {document["metadata"].get("namespace") for document in documents(file)} - {None}

    applied = kubectl.apply(
        file.read_text(encoding="utf-8"), namespace=None if namespaces else namespace, dry_run=True, manager="example"
    )

    assert len(applied.get("items", [applied])) == len(documents(file))


@pytest.mark.parametrize(
    "deployment",
    [pytest.param(document, id=f"{file.parent.name}/{file.stem}") for file, document in shipped("Deployment")],
)
def test_pods_of_every_shipped_deployment_pass_the_restricted_profile(
    kubectl: Kubectl, namespace: str, deployment: Object
) -> None:
    template = deployment["spec"]["template"]
    spec = {key: value for key, value in template["spec"].items() if key != "serviceAccountName"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe", "labels": template["metadata"]["labels"]}}

    accepted = kubectl.create({**pod, "spec": spec}, namespace=namespace, dry_run=True)

    assert accepted["kind"] == "Pod"


def test_a_pod_that_is_not_restricted_is_refused_there(kubectl: Kubectl, namespace: str) -> None:
    spec = {"containers": [{"name": "probe", "image": "probe"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": spec}

    with pytest.raises(KubectlError, match="violates PodSecurity"):
        kubectl.create(pod, namespace=namespace, dry_run=True)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param(
            {"authorizationServerRef": {"name": "other"}}, "spec.authorizationServerRef", id="a reference is added"
        ),
        pytest.param(
            {"client": {"credentialsSecret": {"name": "other"}}},
            "spec.client.credentialsSecret.name",
            id="a Secret's name is added",
        ),
    ],
)
def test_what_was_absent_stays_absent_where_that_counts(
    kubectl: Kubectl, namespace: str, stored: str, change: Object, named: str
) -> None:
    with pytest.raises(KubectlError) as refusal:
        kubectl.patch("protectedservice", stored, {"spec": change}, namespace=namespace, dry_run=True)

    assert f"{named} is immutable" in refusal.value.stderr


@pytest.mark.parametrize(
    ("change", "named"),
    [
        pytest.param(
            {"authorizationServerRef": {"name": "other"}}, "spec.authorizationServerRef", id="another server's name"
        ),
        pytest.param(
            {"authorizationServerRef": {"namespace": "other"}},
            "spec.authorizationServerRef",
            id="another server's namespace",
        ),
        pytest.param({"authorizationServerRef": None}, "spec.authorizationServerRef", id="the reference goes"),
        pytest.param(
            {"client": {"credentialsSecret": {"name": "other"}}},
            "spec.client.credentialsSecret.name",
            id="another Secret",
        ),
        pytest.param({"client": None}, "spec.client.credentialsSecret.name", id="the Secret's name goes"),
    ],
)
def test_what_was_given_stays_given_where_that_counts(
    kubectl: Kubectl, namespace: str, full: str, change: Object, named: str
) -> None:
    with pytest.raises(KubectlError) as refusal:
        kubectl.patch("protectedservice", full, {"spec": change}, namespace=namespace, dry_run=True)

    assert f"{named} is immutable" in refusal.value.stderr


@pytest.fixture(scope="module")
def full(kubectl: Kubectl, namespace: str) -> Iterator[str]:
    """Name of a ProtectedService that says what is immutable."""
    changes: dict[str, Any] = {
        "metadata.name": "full",
        "spec.authorizationServerRef": {"name": "default", "namespace": "platform"},
        "spec.client": {"name": "Full", "credentialsSecret": {"name": "full-client"}},
    }
    kubectl.apply(changed(SERVICE, changes), namespace=namespace, manager="tenant")
    yield "full"
    kubectl.delete("protectedservice", "full", namespace=namespace, wait=False)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"scopes": ["read", "write"]}, id="scopes"),
        pytest.param({"audience": "https://orders.example"}, id="audience"),
        pytest.param({"client": {"name": "Other"}}, id="the display name"),
        pytest.param({"upstream": None, "demo": True}, id="from upstream to demo"),
        pytest.param({"workload": {"replicas": 0}}, id="replicas"),
        pytest.param({"service": {"port": 8080, "type": "NodePort"}}, id="the Service"),
    ],
)
def test_everything_else_may_change(kubectl: Kubectl, namespace: str, full: str, change: Object) -> None:
    patched = kubectl.patch("protectedservice", full, {"spec": change}, namespace=namespace, dry_run=True)

    assert patched["metadata"]["generation"] == 2


def test_another_manager_cannot_take_a_field_unasked(kubectl: Kubectl, namespace: str, stored: str) -> None:
    other = changed(SERVICE, {"metadata.name": stored, "spec.upstream.service.port": 9999})

    with pytest.raises(KubectlError, match=r'conflict with "tenant".*\.spec\.upstream\.service\.port'):
        kubectl.apply(other, namespace=namespace, manager="other", dry_run=True)


def test_two_managers_add_scopes_to_one_set(kubectl: Kubectl, namespace: str, stored: str) -> None:
    other = changed(SERVICE, {"metadata.name": stored, "spec.scopes": ["write"]})

    applied = kubectl.apply(other, namespace=namespace, manager="other", dry_run=True)

    assert sorted(applied["spec"]["scopes"]) == ["read", "write"]


def test_a_write_to_status_changes_no_spec_and_no_generation(kubectl: Kubectl, namespace: str, stored: str) -> None:
    patch = {"spec": {"scopes": ["stolen"]}, "status": STATUS}

    patched = kubectl.patch("protectedservice", stored, patch, namespace=namespace, subresource="status", dry_run=True)

    assert patched["spec"]["scopes"] == ["read"]
    assert patched["metadata"]["generation"] == 1


def test_a_tenant_cannot_write_status_with_the_object(kubectl: Kubectl, namespace: str, stored: str) -> None:
    patched = kubectl.patch(
        "protectedservice", stored, {"status": {"clientId": "forged"}}, namespace=namespace, dry_run=True
    )

    assert patched.get("status", {}).get("clientId") != "forged"


def test_the_whole_status_of_the_design_is_kept(kubectl: Kubectl, namespace: str, stored: str) -> None:
    patched = kubectl.patch(
        "protectedservice", stored, {"status": STATUS}, namespace=namespace, subresource="status", dry_run=True
    )

    assert patched["status"] == STATUS


@pytest.mark.parametrize(
    ("condition", "named"),
    [
        pytest.param({**CONDITION, "status": "true"}, "status.conditions[0].status", id="a status in small letters"),
        pytest.param({**CONDITION, "reason": "no reason"}, "status.conditions[0].reason", id="a reason of two words"),
        pytest.param({"type": "Ready", "status": "True"}, "status.conditions[0].message", id="half a condition"),
    ],
)
def test_a_bad_condition_is_refused(
    kubectl: Kubectl, namespace: str, stored: str, condition: Object, named: str
) -> None:
    with pytest.raises(KubectlError) as refusal:
        kubectl.patch(
            "protectedservice",
            stored,
            {"status": {"conditions": [condition]}},
            namespace=namespace,
            subresource="status",
            dry_run=True,
        )

    assert named in refusal.value.stderr
