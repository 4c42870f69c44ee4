"""The operator's rights: each rule has its reason, none is wider than said, every watch is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from protectedservice_operator.resource import WATCHED, Kind

from .manifests import K8S, documents

BASE: Final = K8S / "base"
Right = tuple[str, str, str]  # group, resource, verb


def rights(document: dict[str, Any]) -> Iterator[Right]:
    for rule in document["rules"]:
        for group in rule["apiGroups"]:
            for name in rule["resources"]:
                for verb in rule["verbs"]:
                    yield group, name, verb


def everywhere() -> set[Right]:
    return set(rights(documents(BASE / "cluster_role.yaml")[0]))


def at_home() -> set[Right]:
    return set(rights(documents(BASE / "role.yaml")[0]))


@pytest.mark.parametrize("file", ["cluster_role.yaml", "role.yaml", "user_roles.yaml"])
def test_every_rule_is_preceded_by_its_reason(file: str) -> None:
    lines = (BASE / file).read_text(encoding="utf-8").splitlines()

    assert all(lines[at - 1].startswith("# ") for at, line in enumerate(lines) if line.startswith("- apiGroups"))


@pytest.mark.parametrize("file", ["cluster_role.yaml", "role.yaml", "user_roles.yaml"])
def test_no_rule_has_a_wildcard(file: str) -> None:
    roles = [document for document in documents(BASE / file) if "rules" in document]

    assert roles
    assert not any("*" in part for role in roles for right in rights(role) for part in right)


@pytest.mark.parametrize("kind", WATCHED, ids=str)
def test_every_kind_that_is_watched_may_be_watched(kind: Kind) -> None:
    assert {(kind.group, kind.plural, verb) for verb in ("get", "list", "watch")} <= everywhere()


def test_the_operator_may_write_exactly_this_everywhere() -> None:
    writing = {right for right in everywhere() if right[2] not in {"get", "list", "watch"}}

    assert writing == {
        ("protectedservice.dev", "protectedservices", "patch"),
        ("protectedservice.dev", "serviceclients", "patch"),
        ("protectedservice.dev", "authorizationservers", "patch"),
        ("protectedservice.dev", "serviceclients/status", "patch"),
        ("protectedservice.dev", "serviceclients/finalizers", "update"),
        ("protectedservice.dev", "protectedservices/status", "patch"),
        ("protectedservice.dev", "authorizationservers/status", "patch"),
        ("protectedservice.dev", "protectedservices/finalizers", "update"),
        ("", "secrets", "create"),
        ("", "secrets", "patch"),
        ("apps", "deployments", "create"),
        ("apps", "deployments", "patch"),
        ("", "services", "create"),
        ("", "services", "patch"),
        ("", "serviceaccounts", "create"),
        ("", "serviceaccounts", "patch"),
        ("", "configmaps", "create"),
        ("", "configmaps", "patch"),
        ("", "configmaps", "delete"),
        ("autoscaling", "horizontalpodautoscalers", "create"),
        ("autoscaling", "horizontalpodautoscalers", "patch"),
        ("autoscaling", "horizontalpodautoscalers", "delete"),
        ("networking.k8s.io", "networkpolicies", "create"),
        ("networking.k8s.io", "networkpolicies", "patch"),
        ("networking.k8s.io", "networkpolicies", "delete"),
        ("policy", "poddisruptionbudgets", "create"),
        ("policy", "poddisruptionbudgets", "patch"),
        ("policy", "poddisruptionbudgets", "delete"),
        ("", "events", "create"),
    }


def test_only_in_its_own_namespace_may_it_replace_and_delete_secrets() -> None:
    assert at_home() == {("", "secrets", "update"), ("", "secrets", "delete")}


def test_the_bindings_give_the_roles_to_the_operators_account_only() -> None:
    (deployment,) = documents(BASE / "deployment.yaml")
    (account,) = documents(BASE / "service_account.yaml")
    for file in ("cluster_role.yaml", "role.yaml"):
        role, binding = documents(BASE / file)

        assert binding["roleRef"]["name"] == role["metadata"]["name"]
        assert binding["subjects"] == [
            {
                "kind": "ServiceAccount",
                "name": account["metadata"]["name"],
                "namespace": account["metadata"]["namespace"],
            }
        ]
    assert deployment["spec"]["template"]["spec"]["serviceAccountName"] == account["metadata"]["name"]


def test_tenants_write_protected_services_and_service_clients_and_nothing_else() -> None:
    roles = {document["metadata"]["name"]: set(rights(document)) for document in documents(BASE / "user_roles.yaml")}

    assert {right[2] for right in roles["protectedservice-view"]} == {"get", "list", "watch"}
    assert {right[1] for right in roles["protectedservice-edit"]} == {"protectedservices", "serviceclients"}
