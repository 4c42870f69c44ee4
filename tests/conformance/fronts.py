"""The front ends under test, each as a real process behind one interface.

A third one is a function here that yields a `Front`, and a line in FRONTS. What one cannot keep is in `expected.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from ..resource_server.server_process import credentials_folder, started
from ..support.introspection_server import IntrospectionServer
from .background import Background
from .conversation import Answer, ask, head
from .upstreams import JSONLines, Seen, Upstream, fresh_target, recorder

ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Front:
    """A running front end with what stands before and behind it."""

    name: str
    port: int
    server: IntrospectionServer
    upstream: Upstream
    process: subprocess.Popen[Any] = field(repr=False)

    def token(self, scope: str = "read", **members: Any) -> str:
        return self.server.issue(scope, **members)

    async def good(self) -> tuple[str, Answer]:
        """A request that must be let in, on a connection of its own: its target, and the answer."""
        target = fresh_target("good")
        return target, await ask(self.port, head("GET", target, token=self.token()))

    async def seen_since(self, mark: int) -> list[Seen]:
        """What came out of the front after `mark`. Asserts on the way that it still serves others, and with their own
        answers: whoever got another's answer would tell of a desynchronised connection to the upstream."""
        target, answer = await self.good()
        assert answer.status == 200
        assert answer.body.startswith(f"GET {target}".encode())
        return self.upstream.since(mark, target)

    def introspections(self) -> int:
        return len(self.server.asked)


def validation(bound: str) -> dict[str, Any]:
    """The policy's part about freshness."""
    return {"maxRevocationDelay": bound, "timeout": "5s", "retries": 0}


REMEMBERING: Final[dict[str, Any]] = {
    "validation": validation("60s"),
    "resource": "https://orders.example/api",
    "rules": [{"paths": ["/admin/*"], "scopes": ["admin"]}, {"paths": ["/closed/*"], "access": "Deny"}],
}
"""Changes of a policy: what was learnt is used again, paths differ in what they need, and the resource has a name."""


def policy(server: IntrospectionServer, **changes: Any) -> str:
    """A policy that remembers nothing, so that every request is asked about."""
    document = {
        "scopes": ["read"],
        "validation": validation("0s"),
        "authorizationServers": [
            {"issuer": "http://as.test", "allowInsecureHTTP": True, "endpoints": {"introspection": server.url}}
        ],
        **changes,
    }
    return json.dumps(document)


@contextmanager
def own_before(
    server: IntrospectionServer, upstream: Upstream, port: int, place: Path, name: str, **changes: Any
) -> Iterator[Front]:
    """The resource server's own program in front of the upstream on `port`."""
    file = place / "policy.yaml"
    file.write_text(policy(server, upstream={"url": f"http://127.0.0.1:{port}", "allowLoopback": True}, **changes))
    folder = credentials_folder(place / "credentials", server.client_id, server.client_secret)
    with started(file, folder) as running:
        yield Front(name, running.port, server, upstream, running.process)


@contextmanager
def own(background: Background, server: IntrospectionServer, place: Path, **changes: Any) -> Iterator[Front]:
    with (
        recorder(background) as upstream,
        own_before(server, upstream, upstream.port, place, "own", **changes) as front,
    ):
        yield front


@contextmanager
def middleware(background: Background, server: IntrospectionServer, place: Path, **changes: Any) -> Iterator[Front]:
    """`asgi.Gate` in an application of one's own, under uvicorn."""
    del background
    file, record = place / "policy.yaml", place / "record.jsonl"
    file.write_text(policy(server, **changes))
    folder = credentials_folder(place / "credentials", server.client_id, server.client_secret)
    upstream = JSONLines(record)
    command = [sys.executable, "-m", "tests.conformance.embedded", str(file), str(folder), str(record)]
    with subprocess.Popen(command, cwd=ROOT, env={"PATH": os.environ["PATH"]}, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield Front("middleware", int(process.stdout.readline()), server, upstream, process)
        finally:
            process.kill()


Starter = Callable[..., AbstractContextManager[Front]]
"""(background, server, place, **changes of the policy)"""

FRONTS: Final[dict[str, Starter]] = {"own": own, "middleware": middleware}

PROXIES: Final = ("own",)
"""Those that forward to an upstream by HTTP; the middleware hands requests to an application."""
