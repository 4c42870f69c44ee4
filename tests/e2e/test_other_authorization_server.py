"""A second real authorization server, outside the cluster: oidc-provider, which knows nothing of Idempotency-Key."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator

import httpx
import pytest

from ..support import oidc_provider_process
from ..support.oidc_provider_process import OidcProviderProcess
from .conftest import MakeNamespace
from .product import SYSTEM, Product, condition

# It is fetched by npm: scripts/test.sh --all.
pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def address_for_pods(product: Product) -> str:
    """This machine's address on the network that the node is in."""
    (node,) = product.kubectl.list("nodes")
    inside = next(one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((inside, 9))  # sends nothing
        address: str = probe.getsockname()[0]
    return address


@pytest.fixture(scope="module")
def provider(product: Product, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OidcProviderProcess]:
    missing = oidc_provider_process.missing()
    if missing is not None:
        pytest.skip(missing)
    with OidcProviderProcess(tmp_path_factory.mktemp("oidc-provider"), address_for_pods(product)) as running:
        yield running


@pytest.fixture
def server(product: Product, provider: OidcProviderProcess) -> Iterator[str]:
    """Name of an AuthorizationServer that stands for it."""
    name = f"oidc-{secrets.token_hex(3)}"
    metadata, token = {"name": name, "namespace": SYSTEM}, provider.initial_access_token
    product.seen[token] = "the initial access token of oidc-provider"
    product.kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"token": token}})
    product.kubectl.apply(
        {
            "apiVersion": "protectedservice.dev/v1alpha1",
            "kind": "AuthorizationServer",
            "metadata": metadata,
            "spec": {
                "issuer": provider.issuer,
                "allowInsecureHTTP": True,
                "registration": {"dynamicClientRegistration": {}, "credentialsSecret": {"name": name}},
                "allowedNamespaces": {"from": "All"},
            },
        }
    )
    yield name
    product.kubectl.run(
        "delete", f"authorizationserver/{name}", f"secret/{name}", f"--namespace={SYSTEM}", "--ignore-not-found"
    )


def test_a_service_is_protected_proved_changed_and_deleted_with_another_authorization_server(
    product: Product, make_namespace: MakeNamespace, provider: OidcProviderProcess, server: str
) -> None:
    namespace = make_namespace()

    def asked(path: str, **form: str) -> httpx.Response:
        return httpx.post(f"{provider.issuer}{path}", data=form, auth=credentials, timeout=10)

    product.until(
        lambda: (
            condition(product.kubectl.get("authorizationserver", server, namespace=SYSTEM), "Ready").get("status")
            == "True"
        ),
        60,
        f"{server} is Ready",
    )
    product.protect(namespace, authorizationServerRef={"name": server, "namespace": SYSTEM})
    product.ready(namespace)

    verified = product.condition(namespace, type_="Verified")
    assert (verified["status"], verified["reason"]) == ("True", "Proved")  # the revocation, too
    credentials = product.credentials(namespace)
    token = asked("/token", grant_type="client_credentials", scope="read").json()["access_token"]
    product.seen[token] = "a token of oidc-provider"
    url = product.url(namespace) + "/protected"
    assert product.caller.ask("GET", url).status == 401
    assert product.caller.ask("GET", url, token=token).status == 200

    assert asked("/token/revocation", token=token).status_code == 200
    assert product.caller.ask("GET", url, token=token, until=401, patience=30).status == 401

    product.protect(namespace, authorizationServerRef={"name": server, "namespace": SYSTEM}, scopes=["write"])
    product.ready(namespace)
    assert product.credentials(namespace) == credentials
    token = asked("/token", grant_type="client_credentials", scope="write").json()["access_token"]
    product.seen[token] = "another token of oidc-provider"
    assert product.caller.ask("GET", url, token=token, until=200, patience=30).status == 200

    product.kubectl.delete("protectedservice", "orders", namespace=namespace)
    refused = asked("/token", grant_type="client_credentials", scope="write")
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
