"""As much of an API server as kopf's watches need, over HTTP, with a `FakeCluster` behind it.

Discovery, lists, and watches that stay open. Whatever else is asked of it is remembered in `writes` and refused.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection
from typing import Any, Self

from aiohttp import web
from aiohttp.test_utils import TestServer

from protectedservice_operator.resource import Kind

from .fake_cluster import FakeCluster


class WatchedApiServer:
    """Use as an async context manager.

    Attributes:
        writes: method and path of each request that is no read.
        selectors: the label selector of each kind's watch, by plural.
        all_watched: set once every kind is watched.
    """

    def __init__(self, cluster: FakeCluster, kinds: Collection[Kind]) -> None:
        self._cluster, self._kinds = cluster, kinds
        self._streams: dict[Kind, asyncio.Queue[tuple[str, dict[str, Any]]]] = {}
        self._closing = asyncio.Event()
        self._server: TestServer | None = None
        self.writes: list[str] = []
        self.selectors: dict[str, str | None] = {}
        self.all_watched = asyncio.Event()

    @property
    def url(self) -> str:
        assert self._server is not None
        return str(self._server.make_url("")).rstrip("/")

    async def __aenter__(self) -> Self:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._handle)
        self._server = TestServer(application)
        await self._server.start_server()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.set()
        assert self._server is not None
        await self._server.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/")
        if request.method != "GET":
            self.writes.append(f"{request.method} {path}")
            return web.json_response({"kind": "Status", "code": 403, "message": "only reads"}, status=403)
        for kind in self._kinds:
            if path == f"{_root(kind)}/{kind.plural}":
                return await (self._watch if request.query.get("watch") else self._list)(request, kind)
        return self._discovery(path)

    def _discovery(self, path: str) -> web.Response:
        if path == "/api":
            return web.json_response({"versions": ["v1"]})
        if path == "/apis":
            versions = {kind.group: {"groupVersion": kind.api_version, "version": kind.version} for kind in self._kinds}
            groups = [
                {"name": group, "versions": [version], "preferredVersion": version}
                for group, version in versions.items()
                if group
            ]
            return web.json_response({"groups": groups})
        resources = [
            {
                "name": kind.plural,
                "singularName": kind.kind.lower(),
                "kind": kind.kind,
                "namespaced": kind.namespaced,
                "verbs": ["get", "list", "watch", "create", "patch", "update", "delete"],
            }
            for kind in self._kinds
            if path == _root(kind)
        ]
        return web.json_response({"resources": resources}, status=200 if resources else 404)

    async def _list(self, request: web.Request, kind: Kind) -> web.Response:
        self.selectors[kind.plural] = request.query.get("labelSelector")
        items = self._cluster.objects(kind, selector=self.selectors[kind.plural])
        return web.json_response({"metadata": {"resourceVersion": str(self._cluster.version)}, "items": items})

    async def _watch(self, request: web.Request, kind: Kind) -> web.StreamResponse:
        queue: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        self._streams[kind] = queue
        self._cluster.on_change(
            lambda _, type_, obj: queue.put_nowait((type_, obj)), {kind: request.query.get("labelSelector")}
        )
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if len(self._streams) == len(self._kinds):
            self.all_watched.set()
        closing = asyncio.create_task(self._closing.wait())
        try:
            while not closing.done():
                event = asyncio.create_task(queue.get())
                await asyncio.wait({event, closing}, return_when=asyncio.FIRST_COMPLETED)
                if event.done():
                    type_, obj = event.result()
                    await response.write(json.dumps({"type": type_, "object": obj}).encode() + b"\n")
                else:
                    event.cancel()
        except (ConnectionError, asyncio.CancelledError):
            closing.cancel()
        return response


def _root(kind: Kind) -> str:
    return f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
