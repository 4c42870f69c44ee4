"""The conversation with the API server: what is asked, in which words, and what each refusal becomes."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import ApiClient, Configuration

from protectedservice_operator import cluster as cluster_module
from protectedservice_operator.cluster import WRITE_CONCURRENCY, Cluster, NoCluster, load_credentials
from protectedservice_operator.errors import AlreadyExists, ClusterUnavailable, Conflict, NotFound, Rejected
from protectedservice_operator.metrics import Metrics
from protectedservice_operator.resource import CONFIG_MAP, DEPLOYMENT, NAMESPACE, PROTECTED_SERVICE, SECRET

SECRET_VALUE = "c2VjcmV0LXZhbHVl"


@dataclass
class Seen:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


@dataclass
class ApiServer:
    """Answers what it is told to, in order, and remembers what it was asked."""

    answers: list[tuple[int, Any, dict[str, str]]] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    release: asyncio.Event | None = None
    at_once: int = 0
    most_at_once: int = 0
    crowded: asyncio.Event = field(default_factory=asyncio.Event)

    def will(self, status: int, body: Any, **headers: str) -> None:
        self.answers.append((status, body, {name.replace("_", "-"): value for name, value in headers.items()}))

    async def handle(self, request: web.Request) -> web.Response:
        text = await request.text()
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        if self.at_once == WRITE_CONCURRENCY:
            self.crowded.set()
        if self.release is not None:
            await self.release.wait()
        self.at_once -= 1
        body = json.loads(text) if text else None
        self.seen.append(Seen(request.method, request.path, dict(request.query), dict(request.headers), body))
        status, answer, headers = self.answers.pop(0) if self.answers else (200, {"metadata": {}}, {})
        payload = answer if isinstance(answer, str) else json.dumps(answer)
        return web.Response(status=status, text=payload, headers=headers)


def status(code: int, reason: str, message: str, **details: Any) -> dict[str, Any]:
    return {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}


@pytest.fixture
def api() -> ApiServer:
    return ApiServer()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def cluster(api: ApiServer, metrics: Metrics) -> AsyncIterator[Cluster]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", api.handle)
    async with TestServer(application) as server:
        configuration = Configuration(host=str(server.make_url("")).rstrip("/"))
        configuration.api_key["BearerToken"] = "Bearer sesame"
        cluster = Cluster(ApiClient(configuration), metrics)
        yield cluster
        await cluster.close()


def config_map(**metadata: str) -> dict[str, Any]:
    return {"metadata": {"name": "policy", "namespace": "tenant", **metadata}, "data": {"a": "b"}}


async def test_get_asks_for_the_object_with_the_token_and_returns_it(cluster: Cluster, api: ApiServer) -> None:
    api.will(200, {"metadata": {"name": "orders"}})

    found = await cluster.get(PROTECTED_SERVICE, "tenant", "orders")

    assert found == {"metadata": {"name": "orders"}}
    assert api.seen[0].method == "GET"
    assert api.seen[0].path == "/apis/protectedservice.dev/v1alpha1/namespaces/tenant/protectedservices/orders"
    assert api.seen[0].headers["Authorization"] == "Bearer sesame"


async def test_get_of_a_cluster_scoped_object_names_no_namespace(cluster: Cluster, api: ApiServer) -> None:
    await cluster.get(NAMESPACE, None, "tenant")

    assert api.seen[0].path == "/api/v1/namespaces/tenant"


async def test_get_of_an_absent_object_is_none(cluster: Cluster, api: ApiServer) -> None:
    api.will(404, status(404, "NotFound", "no such thing"))

    assert await cluster.get(DEPLOYMENT, "tenant", "orders") is None


async def test_apply_is_a_forced_server_side_apply_by_our_manager(cluster: Cluster, api: ApiServer) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", **config_map()}

    await cluster.apply(CONFIG_MAP, body)

    assert api.seen[0].method == "PATCH"
    assert api.seen[0].path == "/api/v1/namespaces/tenant/configmaps/policy"
    assert api.seen[0].query == {"fieldManager": "protectedservice-operator", "force": "true"}
    assert api.seen[0].headers["Content-Type"] == "application/apply-patch+yaml"
    assert api.seen[0].body == body


@pytest.mark.parametrize(
    ("patch", "content"),
    [
        pytest.param({"metadata": {}}, "application/merge-patch+json", id="a dict is a merge patch"),
        pytest.param(
            [{"op": "test", "path": "/a", "value": 1}], "application/json-patch+json", id="a list is a JSON patch"
        ),
    ],
)
async def test_patch_says_what_kind_of_patch_it_is(cluster: Cluster, api: ApiServer, patch: Any, content: str) -> None:
    await cluster.patch(PROTECTED_SERVICE, "tenant", "orders", patch, subresource="status")

    assert api.seen[0].path.endswith("/protectedservices/orders/status")
    assert api.seen[0].headers["Content-Type"] == content
    assert api.seen[0].body == patch


async def test_create_posts_and_replace_puts(cluster: Cluster, api: ApiServer) -> None:
    await cluster.create(CONFIG_MAP, config_map())
    await cluster.replace(CONFIG_MAP, config_map(resourceVersion="7"))

    assert [(seen.method, seen.path) for seen in api.seen] == [
        ("POST", "/api/v1/namespaces/tenant/configmaps"),
        ("PUT", "/api/v1/namespaces/tenant/configmaps/policy"),
    ]
    assert api.seen[1].body["metadata"]["resourceVersion"] == "7"


async def test_delete_carries_its_preconditions_and_works_in_the_background(cluster: Cluster, api: ApiServer) -> None:
    await cluster.delete(CONFIG_MAP, "tenant", "policy", uid="u-1", resource_version="7")

    assert api.seen[0].method == "DELETE"
    assert api.seen[0].body["propagationPolicy"] == "Background"
    assert api.seen[0].body["preconditions"] == {"uid": "u-1", "resourceVersion": "7"}


async def test_delete_of_what_is_gone_is_done(cluster: Cluster, api: ApiServer) -> None:
    api.will(404, status(404, "NotFound", "gone"))

    await cluster.delete(CONFIG_MAP, "tenant", "policy")

    assert "preconditions" not in api.seen[0].body


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        pytest.param(404, "NotFound", NotFound, id="404: not found"),
        pytest.param(409, "AlreadyExists", AlreadyExists, id="409 AlreadyExists: the name is taken"),
        pytest.param(409, "Conflict", Conflict, id="409 otherwise: a stale write"),
        pytest.param(400, "BadRequest", Rejected, id="400: refused"),
        pytest.param(403, "Forbidden", Rejected, id="403: refused"),
        pytest.param(422, "Invalid", Rejected, id="422: refused"),
        pytest.param(401, "Unauthorized", ClusterUnavailable, id="401: our token is being renewed"),
        pytest.param(429, "TooManyRequests", ClusterUnavailable, id="429: later"),
        pytest.param(500, "InternalError", ClusterUnavailable, id="500: later"),
        pytest.param(504, "Timeout", ClusterUnavailable, id="504: later"),
    ],
)
async def test_each_refusal_becomes_one_of_our_errors(
    cluster: Cluster, api: ApiServer, code: int, reason: str, expected: type[Exception]
) -> None:
    api.will(code, status(code, reason, "the server's words"))

    with pytest.raises(expected, match=r"create ConfigMap policy.*the server's words"):
        await cluster.create(CONFIG_MAP, config_map())


async def test_a_refusal_keeps_its_status_for_the_caller(cluster: Cluster, api: ApiServer) -> None:
    api.will(422, status(422, "Invalid", "spec.scopes: too many"))

    with pytest.raises(Rejected) as refusal:
        await cluster.apply(CONFIG_MAP, config_map())

    assert refusal.value.status == 422


async def test_an_apply_to_an_object_that_was_made_anew_is_a_conflict(cluster: Cluster, api: ApiServer) -> None:
    causes = [{"field": "metadata.uid"}, {"field": "metadata.uid"}]
    api.will(422, status(422, "Invalid", "metadata.uid: Invalid value: field is immutable", causes=causes))

    with pytest.raises(Conflict):
        await cluster.apply(CONFIG_MAP, config_map(uid="u-1"))


@pytest.mark.parametrize(
    ("headers", "details", "seconds"),
    [
        pytest.param({"Retry_After": "7"}, {}, 7.0, id="from the header"),
        pytest.param({}, {"retryAfterSeconds": 3}, 3.0, id="from the Status object"),
        pytest.param({}, {}, None, id="not given"),
        pytest.param(
            {"Retry_After": "Tue, 1 Jan 2030 00:00:00 GMT"}, {}, None, id="a date, which Kubernetes never sends"
        ),
    ],
)
async def test_retry_after_reaches_the_work_queue(
    cluster: Cluster, api: ApiServer, headers: dict[str, str], details: dict[str, int], seconds: float | None
) -> None:
    api.will(429, status(429, "TooManyRequests", "slow down", **details), **headers)

    with pytest.raises(ClusterUnavailable) as wait:
        await cluster.get(CONFIG_MAP, "tenant", "policy")

    assert wait.value.retry_after == seconds


async def test_an_error_page_that_is_not_json_is_still_one_of_our_errors(cluster: Cluster, api: ApiServer) -> None:
    api.will(502, "<html>bad gateway</html>")

    with pytest.raises(ClusterUnavailable, match="502"):
        await cluster.get(CONFIG_MAP, "tenant", "policy")


async def test_an_api_server_that_is_not_there_is_unavailable(metrics: Metrics, unused_tcp_port: int) -> None:
    cluster = Cluster(ApiClient(Configuration(host=f"http://127.0.0.1:{unused_tcp_port}")), metrics)

    with pytest.raises(ClusterUnavailable, match="did not answer to get ConfigMap policy"):
        await cluster.get(CONFIG_MAP, "tenant", "policy")

    assert metrics.value("kube_requests_total", verb="get", kind="ConfigMap", code="none") == 1
    await cluster.close()


async def test_an_api_server_that_does_not_answer_in_time_is_unavailable(
    cluster: Cluster, api: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.release = asyncio.Event()
    monkeypatch.setattr(cluster_module, "REQUEST_TIMEOUT", aiohttp.ClientTimeout(total=0.05))

    with pytest.raises(ClusterUnavailable, match="TimeoutError"):
        await cluster.get(CONFIG_MAP, "tenant", "policy")

    api.release.set()


async def test_no_secret_is_in_errors_or_logs_when_a_secret_is_refused(
    cluster: Cluster, api: ApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    message = f'Secret "x" is invalid: data[client_secret]: Invalid value: "{SECRET_VALUE}"'
    api.will(422, status(422, "Invalid", message, causes=[{"field": "data[client_secret]", "message": message}]))
    body = {"metadata": {"name": "x", "namespace": "tenant"}, "data": {"client_secret": SECRET_VALUE}}

    with pytest.raises(Rejected) as refusal:
        await cluster.create(SECRET, body)

    said = repr(refusal.value) + str(refusal.value) + refusal.value.message + caplog.text
    assert "data[client_secret]" in said
    assert SECRET_VALUE not in said
    assert "sesame" not in said


async def test_a_list_is_read_page_by_page_and_knows_its_version(cluster: Cluster, api: ApiServer) -> None:
    api.will(200, {"metadata": {"resourceVersion": "40", "continue": "next"}, "items": [{"metadata": {"name": "a"}}]})
    api.will(200, {"metadata": {"resourceVersion": "40"}, "items": [{"metadata": {"name": "b"}}]})

    listing = cluster.list(CONFIG_MAP, label_selector="x=y")
    names = [item["metadata"]["name"] async for item in listing]

    assert names == ["a", "b"]
    assert listing.resource_version == "40"
    assert api.seen[0].path == "/api/v1/configmaps"
    assert [seen.query for seen in api.seen] == [
        {"limit": "500", "labelSelector": "x=y"},
        {"limit": "500", "labelSelector": "x=y", "continue": "next"},
    ]


async def test_a_list_whose_page_token_expired_begins_anew_once(cluster: Cluster, api: ApiServer) -> None:
    api.will(200, {"metadata": {"resourceVersion": "40", "continue": "next"}, "items": [{"metadata": {"name": "a"}}]})
    api.will(410, status(410, "Expired", "too old"))
    api.will(200, {"metadata": {"resourceVersion": "50"}, "items": [{"metadata": {"name": "a"}}]})

    listing = cluster.list(CONFIG_MAP, namespace="tenant")
    names = [item["metadata"]["name"] async for item in listing]

    assert names == ["a", "a"]
    assert listing.resource_version == "50"


async def test_a_list_that_expires_twice_is_given_up(cluster: Cluster, api: ApiServer) -> None:
    api.will(410, status(410, "Expired", "too old"))
    api.will(410, status(410, "Expired", "too old"))

    with pytest.raises(ClusterUnavailable, match="expired twice"):
        [item async for item in cluster.list(CONFIG_MAP)]


async def test_items_of_a_list_say_what_they_are(cluster: Cluster, api: ApiServer) -> None:
    api.will(200, {"metadata": {}, "items": [{"metadata": {"name": "a"}}]})

    items = [item async for item in cluster.list(DEPLOYMENT)]

    assert (items[0]["apiVersion"], items[0]["kind"]) == ("apps/v1", "Deployment")


async def test_requests_are_counted_by_verb_kind_and_code(cluster: Cluster, api: ApiServer, metrics: Metrics) -> None:
    api.will(409, status(409, "Conflict", "stale"))

    with pytest.raises(Conflict):
        await cluster.replace(CONFIG_MAP, config_map())

    assert metrics.value("kube_requests_total", verb="replace", kind="ConfigMap", code="409") == 1


async def test_no_more_than_32_writes_are_under_way_at_a_time(cluster: Cluster, api: ApiServer) -> None:
    api.release = asyncio.Event()
    writes = [asyncio.create_task(cluster.create(CONFIG_MAP, config_map())) for _ in range(40)]
    async with asyncio.timeout(10):
        await api.crowded.wait()
    for _ in range(50):  # time enough for a 33rd, were it let through
        await asyncio.sleep(0)
    api.release.set()
    await asyncio.gather(*writes)

    assert api.most_at_once == WRITE_CONCURRENCY == 32


async def test_without_service_account_and_kubeconfig_the_message_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))

    with pytest.raises(NoCluster, match="set KUBECONFIG"):
        await load_credentials()


async def test_credentials_come_from_the_kubeconfig_and_hide_their_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.write_text(
        json.dumps(
            {
                "current-context": "it",
                "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                "clusters": [{"name": "it", "cluster": {"server": "http://127.0.0.1:1"}}],
                "users": [{"name": "it", "user": {"token": "sesame"}}],
            }
        )
    )
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))

    credentials = await load_credentials()

    assert (credentials.server, credentials.scheme, credentials.token) == ("http://127.0.0.1:1", "Bearer", "sesame")
    assert "sesame" not in repr(credentials)
