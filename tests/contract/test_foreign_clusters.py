"""Tests write to no cluster but the one that scripts/e2e_kind.sh made."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..support.kubectl import CLUSTER_VARIABLE, ForeignCluster, Kubectl


def kubeconfig(folder: Path, context: str) -> Path:
    file = folder / f"{context}.yaml"
    file.write_text(f"apiVersion: v1\nkind: Config\ncurrent-context: {context}\n", encoding="utf-8")
    return file


def test_the_cluster_of_the_scripts_is_used(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path, "kind-protectedservice-e2e")

    kubectl = Kubectl.of_e2e_cluster({CLUSTER_VARIABLE: "protectedservice-e2e", "KUBECONFIG": str(file)})

    assert kubectl.kubeconfig == file


def test_another_context_is_refused_by_name(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path, "production")

    with pytest.raises(ForeignCluster, match=r"'production', not 'kind-e2e': run scripts/e2e_kind\.sh"):
        Kubectl.of_e2e_cluster({CLUSTER_VARIABLE: "e2e", "KUBECONFIG": str(file)})


def test_a_kubeconfig_without_the_scripts_variable_is_refused(tmp_path: Path) -> None:
    file = kubeconfig(tmp_path, "kind-e2e")

    with pytest.raises(ForeignCluster, match=CLUSTER_VARIABLE):
        Kubectl.of_e2e_cluster({"KUBECONFIG": str(file)})


def test_no_kubeconfig_is_refused_rather_than_the_users_own_taken() -> None:
    with pytest.raises(ForeignCluster, match="KUBECONFIG"):
        Kubectl.of_e2e_cluster({CLUSTER_VARIABLE: "e2e"})


def test_several_kubeconfigs_are_refused(tmp_path: Path) -> None:
    one, other = kubeconfig(tmp_path, "kind-e2e"), kubeconfig(tmp_path, "production")

    with pytest.raises(ForeignCluster, match="not one existing file"):
        Kubectl.of_e2e_cluster({CLUSTER_VARIABLE: "e2e", "KUBECONFIG": f"{one}:{other}"})
