"""A client whose object vanished without it is shown by the command, and goes when the command is told so."""

from __future__ import annotations

import json

import pytest

from .conftest import MakeNamespace
from .product import SYSTEM, Product

pytestmark = pytest.mark.cluster


def orphans(product: Product, *words: str) -> str:
    place = f"--namespace={SYSTEM}"
    return product.kubectl.run(
        "exec", place, "deployment/protectedservice-operator", "--", "protectedservice-operator", "orphans", *words
    )


def test_a_torn_off_finalizer_leaves_an_orphan_that_the_command_shows_and_deletes(
    product: Product, make_namespace: MakeNamespace
) -> None:
    namespace = make_namespace()
    product.protect(namespace)
    product.ready(namespace)
    client, _ = product.credentials(namespace)
    # Suspended, the operator does not put the finalizer back between the two calls.
    suspended, bare = json.dumps({"spec": {"suspend": True}}), json.dumps({"metadata": {"finalizers": None}})
    for patch in (suspended, bare):
        product.kubectl.run(
            "patch", "protectedservice", "orders", f"--namespace={namespace}", "--type=merge", f"--patch={patch}"
        )
    product.kubectl.delete("protectedservice", "orders", namespace=namespace)

    (row,) = [row for row in json.loads(orphans(product, "list", "--output", "json")) if row["client"] == client]
    assert row["owner"] == f"ProtectedService {namespace}/orders"
    assert row["state"] == "deletable"
    assert "would delete client" in orphans(product, "delete", row["entry"])
    assert list(product.clients_of(namespace)) == [client]

    orphans(product, "delete", row["entry"], "--yes")

    product.until(lambda: list(product.clients_of(namespace)) == [], 30, f"client {client} is gone")
    product.until(
        lambda: product.kubectl.get("secret", row["entry"], namespace=SYSTEM) is None, 30, "its ledger entry is gone"
    )
