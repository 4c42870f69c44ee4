"""What of a ProtectedService becomes policy and mounts of its pods: rules, resource, upstream."""

from __future__ import annotations

import json
from typing import Any

import pytest

from protectedservice_operator import manifests
from protectedservice_operator.authorization_server import Endpoints
from protectedservice_operator.protected_service import ProtectedService
from protectedservice_operator.resource import CONFIG_MAP, DEPLOYMENT, PROTECTED_SERVICE

from ..support.objects import protected_service
from ..support.world import World

CHILD = "orders-protected"


async def ready_world(**spec: Any) -> World:
    world = World()
    world.add(protected_service("orders", **spec))
    await world.settle()
    return world


def policy(world: World) -> dict[str, Any]:
    """The policy that the Deployment's template names."""
    volumes = {volume["name"]: volume for volume in template(world)["volumes"]}
    found = world.cluster.read(CONFIG_MAP, "tenant", volumes["policy"]["configMap"]["name"])
    document: dict[str, Any] = json.loads(found["data"][manifests.POLICY_FILE])
    return document


def template(world: World) -> dict[str, Any]:
    spec: dict[str, Any] = world.cluster.read(DEPLOYMENT, "tenant", CHILD)["spec"]["template"]["spec"]
    return spec


async def test_rules_and_resource_are_the_policy_s_in_the_same_words() -> None:
    rules = [
        {"paths": ["/docs/*"], "methods": ["GET"], "access": "Public"},
        {"paths": ["/x"], "scopes": ["write"], "scopeMatch": "Any"},
    ]
    world = await ready_world(rules=rules, resource="https://api.example/orders")

    assert policy(world)["rules"] == rules
    assert policy(world)["resource"] == "https://api.example/orders"
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_the_client_is_registered_for_the_general_scopes_only() -> None:
    world = await ready_world(rules=[{"paths": ["/x"], "scopes": ["write"]}])

    (client,) = world.server.clients.values()
    assert client.scopes == {"read"}


async def test_a_changed_rule_is_another_policy_and_rolls_the_pods() -> None:
    world = await ready_world()
    before = template(world)

    def change(body: dict[str, Any]) -> None:
        body["spec"]["rules"] = [{"paths": ["/x"], "access": "Deny"}]

    world.cluster.edit(PROTECTED_SERVICE, "tenant", "orders", change)
    await world.settle()

    assert policy(world)["rules"] == [{"paths": ["/x"], "access": "Deny"}]
    assert template(world) != before
    assert world.condition("orders", "Ready") == ("True", "Ready")


def test_what_a_service_does_not_say_is_not_in_its_policy() -> None:
    server = manifests.Server(Endpoints(introspection="https://as/introspect"), allow_insecure_http=False)
    body = protected_service("orders")
    body["metadata"] |= {"uid": "u", "resourceVersion": "1"}

    assert manifests.policy(ProtectedService.parse(body), server).keys() == {
        *("scopes", "scopeMatch", "upstream", "validation", "authorizationServers")
    }
    assert manifests.policy(ProtectedService.parse(body), server)["upstream"] == {
        "url": "http://orders.tenant.svc:8080",
        "timeout": "30s",
    }


async def test_an_upstream_may_be_a_url_that_gets_the_token_and_other_headers() -> None:
    headers = {"enabled": True, "names": {"clientId": "X-Client", "subject": "X-Sub", "scope": "X-Scope"}}
    upstream = {"url": "https://reports.example:8443", "forwardToken": True, "identityHeaders": headers}
    world = await ready_world(upstream=dict(upstream))

    assert policy(world)["upstream"] == {**upstream, "timeout": "30s"}
    assert world.condition("orders", "Ready") == ("True", "Ready")


