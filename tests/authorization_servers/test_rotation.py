"""A rotation against real programs: no request is refused, whichever client its token is of, and no client is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from protectedservice_operator.authorization_server import AuthorizationServer
from protectedservice_operator.registration.ledger import State
from protectedservice_operator.resource import AUTHORIZATION_SERVER, CONFIG_MAP, PROTECTED_SERVICE, SERVICE_CLIENT

from ..resource_server.running import behind
from ..resource_server.server_process import ServerProcess, started
from ..support.authorization_server_process import AuthorizationServerProcess
from ..support.echo_upstream import EchoUpstream
from ..support.objects import OPERATOR_NAMESPACE, protected_service, service_client
from ..support.world import World
from . import test_reconcile
from .conftest import Real
from .test_reconcile import AUDIENCE, ask_for_token, create, worlds  # noqa: F401 (a fixture)

SECRET = {"name": "authorization-server-registration"}
OVERLAP = {"overlap": "120s"}
TOKEN_TTL = 10  # seconds: a whole life passes in the test
CALLERS = 4
DEADLINE = 60.0  # seconds, for what others do, on a machine that is busy with other tests


def ask(world: World) -> None:
    annotation = {"protectedservice.dev/rotate": "now"}
    world.cluster.edit(
        PROTECTED_SERVICE,
        "tenant",
        "orders",
        lambda body: body["metadata"].setdefault("annotations", {}).update(annotation),
    )


# --- continuous requests through a rotation ------------------------------------------------------------------------


class Pods:
    """Resource servers, each with a credentials folder that changes as a mounted Secret does."""

    def __init__(self, folder: Path, server: AuthorizationServerProcess, upstream: str, stack: AsyncExitStack) -> None:
        self.folder, self.server, self.upstream, self.stack = folder, server, upstream, stack
        self.running: list[tuple[ServerProcess, Path]] = []
        self.serving: list[ServerProcess] = []  # behind the Service

    def start(self, credentials: dict[str, str]) -> ServerProcess:
        place = self.folder / f"pod-{len(self.running)}"
        place.mkdir()
        policy = place / "policy.yaml"
        policy.write_text(
            json.dumps(
                {
                    "scopes": ["read"],
                    "audience": AUDIENCE,
                    "validation": {"maxRevocationDelay": "0s", "timeout": "10s"},
                    "authorizationServers": [
                        {
                            "issuer": self.server.issuer,
                            "allowInsecureHTTP": True,
                            "endpoints": {"introspection": f"{self.server.url}/oauth/introspect"},
                        }
                    ],
                    "upstream": behind(self.upstream)["upstream"],
                }
            )
        )
        mounted = place / "credentials"
        mounted.mkdir()
        write(mounted, credentials)
        pod = self.stack.enter_context(started(policy, mounted))
        self.running.append((pod, mounted))
        return pod

    def swap_the_mounted_secret(self, credentials: dict[str, str]) -> None:
        """As kubelets do, in pods that run."""
        for _, mounted in self.running:
            write(mounted, credentials)


def write(folder: Path, credentials: dict[str, str]) -> None:
    """Atomically, file by file, as a reader sees a mounted Secret."""
    for name, value in credentials.items():
        beside = folder / f".{name}"
        beside.write_text(value)
        beside.replace(folder / name)


class Holder:
    """Somebody who holds a client's credentials, and a token that is renewed half-way, as long as `renews`."""

    def __init__(self, server: AuthorizationServerProcess, credentials: dict[str, str]) -> None:
        self.server, self.credentials = server, credentials
        self.token, self.until, self.renews = "", float("-inf"), True
        self.turn = asyncio.Lock()

    async def good_token(self, client: httpx.AsyncClient) -> str | None:
        """None when it has none that surely lives a second and a half longer."""
        async with self.turn:
            if self.renews and time.monotonic() > self.until - TOKEN_TTL / 2:
                asked = time.monotonic()
                answer = await client.post(
                    f"{self.server.url}/oauth/token",
                    auth=(self.credentials["client_id"], self.credentials["client_secret"]),
                    data={"grant_type": "client_credentials", "scope": "read", "resource": AUDIENCE},
                )
                assert answer.status_code == 200, answer.text
                self.token, self.until = answer.json()["access_token"], asked + TOKEN_TTL - 1.5
            return self.token if time.monotonic() < self.until else None


