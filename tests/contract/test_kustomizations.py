"""The kustomizations hang together: files exist, images have one version, pods are restricted, probes are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .manifests import EXAMPLES, K8S, KUSTOMIZATIONS, documents, is_patch, shipped, version
from .schema import ROOT

DEPLOYMENTS = [pytest.param(document, id=f"{file.parent.name}/{file.stem}") for file, document in shipped("Deployment")]
WORKLOADS = DEPLOYMENTS + [
    pytest.param(document, id=f"{file.parent.name}/{document['metadata']['name']}")
    for kind in ("StatefulSet", "Job")
    for file, document in shipped(kind)
]
DATABASE = K8S / "authorization_server_postgresql"
IMAGES = {document["name"]: document for document in documents(K8S / "images/kustomization.yaml")[0]["images"]}


def references(kustomization: Path) -> list[Path]:
    content = documents(kustomization)[0]
    names = [*content.get("resources", []), *content.get("components", []), *content.get("configurations", [])]
    names += [patch["path"] for patch in content.get("patches", []) if "path" in patch]
    return [(kustomization.parent / name).resolve() for name in names]


@pytest.mark.parametrize("kustomization", KUSTOMIZATIONS, ids=lambda file: str(file.relative_to(ROOT).parent))
def test_everything_a_kustomization_names_exists(kustomization: Path) -> None:
    for reference in references(kustomization):
        assert reference.is_file() or (reference / "kustomization.yaml").is_file(), reference


def test_every_manifest_is_an_example_or_named_by_a_kustomization() -> None:
    named = {reference for kustomization in KUSTOMIZATIONS for reference in references(kustomization)}
    files = {file.resolve() for folder in (K8S, ROOT / "crds") for file in folder.rglob("*.yaml")}

    assert files - named - set(KUSTOMIZATIONS) - set(EXAMPLES) == set()


def test_every_patch_meets_an_object_that_the_overlay_brings() -> None:
    objects = {
        (document["kind"], document["metadata"]["name"])
        for file in sorted(K8S.rglob("*.yaml"))
        if not is_patch(file)
        for document in documents(file)
        if isinstance(document, dict) and "metadata" in document
    }
    for kustomization in KUSTOMIZATIONS:
        for patch in documents(kustomization)[0].get("patches", []):
            content = documents(kustomization.parent / patch["path"])[0]
            target = patch.get("target") or {"kind": content["kind"], "name": content["metadata"]["name"]}

            assert (target["kind"], target["name"]) in objects, kustomization


def test_images_carry_the_version_of_the_project() -> None:
    assert {image["newTag"] for image in IMAGES.values()} == {version()}
    assert all(image["newName"] == name for name, image in IMAGES.items())


@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_image_is_one_of_ours_and_named_in_one_place(workload: dict[str, Any]) -> None:
    for container in workload["spec"]["template"]["spec"]["containers"]:
        name, _, tag = container["image"].partition(":")

        assert name in IMAGES
        assert tag in {"", version()}  # examples name the tag: they are applied without kustomize
        assert container["imagePullPolicy"] == "IfNotPresent"


@pytest.mark.parametrize("workload", WORKLOADS)
def test_pods_are_restricted_and_write_nowhere_but_to_volumes(workload: dict[str, Any]) -> None:
    pod = workload["spec"]["template"]["spec"]
    security = pod["securityContext"]

    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == 65532
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["enableServiceLinks"] is False
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_probes_name_a_port_that_the_container_has(deployment: dict[str, Any]) -> None:
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        ports = {port["name"] for port in container["ports"]}
        probes = [value for key, value in container.items() if key.endswith("Probe")]

        assert probes
        assert all(probe["httpGet"]["port"] in ports for probe in probes)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_only_the_operator_gets_a_token_of_the_cluster(workload: dict[str, Any]) -> None:
    pod = workload["spec"]["template"]["spec"]

    assert pod["automountServiceAccountToken"] is (pod.get("serviceAccountName") == "protectedservice-operator")


@pytest.mark.parametrize("workload", WORKLOADS)
def test_no_environment_variable_holds_a_credential(workload: dict[str, Any]) -> None:
    for container in workload["spec"]["template"]["spec"]["containers"]:
        for variable in container.get("env", []):
            if any(word in variable["name"] for word in ("TOKEN", "SECRET", "PASSWORD")):
                assert "secretKeyRef" in variable["valueFrom"], variable["name"]


def test_every_namespace_enforces_the_restricted_profile() -> None:
    for file, namespace in shipped("Namespace"):
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted", file


def test_the_operator_never_runs_twice_and_may_finish_a_registration() -> None:
    (deployment,) = documents(K8S / "base/deployment.yaml")

    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 60


def test_the_default_authorization_server_of_the_operator_is_the_one_that_is_applied() -> None:
    (patch,) = documents(K8S / "overlays/quickstart/operator_environment.yaml")
    (server,) = documents(K8S / "overlays/quickstart/authorization_server.yaml")
    (variable,) = patch["spec"]["template"]["spec"]["containers"][0]["env"]

    assert variable == {
        "name": "PROTECTEDSERVICE_DEFAULT_AUTHORIZATION_SERVER",
        "value": f"{server['metadata']['namespace']}/{server['metadata']['name']}",
    }


def test_the_issuer_is_the_same_at_the_server_and_at_those_who_ask_it() -> None:
    (server,) = documents(K8S / "overlays/quickstart/authorization_server.yaml")
    (deployment,) = documents(K8S / "authorization_server/deployment.yaml")
    (service,) = documents(K8S / "authorization_server/service.yaml")
    environment = {v["name"]: v for v in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}

    assert environment["AUTHORIZATION_SERVER_ISSUER"]["value"] == server["spec"]["issuer"]
    assert server["spec"]["issuer"] == f"http://{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    assert service["spec"]["ports"][0]["port"] == 80


def test_only_one_kustomization_needs_the_database_and_the_quickstart_does_not() -> None:
    users = {
        kustomization.parent.name for kustomization in KUSTOMIZATIONS if DATABASE.resolve() in references(kustomization)
    }

    assert users == {"e2e"}


def test_the_database_is_reached_by_the_name_and_with_the_password_that_it_has() -> None:
    service, stateful_set = documents(DATABASE / "postgresql.yaml")
    (patch,) = documents(DATABASE / "deployment.yaml")
    (job,) = documents(DATABASE / "migration.yaml")
    (volume,) = [v for v in stateful_set["spec"]["template"]["spec"]["volumes"] if "secret" in v]
    for workload in (patch, job):
        environment = {v["name"]: v for v in workload["spec"]["template"]["spec"]["containers"][0]["env"]}
        password = environment["AUTHORIZATION_SERVER_DATABASE_PASSWORD"]["valueFrom"]["secretKeyRef"]

        assert environment["AUTHORIZATION_SERVER_DATABASE_HOST"]["value"] == service["metadata"]["name"]
        assert password == {"name": volume["secret"]["secretName"], "key": volume["secret"]["items"][0]["key"]}
        assert environment["AUTHORIZATION_SERVER_SECRET_KEY"]["valueFrom"]["secretKeyRef"]["name"] == password["name"]
    assert service["spec"]["selector"] == stateful_set["spec"]["selector"]["matchLabels"]
    assert service["spec"]["ports"][0]["port"] == 5432


def test_each_service_selects_the_pods_of_one_workload_only() -> None:
    """The Job runs the authorization server's image: were it selected too, callers would be sent to it."""
    labels = [
        (document["kind"], document["spec"]["template"]["metadata"]["labels"])
        for file in sorted(K8S.rglob("*.yaml"))
        if "examples" not in file.parts and not is_patch(file)
        for document in documents(file)
        if isinstance(document, dict) and "template" in document.get("spec", {})
    ]
    for file, service in shipped("Service"):
        if "examples" not in file.parts:
            selected = [kind for kind, found in labels if service["spec"]["selector"].items() <= found.items()]

            assert len(selected) == 1, service["metadata"]["name"]
            assert "Job" not in selected


def test_the_migration_is_run_again_by_the_next_apply_and_ends_by_itself() -> None:
    (job,) = documents(DATABASE / "migration.yaml")

    assert job["spec"]["ttlSecondsAfterFinished"] <= 300
    assert job["spec"]["activeDeadlineSeconds"]
    assert (ROOT / "authorization_server" / job["spec"]["template"]["spec"]["containers"][0]["command"][-1]).exists()