@pytest.mark.parametrize(
    ("bundle", "source"),
    [
        (
            {"configMap": {"name": "authorities", "key": "root.pem"}},
            {
                "configMap": {
                    "name": "authorities",
                    "defaultMode": 0o444,
                    "items": [{"key": "root.pem", "path": "ca.crt"}],
                }
            },
        ),
        (
            {"secret": {"name": "authorities"}},
            {
                "secret": {
                    "secretName": "authorities",
                    "defaultMode": 0o440,
                    "items": [{"key": "ca.crt", "path": "ca.crt"}],
                }
            },
        ),
    ],
)
async def test_a_service_by_https_has_its_authorities_mounted_where_the_policy_says(
    bundle: dict[str, Any], source: dict[str, Any]
) -> None:
    tls = {"caBundle": bundle, "serverName": "orders.example"}
    world = await ready_world(upstream={"service": {"name": "orders", "port": 8443}, "tls": tls})
    pod = template(world)

    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "upstream-ca"]
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "upstream-ca"]
    assert volume == {"name": "upstream-ca", **source}
    assert policy(world)["upstream"]["url"] == "https://orders.tenant.svc:8443"
    assert policy(world)["upstream"]["tls"] == {
        "caFile": f"{mount['mountPath']}/ca.crt",
        "serverName": "orders.example",
    }
    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_a_service_by_https_without_authorities_of_its_own_mounts_none() -> None:
    world = await ready_world(upstream={"service": {"name": "orders", "port": 8443}, "tls": {}})

    assert policy(world)["upstream"]["tls"] == {}
    assert "upstream-ca" not in {volume["name"] for volume in template(world)["volumes"]}


@pytest.mark.parametrize(
    "url",
    [
        "http://orders-protected",
        "http://orders-protected:8080/",
        "http://ORDERS-protected.tenant",
        "https://orders-protected.tenant.svc",
        "http://orders-protected.tenant.svc.cluster.local.:80",
    ],
)
async def test_an_upstream_that_is_the_service_itself_by_its_dns_name_is_refused_by_a_condition(url: str) -> None:
    world = await ready_world(upstream={"url": url})

    assert world.condition("orders", "WorkloadAvailable") == ("False", "UpstreamIsItself")
    assert world.condition("orders", "Stalled") == ("True", "UpstreamIsItself")
    assert world.server.clients == {}


@pytest.mark.parametrize(
    "url",
    [
        "http://orders-protected.other",
        "http://orders-protected.example.com",
        "http://orders",
        "http://x.orders-protected",
    ],
)
async def test_an_upstream_of_a_similar_name_is_another_one(url: str) -> None:
    world = await ready_world(upstream={"url": url})

    assert world.condition("orders", "Ready") == ("True", "Ready")


async def test_serving_stale_answers_is_in_the_policy_and_the_conditions_say_what_it_costs() -> None:
    world = await ready_world(validation={"maxRevocationDelay": "5s", "serveStale": "10m"})

    assert policy(world)["validation"]["serveStale"] == "10m"
    assert world.condition("orders", "Ready") == ("True", "Ready")
    assert "up to 10m longer than 5s" in world.message("orders", "Ready")
    assert "spec.validation.serveStale" in world.message("orders", "Ready")


@pytest.mark.parametrize("nothing", ["0s", "0ms", "0h"])
async def test_serving_none_is_not_mentioned_anywhere(nothing: str) -> None:
    world = await ready_world(validation={"serveStale": nothing})

    assert "serveStale" not in policy(world)["validation"]
    assert "serveStale" not in json.dumps(world.service()["status"])


async def test_the_webhook_s_secret_is_mounted_where_the_policy_says() -> None:
    world = await ready_world(validation={"revocationWebhook": {"secretName": "hook"}})
    pod = template(world)

    (volume,) = [volume for volume in pod["volumes"] if volume["name"] == "revocation-webhook"]
    (mount,) = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "revocation-webhook"]
    assert volume["secret"] == {
        "secretName": "hook",
        "defaultMode": 0o440,
        "items": [{"key": "secret", "path": "secret"}],
    }
    assert policy(world)["validation"]["revocationWebhook"] == {"secretFile": f"{mount['mountPath']}/secret"}
    assert world.condition("orders", "Ready") == ("True", "Ready")