class Callers:
    """Ask without a pause, for each holder at each pod; what is not 200 is remembered."""

    def __init__(self, pods: Pods) -> None:
        self.pods, self.holders = pods, list[Holder]()
        self.answers: Counter[str] = Counter()  # by client id
        self.faults: list[str] = []
        self.answered = asyncio.Event()
        self.client = httpx.AsyncClient(timeout=30, trust_env=False)

    async def run(self) -> None:
        while True:
            for holder in list(self.holders):
                for pod in list(self.pods.serving):
                    token = await holder.good_token(self.client)
                    if token is None:
                        continue
                    url = f"http://127.0.0.1:{pod.port}/orders"
                    answer = await self.client.get(url, headers={"Authorization": f"Bearer {token}"})
                    self.answers[holder.credentials["client_id"]] += 1
                    self.answered.set()
                    if answer.status_code != 200 and time.monotonic() < holder.until + 1:
                        self.faults.append(f"{answer.status_code} {answer.headers.get('www-authenticate', '')}")
            await asyncio.sleep(0)

    async def some_more(self, count: int = 40) -> None:
        """Until so many further requests have been answered."""
        goal = self.answers.total() + count
        async with asyncio.timeout(DEADLINE):
            while self.answers.total() < goal:
                self.answered.clear()
                await self.answered.wait()


async def test_no_request_is_refused_through_a_rotation_whichever_client_its_token_is_of(tmp_path: Path) -> None:
    environment = {"AUTHORIZATION_SERVER_TOKEN_TTL": str(TOKEN_TTL)}
    async with AsyncExitStack() as stack:
        server = stack.enter_context(AuthorizationServerProcess(tmp_path, environment=environment))
        upstream = await stack.enter_async_context(EchoUpstream())
        world = World(
            spec={
                "issuer": server.issuer,
                "allowInsecureHTTP": True,
                "registration": {
                    "dynamicClientRegistration": {"idempotencyKey": "Honoured"},
                    "credentialsSecret": SECRET,
                },
                "credential": {"token": server.initial_access_token},
            },
            settings={"verification": False},  # its pods are none of the processes here; see test_reconcile.py
        )
        stack.push_async_callback(world.servers.aclose)
        world.add(protected_service("orders", audience=AUDIENCE))
        await world.settle()
        old = world.credentials()
        assert world.cluster.objects(CONFIG_MAP, "tenant")

        pods = Pods(tmp_path, server, upstream.url, stack)
        pods.serving = [await asyncio.to_thread(pods.start, old)]
        callers = Callers(pods)
        stack.push_async_callback(callers.client.aclose)
        before = Holder(server, old)
        callers.holders.append(before)
        tasks = [asyncio.create_task(callers.run()) for _ in range(CALLERS)]
        try:
            await callers.some_more()

            world.kubelet_runs = False
            ask(world)
            await world.settle()  # the second client, and the Secret
            new = world.credentials()
            assert new["client_id"] != old["client_id"]
            assert {client.client_id for client in server.clients()} == {old["client_id"], new["client_id"]}
            callers.holders.append(Holder(server, new))
            await callers.some_more()

            pods.swap_the_mounted_secret(new)  # the old pod is asked with tokens of both meanwhile
            await callers.some_more()
            pods.serving.append(await asyncio.to_thread(pods.start, new))
            await callers.some_more()
            pods.serving.pop(0)
            await callers.some_more()

            world.kubelet_runs = True
            await world.later(100)
            assert server.client_count() == 2  # two minutes at least, however short tokens live
            before.renews = False  # whoever mounts the Secret has the new one by now
            async with asyncio.timeout(DEADLINE):
                while time.monotonic() < before.until:
                    await callers.some_more(10)
            await world.later(60)
            assert [client.client_id for client in server.clients()] == [new["client_id"]]
            await callers.some_more()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    assert callers.faults == []
    assert min(callers.answers[client["client_id"]] for client in (old, new)) > 100
    assert all(task.cancelled() for task in tasks)
    assert world.condition("orders", "Rotating") is None


