"""The calling program of k8s/examples/service-to-service.yaml does with a ServiceClient's Secret what it should."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from protectedservice_operator.service_client import ServiceClient

from .manifests import K8S, documents
from .schema import schema, with_defaults

DOCUMENTS = documents(K8S / "examples/service-to-service.yaml")
SECRET = {
    "client_id": "shop",
    "client_secret": "not to be told",
    "token_url": "https://login.example/token",
    "scope": "read",
    "audience": "https://stock.example https://other.example",
    "audience_parameter": "resource",
    "token_endpoint_auth_method": "client_secret_basic",
}
METADATA = {"namespace": "tenant", "uid": "uid-1", "resourceVersion": "7", "generation": 1}


def manifest(kind: str) -> dict[str, Any]:
    (found,) = (document for document in DOCUMENTS if document["kind"] == kind)
    return dict(found)


@pytest.fixture
def program(tmp_path: Path) -> dict[str, Any]:
    """The program's names, with the Secret mounted in a folder of the test's."""
    names: dict[str, Any] = {"__name__": "shop"}
    exec(compile(manifest("ConfigMap")["data"]["shop.py"], "shop.py", "exec"), names)  # noqa: S102 (ours)
    names["CLIENT"] = tmp_path
    for name, value in SECRET.items():
        (tmp_path / name).write_text(value)
    return names


def test_it_asks_for_a_token_as_its_secret_says_and_replaces_one_that_is_refused(
    program: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict[str, str], Any]] = []

    def post(url: str, *, data: dict[str, str], auth: Any, timeout: float) -> httpx.Response:
        asked.append((url, data, auth))
        answer = {"access_token": f"token-{len(asked)}", "expires_in": 300}
        return httpx.Response(200, json=answer, request=httpx.Request("POST", url))

    def stock(request: httpx.Request) -> httpx.Response:
        good = request.headers["Authorization"] == "Bearer token-2"
        return httpx.Response(200 if good else 401, json={"ok": good})

    monkeypatch.setattr(httpx, "post", post)
    with httpx.Client(auth=program["ClientCredentials"](), transport=httpx.MockTransport(stock)) as client:
        answers = [client.get("http://stock-protected/protected").status_code for _ in range(3)]

    assert answers == [200, 200, 200]
    form = {"grant_type": "client_credentials", "scope": "read", "resource": "https://stock.example"}
    assert asked == [(SECRET["token_url"], form, ("shop", "not to be told"))] * 2


def test_it_reads_the_secret_that_the_operator_writes() -> None:
    body = manifest("ServiceClient")
    caller = ServiceClient.parse(
        with_defaults(schema("ServiceClient"), {**body, "metadata": METADATA | body["metadata"]})
    )
    volumes = manifest("Deployment")["spec"]["template"]["spec"]["volumes"]

    assert caller.credentials_secret in [volume.get("secret", {}).get("secretName") for volume in volumes]
    assert set(caller.credentials_keys) == set(SECRET)


def test_it_calls_the_service_that_the_operator_makes() -> None:
    (container,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    service = manifest("ProtectedService")["metadata"]["name"]

    assert {"name": "STOCK_URL", "value": f"http://{service}-protected/protected"} in container["env"]
