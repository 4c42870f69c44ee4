"""The one door to the Kubernetes API: requests, deadlines, and the conversion of its errors into ours.

Uses the generic client of `kubernetes.aio` with plain dicts: typed models cost a parse per response, and the client's
own retries would hide from the work queue what it is there to decide. Nothing here retries, except a list whose page
token expired. No body is ever logged or put into an exception: bodies hold Secrets.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import logging
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn
from urllib.parse import quote

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException
from kubernetes.aio.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION

from .cluster_api import JSONPatch, Object
from .errors import AlreadyExists, ClusterUnavailable, Conflict, NotFound, Rejected, foreign_text
from .metrics import Metrics
from .resource import FIELD_MANAGER, SECRET, Kind

logger = logging.getLogger(__name__)

# Seconds. A healthy API server answers within one; admission webhooks may take up to ten. kubernetes.aio's own default
# is five minutes, during which a worker would be lost.
REQUEST_TIMEOUT: Final = aiohttp.ClientTimeout(total=15, sock_connect=5)
PAGE_SIZE: Final = 500
# Writes at a time. The API server of one small node is saturated by 16 (measured: some 390 creating applies a second).
WRITE_CONCURRENCY: Final = 32
SERVICE_ACCOUNT_TOKEN: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")

MERGE_PATCH: Final = "application/merge-patch+json"
JSON_PATCH: Final = "application/json-patch+json"
APPLY_PATCH: Final = "application/apply-patch+yaml"


class NoCluster(Exception):
    """There is no usable way to a Kubernetes API; the message says what was looked for."""


@dataclass(frozen=True)
class Credentials:
    """How to reach the API server, for whoever opens connections of his own (kopf's watches)."""

    server: str
    ca_path: str | None
    insecure: bool
    certificate_path: str | None
    private_key_path: str | None
    proxy: str | None
    scheme: str | None
    token: str | None = field(repr=False)


async def load_configuration() -> Configuration:
    """The pod's service account where there is one, else the kubeconfig (`KUBECONFIG`, `~/.kube/config`).

    Raises NoCluster.
    """
    configuration = Configuration()
    configuration.retries = None
    # As kopf's own session does: a proxy counts only where the kubeconfig names it.
    configuration.client_session_kwargs = {"trust_env": False}
    try:
        if "KUBERNETES_SERVICE_HOST" in os.environ and SERVICE_ACCOUNT_TOKEN.exists():
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            await config.load_kube_config(  # type: ignore[no-untyped-call]
                client_configuration=configuration, persist_config=False
            )
    except (ConfigException, OSError) as error:
        raise NoCluster(
            f"no service account at {SERVICE_ACCOUNT_TOKEN} and no usable kubeconfig at {KUBE_CONFIG_DEFAULT_LOCATION}"
            f" ({foreign_text(error)}): run in a pod, or set KUBECONFIG"
        ) from error
    return configuration


async def load_credentials() -> Credentials:
    """Read anew each time: service-account tokens are exchanged before they expire. Raises NoCluster."""
    configuration = await load_configuration()
    scheme, _, token = (await configuration.get_api_key_with_prefix("BearerToken") or "").partition(" ")
    return Credentials(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        proxy=configuration.proxy,
        scheme=scheme.capitalize() or None,
        token=token.strip() or None,
    )


class Cluster:
    """`cluster_api.ClusterApi` on a real API server."""

    def __init__(self, client: ApiClient, metrics: Metrics) -> None:
        self._client = client
        self._metrics = metrics
        self._writes = asyncio.Semaphore(WRITE_CONCURRENCY)

    @classmethod
    async def connect(cls, metrics: Metrics) -> Cluster:
        """With the credentials of `load_configuration`; opens no connection yet. Raises NoCluster."""
        client = ApiClient(await load_configuration())
        client.user_agent = f"{FIELD_MANAGER}/{importlib.metadata.version('protectedservice')}"
        return cls(client, metrics)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """See ClusterApi."""
        try:
            return await self._call("get", kind, "GET", _path(kind, namespace, name), subject=name)
        except NotFound:
            return None

    def list(self, kind: Kind, *, namespace: str | None = None, label_selector: str | None = None) -> Pages:
        """See ClusterApi."""
        return Pages(self, kind, namespace, label_selector)

    async def create(self, kind: Kind, body: Object) -> Object:
        """See ClusterApi."""
        namespace, name = _address(body)
        return await self._write(
            "create", kind, "POST", _path(kind, namespace), body, subject=name, query=[("fieldManager", FIELD_MANAGER)]
        )

    async def apply(self, kind: Kind, body: Object, *, manager: str = FIELD_MANAGER) -> Object:
        """See ClusterApi."""
        namespace, name = _address(body)
        query = [("fieldManager", manager), ("force", "true")]
        path = _path(kind, namespace, name)
        return await self._write("apply", kind, "PATCH", path, body, subject=name, query=query, content=APPLY_PATCH)

    async def replace(self, kind: Kind, body: Object) -> Object:
        """See ClusterApi."""
        namespace, name = _address(body)
        query = [("fieldManager", FIELD_MANAGER)]
        return await self._write("replace", kind, "PUT", _path(kind, namespace, name), body, subject=name, query=query)

    async def patch(
        self, kind: Kind, namespace: str | None, name: str, patch: Object | JSONPatch, *, subresource: str | None = None
    ) -> Object:
        """See ClusterApi."""
        path = _path(kind, namespace, name) + (f"/{subresource}" if subresource else "")
        body, content = (patch, MERGE_PATCH) if isinstance(patch, dict) else ([*patch], JSON_PATCH)
        query = [("fieldManager", FIELD_MANAGER)]
        return await self._write("patch", kind, "PATCH", path, body, subject=name, query=query, content=content)

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        """See ClusterApi."""
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if wanted := {key: value for key, value in preconditions.items() if value is not None}:
            options["preconditions"] = wanted
        try:
            await self._write("delete", kind, "DELETE", _path(kind, namespace, name), options, subject=name)
        except NotFound:
            logger.debug("%s %s/%s was gone before it was deleted", kind, namespace, name)

    async def _write(
        self,
        verb: str,
        kind: Kind,
        method: str,
        path: str,
        body: Any,
        *,
        subject: str,
        query: Sequence[tuple[str, str]] = (),
        content: str = "application/json",
    ) -> Object:
        async with self._writes:
            return await self._call(verb, kind, method, path, subject=subject, query=query, body=body, content=content)

    async def _call(
        self,
        verb: str,
        kind: Kind,
        method: str,
        path: str,
        *,
        subject: str,
        query: Sequence[tuple[str, str]] = (),
        body: Any = None,
        content: str = "application/json",
    ) -> Object:
        """One request, one answer; `subject` names the object in messages. Raises as ClusterApi says."""
        what = f"{verb} {kind} {subject}".rstrip()
        code = "none"
        try:
            request = await self._client.param_serialize(
                method=method,
                resource_path=path,
                query_params=[*query],
                header_params={"Accept": "application/json", "Content-Type": content},
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._client.call_api(*request, _request_timeout=REQUEST_TIMEOUT)
            payload: bytes = await response.read()  # type: ignore[no-untyped-call]
            code = str(response.status)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # Only the class: aiohttp's texts repeat URLs, and an exception may drag a request's body along.
            raise ClusterUnavailable(
                "ClusterUnavailable", f"the Kubernetes API did not answer to {what} ({type(error).__name__})"
            ) from None
        finally:
            self._metrics.kube_requests.labels(verb=verb, kind=kind.kind, code=code).inc()
        if response.status >= 400:
            status = _status(payload)
            if response.status == 410 and verb == "list":
                raise ListExpired
            _refuse(response.status, status, kind, what, retry_after=response.headers.get("Retry-After"))
        answer = json.loads(payload)
        if not isinstance(answer, dict):
            raise ClusterUnavailable("ClusterUnavailable", f"the Kubernetes API answered to {what} with no object")
        return answer


class Pages:
    """`cluster_api.Listing`: one list, 500 objects a page. Iterate once."""

    def __init__(self, cluster: Cluster, kind: Kind, namespace: str | None, label_selector: str | None) -> None:
        self._cluster = cluster
        self._kind = kind
        self._path = _path(kind, namespace)
        self._selector = label_selector
        self.resource_version = ""

    async def __aiter__(self) -> AsyncIterator[Object]:
        token: str | None = None
        restarted = False
        while True:
            try:
                page = await self._page(token)
            except ListExpired:
                if restarted:
                    raise ClusterUnavailable(
                        "ClusterUnavailable", f"the list of {self._kind} expired twice before it could be read"
                    ) from None
                token, restarted = None, True
                continue
            metadata = page.get("metadata", {})
            self.resource_version = metadata.get("resourceVersion", "")
            for item in page.get("items") or ():
                # Items of a list do not say what they are.
                item["apiVersion"], item["kind"] = self._kind.api_version, self._kind.kind
                yield item
            token = metadata.get("continue")
            if not token:
                return

    async def _page(self, token: str | None) -> Object:
        query = [("limit", str(PAGE_SIZE))]
        if self._selector:
            query.append(("labelSelector", self._selector))
        if token:
            query.append(("continue", token))
        return await self._cluster._call("list", self._kind, "GET", self._path, subject="", query=query)


class ListExpired(Exception):
    """410: the page token is older than what the API server still knows."""


def _path(kind: Kind, namespace: str | None, name: str | None = None) -> str:
    parts = ["apis", kind.group] if kind.group else ["api"]
    parts.append(kind.version)
    if kind.namespaced and namespace:
        parts += ["namespaces", namespace]
    parts.append(kind.plural)
    if name is not None:
        parts.append(name)
    return "/" + "/".join(quote(part, safe="") for part in parts)


def _address(body: Object) -> tuple[str | None, str]:
    metadata = body["metadata"]
    return metadata.get("namespace"), metadata.get("name", "")


def _status(payload: bytes) -> Object:
    """The `Status` object of a refusal; empty where a proxy or a starting API server sent something else."""
    try:
        status = json.loads(payload)
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}


def _refuse(code: int, status: Object, kind: Kind, what: str, *, retry_after: str | None) -> NoReturn:
    """Raise what ClusterApi promises for a refusal."""
    reason = foreign_text(status.get("reason") or f"HTTP {code}")
    details = status.get("details") or {}
    message = foreign_text(status.get("message") or reason)
    fields = [str(cause.get("field")) for cause in details.get("causes") or () if cause.get("field")]
    if kind == SECRET:
        # The API server quotes values that it does not like. Names of fields say enough.
        message = foreign_text(", ".join([reason, *fields]))
    if code == 404:
        raise NotFound(f"{what}: {message}")
    if code == 422 and "metadata.uid" in fields:
        # Apply and patch, unlike PUT and DELETE, say so where the uid in the body is not the object's.
        raise Conflict("Conflict", f"{what}: {message}")
    if code == 409:
        if reason == "AlreadyExists":
            raise AlreadyExists(f"{what}: {message}")
        raise Conflict("Conflict", f"{what}: {message}")
    if code in (400, 403, 422):
        raise Rejected(code, f"{what}: {message}")
    seconds = retry_after if retry_after and retry_after.isdigit() else details.get("retryAfterSeconds")
    raise ClusterUnavailable(
        "ClusterUnavailable",
        f"the Kubernetes API answered {code} to {what}: {message}",
        retry_after=float(seconds) if seconds else None,
    )