async def test_a_caller_of_the_development_server_gets_tokens_with_either_secret_through_the_overlap(
    tmp_path: Path,
) -> None:
    with AuthorizationServerProcess(tmp_path) as server:
        world = World(
            spec={
                "issuer": server.issuer,
                "allowInsecureHTTP": True,
                "registration": {
                    "dynamicClientRegistration": {"idempotencyKey": "Honoured"},
                    "credentialsSecret": SECRET,
                },
                "credential": {"token": server.initial_access_token},
            },
            settings={"verification": False},
            probe_interval=600.0,
        )
        world.add(protected_service("orders", audience=AUDIENCE))
        world.add(protected_service("stock", scopes=["write"]))
        world.add(service_client("shop", services=[{"name": "orders"}, {"name": "stock"}], rotation=OVERLAP))
        await world.settle()
        old = world.credentials("shop-oauth2-caller")
        ask_of_the_caller(world)
        await world.settle()
        new = world.credentials("shop-oauth2-caller")

        assert new["client_id"] != old["client_id"]
        for secret in (old, new):
            answer = ask_for_token(secret)
            assert answer.status_code == 200, answer.text
            request = httpx.Request(
                "GET", "http://pod/", headers={"Authorization": f"Bearer {answer.json()['access_token']}"}
            )
            assert test_reconcile.pod(world, request).status_code == 204

        strangers = {"from": "Selector", "selector": {"matchLabels": {"team": "strangers"}}}
        world.cluster.edit(
            PROTECTED_SERVICE, "tenant", "stock", lambda body: body["spec"].update(allowedClients=strangers)
        )
        await world.settle()
        for secret in (old, new):
            assert ask_for_token(secret).json()["error"] == "invalid_scope"
            assert ask_for_token({**secret, "scope": "read"}).status_code == 200

        await world.later(100)
        assert {client.client_id for client in server.clients()} >= {old["client_id"], new["client_id"]}
        await world.later(2 * 3600)  # whatever lifetime the server's tokens have
        gone = ask_for_token({**old, "scope": "read"})
        assert (gone.status_code, gone.json()["error"]) == (401, "invalid_client")
        assert ask_for_token({**new, "scope": "read"}).status_code == 200
        assert server.client_count() == 3
        assert world.uncertain == 0
        await world.servers.aclose()


def ask_of_the_caller(world: World) -> None:
    annotation = {"protectedservice.dev/rotate": "now"}
    world.cluster.edit(
        SERVICE_CLIENT, "tenant", "shop", lambda body: body["metadata"].setdefault("annotations", {}).update(annotation)
    )


# --- every kind of server ------------------------------------------------------------------------------------------


async def mint(world: World, held: dict[str, str]) -> str:
    """As a caller mints who mounts the tenant's Secret."""
    described = AuthorizationServer.parse(world.cluster.read(AUTHORIZATION_SERVER, OPERATOR_NAMESPACE, "default"))
    connection = await world.servers.connection(described)
    return (await connection.tokens.mint(held["client_id"], held["client_secret"], ("read",), AUDIENCE)).value


