"""What tests of adoption begin with: a client made by other hands, a Secret that brings it, a service to adopt it."""

from __future__ import annotations

import base64
import json
from typing import Any

from protectedservice_operator.registration.hydra import TAG
from protectedservice_operator.resource import AUTHORIZATION_SERVER, PROTECTED_SERVICE, SECRET

from .fake_authorization_server import Client
from .fake_hydra import FakeHydra
from .fake_keycloak import FakeKeycloak
from .objects import OPERATOR_NAMESPACE, protected_service
from .world import World

KINDS = ["dynamic", "register-only", "hydra", "keycloak"]
MANAGED = ["hydra", "keycloak"]
UNMANAGED = ["dynamic", "register-only"]
SECRET_NAME = "legacy"


def adopting(namespace: str = "tenant", client_id: str = "legacy", **spec: Any) -> dict[str, Any]:
    """A ProtectedService that adopts; `policy` is its deletionPolicy."""
    adopt: dict[str, Any] = {"clientId": client_id, "credentialsSecret": {"name": SECRET_NAME}}
    if (policy := spec.pop("policy", None)) is not None:
        adopt["deletionPolicy"] = policy
    return protected_service("orders", namespace, client={"adopt": adopt}, **spec)


def secret(
    client_id: str = "legacy", client_secret: str = "legacy-secret-1", namespace: str = "tenant"
) -> dict[str, Any]:
    values = {"client_id": client_id, "client_secret": client_secret}
    data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    labels = {"protectedservice.dev/watch": "true"}
    metadata = {"name": SECRET_NAME, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}


def bring(world: World, client_secret: str) -> None:
    data = secret(client_secret=client_secret)["data"]
    world.cluster.edit(SECRET, "tenant", SECRET_NAME, lambda body: body.update(data=data))


def made_by_hand(
    world: World, client_id: str = "legacy", client_secret: str = "legacy-secret-1", tag: str | None = None
) -> Client:
    """The server's administrator made a client, long ago."""
    server = world.server
    server.secrets_ever.add(client_secret)
    if isinstance(server, FakeKeycloak):
        body: dict[str, Any] = {
            "clientId": client_id,
            "secret": client_secret,
            "name": "by hand",
            "attributes": {TAG: tag} if tag is not None else {},
            "defaultClientScopes": [],
            "optionalClientScopes": ["read"],
        }
        server._create(body)
        server.created_total -= 1
        return server.clients[client_id]
    metadata: dict[str, Any] = {"scope": "read", "client_name": "by hand", "grant_types": ["client_credentials"]}
    if isinstance(server, FakeHydra):
        metadata["token_endpoint_auth_method"] = "client_secret_basic"
        metadata["metadata"] = {TAG: tag} if tag is not None else {}
    server.clients[client_id] = Client(client_id, client_secret, "", metadata)
    return server.clients[client_id]


def tag_of(world: World, client_id: str = "legacy") -> str:
    if isinstance(world.server, FakeKeycloak):
        return str(world.server.realm_clients[client_id].representation["attributes"].get(TAG))
    return str(world.server.clients[client_id].metadata.get("metadata", {}).get(TAG))


def allow(world: World, *, allowed: bool = True) -> None:
    world.cluster.edit(
        AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default", lambda body: body["spec"].update(allowAdoption=allowed)
    )


def edit(world: World, **spec: Any) -> None:
    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", lambda body: body["spec"].update(spec))


async def prepared(kind: str, *, honoured: bool = True) -> World:
    """Everything is there but the service."""
    world = World(kind=kind, idempotency_honoured=honoured)
    allow(world)
    made_by_hand(world)
    world.cluster.insert(SECRET, secret())
    await world.settle()
    return world


async def adopted(kind: str, **spec: Any) -> World:
    world = await prepared(kind)
    world.add(adopting(**spec))
    await world.settle()
    assert world.condition("orders", "Ready") == ("True", "Ready"), world.service()["status"]["conditions"]
    return world


def refused(world: World, namespace: str = "tenant") -> tuple[str, str] | None:
    return world.condition("orders", "ClientRegistered", namespace)


def assert_untouched(world: World, before: Client, copy: tuple[str, dict[str, Any]]) -> None:
    assert world.server.clients[before.client_id] is before
    assert (before.client_secret, before.metadata) == copy


def copied(client: Client) -> tuple[str, dict[str, Any]]:
    return client.client_secret, json.loads(json.dumps(client.metadata))
