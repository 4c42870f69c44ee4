"""What kustomize makes of k8s/ is accepted by the API server and names every image in full."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from ..contract.manifests import K8S, version
from ..support.kubectl import Kubectl

pytestmark = pytest.mark.cluster

FOLDERS = ["base", "authorization_server", "overlays/quickstart", "overlays/e2e"]


def built(kubectl: Kubectl, folder: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(kubectl.run("kustomize", str(K8S / folder))))


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_object_of_a_kustomization_is_accepted(kubectl: Kubectl, namespace: str, folder: str) -> None:
    objects = built(kubectl, folder)
    for manifest in objects:
        if "namespace" in manifest["metadata"]:  # that one need not exist here
            manifest["metadata"]["namespace"] = namespace
    text = yaml.safe_dump_all(objects)

    accepted = kubectl.apply(text, manager="overlays", dry_run=True, force=True)

    assert len(accepted["items"]) == len(objects)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_image_is_named_with_its_version(kubectl: Kubectl, folder: str) -> None:
    containers = [
        container
        for manifest in built(kubectl, folder)
        if manifest["kind"] in ("Deployment", "StatefulSet", "Job")
        for container in manifest["spec"]["template"]["spec"]["containers"]
    ]
    images = [container["image"] for container in containers]
    images += [
        variable["value"]
        for container in containers
        for variable in container.get("env", [])
        if variable["name"].endswith("_IMAGE")
    ]

    assert images
    assert all(image.startswith("protectedservice/") and image.endswith(f":{version()}") for image in images)


def test_the_overlay_e2e_differs_from_the_quickstart_in_its_database_and_in_the_namespaces_that_it_denies(
    kubectl: Kubectl,
) -> None:
    quickstart, e2e = (
        {(item["kind"], item["metadata"]["name"]): item for item in built(kubectl, folder)}
        for folder in ("overlays/quickstart", "overlays/e2e")
    )
    changed = {name for name in quickstart.keys() & e2e.keys() if quickstart[name] != e2e[name]}

    assert quickstart.keys() - e2e.keys() == {("PersistentVolumeClaim", "authorization-server")}
    assert e2e.keys() - quickstart.keys() == {
        ("Service", "postgresql"), ("StatefulSet", "postgresql"), ("Job", "authorization-server-migration"),
    }  # fmt: skip
    assert changed == {("Deployment", "authorization-server"), ("AuthorizationServer", "default")}
    pod = e2e["Deployment", "authorization-server"]["spec"]["template"]["spec"]
    assert [volume["name"] for volume in pod["volumes"]] == ["tmp"]
    assert "AUTHORIZATION_SERVER_DATA_DIR" not in {variable["name"] for variable in pod["containers"][0]["env"]}
    allowed = e2e["AuthorizationServer", "default"]["spec"]["allowedNamespaces"]
    assert allowed["from"] == "Selector"
    assert allowed["selector"]["matchExpressions"] == [
        {"key": "protectedservice.dev/e2e-denied", "operator": "NotIn", "values": ["true"]}
    ]
