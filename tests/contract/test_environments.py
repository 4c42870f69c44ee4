"""The environment that the manifests give each program is one that the program accepts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from protectedservice_operator import settings

from .manifests import K8S, documents, shipped
from .schema import ROOT


def configuration() -> ModuleType:
    """The authorization server's own reading of its environment; its package is not installed, only in its image."""
    file = ROOT / "authorization_server/protectedservice_authorization_server/configuration.py"
    spec = importlib.util.spec_from_file_location("authorization_server_configuration", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["spec"]["template"]["spec"]["containers"][0]
    return found


def environment(manifest: dict[str, Any]) -> dict[str, str]:
    """The variables of the first container; `from-elsewhere` where a Secret or the pod itself gives the value."""
    return {variable["name"]: variable.get("value", "from-elsewhere") for variable in container(manifest)["env"]}


def test_the_operator_accepts_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    (deployment,) = documents(K8S / "base/deployment.yaml")
    (overlay,) = documents(K8S / "overlays/quickstart/operator_environment.yaml")
    given = environment(deployment) | environment(overlay)
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    loaded = settings.load()

    assert loaded.server_image == given["PROTECTEDSERVICE_SERVER_IMAGE"]
    assert loaded.default_server_place == ("protectedservice-system", "default")
    assert (
        loaded.management_port == deployment["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"]
    )
    assert {name.removeprefix(settings.PREFIX).lower() for name in given} <= set(settings.Settings.model_fields)


def test_the_authorization_server_accepts_its_environment(tmp_path: Path) -> None:
    (deployment,) = documents(K8S / "authorization_server/deployment.yaml")
    given = environment(deployment)
    data_folder = "AUTHORIZATION_SERVER_DATA_DIR"

    loaded = configuration().load({**given, data_folder: str(tmp_path)})  # must exist where it is checked

    assert loaded.issuer == given["AUTHORIZATION_SERVER_ISSUER"]
    assert loaded.bind.endswith(f":{container(deployment)['ports'][0]['containerPort']}")
    assert given[data_folder] in {mount["mountPath"] for mount in container(deployment)["volumeMounts"]}


def test_the_authorization_server_with_replicas_and_its_migration_accept_their_environments() -> None:
    (deployment,) = documents(K8S / "authorization_server/deployment.yaml")
    (patch,) = documents(K8S / "authorization_server_postgresql/deployment.yaml")
    (job,) = documents(K8S / "authorization_server_postgresql/migration.yaml")
    removed = {variable["name"] for variable in container(patch)["env"] if variable.get("$patch") == "delete"}
    merged = environment(deployment) | environment(patch)
    server = {name: value for name, value in merged.items() if name not in removed}

    loaded = configuration().load(server)

    assert removed == {"AUTHORIZATION_SERVER_DATA_DIR"}
    assert loaded.database.host == "postgresql"
    assert f"name={loaded.database.name}\n" in (ROOT / "postgresql/start.sh").read_text(encoding="utf-8")
    assert loaded.database.user == loaded.database.name
    assert environment(job) == server


@pytest.mark.parametrize(
    "document", [pytest.param(document, id=file.stem) for file, document in shipped("ProtectedService")]
)
def test_the_authorization_server_of_the_quickstart_knows_the_scopes_of_every_example(document: dict[str, Any]) -> None:
    assert set(document["spec"]["scopes"]) <= set(configuration().DEFAULT_SCOPES.split())