@pytest.mark.slow
async def test_a_real_server_ends_a_rotation_with_one_client_and_reads_as_it_was_written(
    real: Real,
    worlds: Callable[[], World],  # noqa: F811
) -> None:
    world = worlds()
    create(world)
    await world.settle()
    held = world.credentials()
    old = held["client_id"]
    await world.later(3700)  # a look at the client finds nothing to put right
    assert not {"ClientDriftRepaired", "ClientLost"} & {reason for reason, _ in world.events()}, world.events()

    ask(world)
    await world.settle()
    token = await mint(world, held)
    async with asyncio.timeout(DEADLINE):
        while world.credentials() == held:
            await world.later(60)
    request = httpx.Request("GET", "http://pod.test/", headers={"Authorization": f"Bearer {token}"})
    assert test_reconcile.pod(world, request).status_code == 204  # the new client is told of the old one's tokens

    await world.later(2 * 3600 + 60)  # whatever lifetime the server's tokens have
    new = world.credentials()["client_id"]

    assert new != old
    assert world.condition("orders", "Ready") == ("True", "Ready"), world.service()["status"]
    assert world.condition("orders", "Rotating") is None
    (entry,) = world.ledgers()
    assert (entry.record.state, entry.second, entry.record.client_id) == (State.REGISTERED, None, new)
    assert world.uncertain == 0
    if real.client_ids is not None:
        assert real.client_ids() == [new]
    await world.later(3700)
    assert "ClientDriftRepaired" not in {reason for reason, _ in world.events()}

    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()
    assert world.ledgers() == []


@pytest.mark.slow
async def test_a_real_server_gives_both_clients_of_a_caller_tokens_that_its_service_takes_and_ends_with_one(
    real: Real,
    worlds: Callable[[], World],  # noqa: F811
) -> None:
    world = worlds()
    create(world)
    world.add(service_client("shop", rotation=OVERLAP))
    await world.settle()
    old = world.credentials("shop-oauth2-caller")
    await world.later(3700)  # a look at the client finds nothing to put right
    assert not {"ClientDriftRepaired", "ClientLost"} & {reason for reason, _ in world.events()}, world.events()
    ask_of_the_caller(world)
    await world.settle()
    new = world.credentials("shop-oauth2-caller")

    assert new["client_id"] != old["client_id"]
    for secret in (old, new):
        answer = ask_for_token(secret)
        assert answer.status_code == 200, answer.text
        bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
        assert test_reconcile.pod(world, httpx.Request("GET", "http://pod/", headers=bearer)).status_code == 204

    await world.later(2 * 3600 + 60)
    assert ask_for_token(old).status_code in (400, 401)
    assert ask_for_token(new).status_code == 200
    assert world.uncertain == 0
    if real.client_ids is not None:
        assert sorted(real.client_ids()) == sorted([world.credentials()["client_id"], new["client_id"]])

    world.cluster.remove(SERVICE_CLIENT, "tenant", "shop")
    world.cluster.remove(PROTECTED_SERVICE, "tenant", "orders")
    await world.settle()
    assert world.ledgers() == []


async def test_the_development_server_reads_as_it_was_written(tmp_path: Path) -> None:
    with AuthorizationServerProcess(tmp_path) as server:
        world = World(
            spec={
                "issuer": server.issuer,
                "allowInsecureHTTP": True,
                "registration": {
                    "dynamicClientRegistration": {"idempotencyKey": "Honoured"},
                    "credentialsSecret": SECRET,
                },
                "credential": {"token": server.initial_access_token},
            },
            settings={"verification": False},
            probe_interval=600.0,
        )
        world.add(protected_service("orders", audience=AUDIENCE, client={"name": "Orders"}))
        await world.settle()
        await world.later(2 * 3600)
        assert not {"ClientDriftRepaired", "ClientLost"} & {reason for reason, _ in world.events()}, world.events()

        with contextlib.closing(connect(server)) as database:
            database.execute("update oauth2_provider_application set name = 'renamed'")
            database.commit()
        await world.later(3700)
        (client,) = server.clients()
        assert client.client_name.startswith("Orders")
        assert "ClientDriftRepaired" in {reason for reason, _ in world.events()}

        with contextlib.closing(connect(server)) as database:
            database.execute("delete from oauth2_provider_accesstoken")
            database.execute("delete from oauth2_provider_application")
            database.commit()
        await world.later(3700)
        (client,) = server.clients()
        assert client.client_id == world.credentials()["client_id"]
        assert "ClientLost" in {reason for reason, _ in world.events()}
        await world.servers.aclose()


def connect(server: AuthorizationServerProcess) -> sqlite3.Connection:
    return sqlite3.connect(server.database_path, timeout=30)
