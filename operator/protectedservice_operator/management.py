"""The operator's own port: `/healthz`, `/readyz`, `/metrics`.

kopf has a liveness server too, but it answers 200 to bad news as well (facts: kopf 1.45, `probing.py`).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

from aiohttp import web

from .metrics import Metrics

METRICS_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Faults = Callable[[], list[str]]


class Management:
    """Serves on all addresses. `not_alive` and `not_ready` say what is wrong; nothing is 200, anything 503."""

    def __init__(self, metrics: Metrics, *, not_alive: Faults, not_ready: Faults) -> None:
        self._metrics = metrics
        self._not_alive = not_alive
        self._not_ready = not_ready
        self._runner: web.AppRunner | None = None

    async def start(self, port: int) -> int:
        """Begin to answer; returns the port, which the kernel chose when 0 was asked for. Raises OSError."""
        application = web.Application()
        application.router.add_get("/healthz", self._healthz)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get("/metrics", self._exposition)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        listening = _listen(port)
        await web.SockSite(self._runner, listening).start()
        bound: int = listening.getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Stop answering."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return _verdict(self._not_alive())

    async def _readyz(self, _: web.Request) -> web.Response:
        return _verdict(self._not_ready())

    async def _exposition(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": METRICS_TYPE})


def _listen(port: int) -> socket.socket:
    """One socket for IPv6 and IPv4 where the machine has both: kubelets probe by whichever the pod has."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _verdict(faults: list[str]) -> web.Response:
    return web.Response(status=503, text="\n".join(faults) + "\n") if faults else web.Response(text="ok\n")
