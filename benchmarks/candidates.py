"""Who is measured, and how each is set up: pure descriptions that bench.py starts.

Everybody introspects at the same stub with the same credentials and answers the same JSON, so that the bytes on the
wire are comparable. Each runs on one core with one worker.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

PEERS: Final = Path(__file__).resolve().parent / "peers"

CLIENT_ID: Final = "resource-server"
CLIENT_SECRET: Final = "not-a-secret-of-anybody"  # noqa: S105 it opens the stub on loopback, for the length of a run
BASIC: Final = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
SCOPES: Final = "read write"
FACTS: Final = {"active": True, "scope": SCOPES, "client_id": "caller", "sub": "user-1", "exp": 4102444800}
ANSWER: Final = {
    "ok": True,
    "protected": True,
    "required_scope": "read",
    "client_id": FACTS["client_id"],
    "sub": FACTS["sub"],
    "scope": SCOPES,
    "exp": FACTS["exp"],
}
"""What a good token gets at /protected."""

_PLACE: Final = re.compile(r"@([A-Z_]+)@")


def render(template: str, values: Mapping[str, str]) -> str:
    """The template with each @NAME@ replaced. Pure.

    Raises:
        KeyError: a name has no value; a configuration with a hole in it would measure something else.
    """
    return _PLACE.sub(lambda found: values[found[1]], template)


@dataclass(frozen=True, slots=True)
class Tools:
    """Programs that the commands name."""

    server: Path
    venv: Path
    lua_libraries: Path
    sources: Path
    """The folder that holds the package protectedservice_server, for the middleware."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How a candidate is to work in one regime."""

    lifetime: int = 5
    """Seconds that an answer may be used (ours: maxRevocationDelay); 0: every request introspects."""
    proxy: bool = False
    """Forward to the upstream instead of answering."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where one candidate runs."""

    folder: Path
    port: int
    management_port: int
    as_port: int
    upstream_port: int


@dataclass(frozen=True, slots=True)
class Launch:
    """A command, and what it needs in its environment. Files it needs are written by then."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One contestant."""

    name: str
    title: str
    launch: Callable[[Tools, Place, Setup], Launch]
    authenticates: bool = True


def policy(place: Place, setup: Setup, *, embedded: bool = False) -> str:
    """Our policy file for a setup (JSON is YAML). Pure."""
    base = f"http://127.0.0.1:{place.as_port}"
    document: dict[str, object] = {
        "scopes": ["read"],
        "validation": {"maxRevocationDelay": f"{setup.lifetime}s"},
        "authorizationServers": [
            {"issuer": base, "allowInsecureHTTP": True, "endpoints": {"introspection": f"{base}/introspect"}}
        ],
    }
    if not embedded:
        document |= (
            {"upstream": {"url": f"http://127.0.0.1:{place.upstream_port}", "allowLoopback": True}}
            if setup.proxy
            else {"demo": True}
        )
    return json.dumps(document, indent=1)


def _credentials(folder: Path) -> Path:
    credentials = folder / "credentials"
    credentials.mkdir(exist_ok=True)
    (credentials / "client_id").write_text(CLIENT_ID, "ascii")
    (credentials / "client_secret").write_text(CLIENT_SECRET, "ascii")
    return credentials


def _ours(tools: Tools, place: Place, setup: Setup) -> Launch:
    file = place.folder / "policy.yaml"
    file.write_text(policy(place, setup), "utf-8")
    credentials = _credentials(place.folder)
    command = [str(tools.server), "--policy", str(file), "--credentials", str(credentials)]
    return Launch([*command, "--port", str(place.port), "--management-port", str(place.management_port)])


def _written(template: str, place: Place, values: Mapping[str, str]) -> Path:
    file = place.folder / template
    file.write_text(render((PEERS / template).read_text("utf-8"), values), "utf-8")
    return file


def _values(tools: Tools, place: Place, setup: Setup) -> dict[str, str]:
    return {
        "FOLDER": str(place.folder),
        "PEERS": str(PEERS),
        "PORT": str(place.port),
        "AS_PORT": str(place.as_port),
        "UPSTREAM_PORT": str(place.upstream_port),
        "LIFETIME": str(setup.lifetime),
        "BODY": json.dumps(ANSWER),
        "BASIC": BASIC,
        "CLIENT_ID": CLIENT_ID,
        "CLIENT_SECRET": CLIENT_SECRET,
        "SCOPES": SCOPES,
        "LUA_LIBRARIES": str(tools.lua_libraries),
    }


def _nginx(template: str) -> Callable[[Tools, Place, Setup], Launch]:
    def launch(tools: Tools, place: Place, setup: Setup) -> Launch:
        return Launch(["nginx", "-e", "stderr", "-c", str(_written(template, place, _values(tools, place, setup)))])

    return launch


def authorization_server(tools: Tools, place: Place, www: Path) -> Launch:
    """The stub authorization server and the upstream: one nginx."""
    values = _values(tools, place, Setup()) | {
        "WWW": str(www),
        "GOOD": json.dumps(FACTS),
        "SCOPELESS": json.dumps(FACTS | {"scope": "write"}),
    }
    file = _written("authorization_server.conf", place, values)
    return Launch(["nginx", "-e", "stderr", "-c", str(file)])


def _apache(tools: Tools, place: Place, setup: Setup) -> Launch:
    www = place.folder / "www"
    www.mkdir(exist_ok=True)
    (www / "protected").write_text(json.dumps(ANSWER), "ascii")
    file = _written("apache_oauth2.conf", place, _values(tools, place, setup))
    return Launch(["apache2", "-f", str(file), "-DFOREGROUND"])


def _node(tools: Tools, place: Place, setup: Setup) -> Launch:
    values = _values(tools, place, setup)
    names = ("PORT", "AS_PORT", "UPSTREAM_PORT", "BASIC", "LIFETIME")
    return Launch(["node", str(PEERS / "node_server.mjs")], {name: values[name] for name in names})


def _granian(tools: Tools, place: Place, interface: str, target: str) -> list[str]:
    return [
        *(str(tools.venv / "bin" / "granian"), "--interface", interface, "--http", "1", "--no-ws", "--loop", "uvloop"),
        *("--workers", "1", "--runtime-mode", "st", "--host", "127.0.0.1", "--port", str(place.port)),
        *("--log-level", "warning", "--working-dir", str(PEERS), target),
    ]


def _granian_hello(tools: Tools, place: Place, setup: Setup) -> Launch:
    del setup
    return Launch(_granian(tools, place, "rsgi", "granian_hello:hello"), {"BODY": json.dumps(ANSWER)})


def _asgi_environment(tools: Tools, place: Place, setup: Setup) -> dict[str, str]:
    file = place.folder / "policy.yaml"
    file.write_text(policy(place, setup, embedded=True), "utf-8")
    return {
        "POLICY": str(file),
        "CREDENTIALS": str(_credentials(place.folder)),
        "PYTHONPATH": f"{tools.sources}:{PEERS}",
    }


def _asgi_granian(tools: Tools, place: Place, setup: Setup) -> Launch:
    command = _granian(tools, place, "asgi", "asgi_application:application")
    return Launch(command, _asgi_environment(tools, place, setup))


def _asgi_uvicorn(tools: Tools, place: Place, setup: Setup) -> Launch:
    command = [
        *(str(tools.venv / "bin" / "uvicorn"), "--loop", "uvloop", "--http", "httptools", "--ws", "none"),
        *("--host", "127.0.0.1", "--port", str(place.port), "--no-access-log", "--log-level", "warning"),
        *("--backlog", "4096", "asgi_application:application"),
    ]
    return Launch(command, _asgi_environment(tools, place, setup))


OURS: Final = Candidate("ours", "**protectedservice-server**", _ours)
NGINX_RETURN: Final = Candidate(
    "nginx-return", "nginx `return`: no check, the limit", _nginx("nginx_return.conf"), authenticates=False
)
NGINX_LUA: Final = Candidate("nginx-lua", "nginx + Lua", _nginx("nginx_lua.conf"))
APACHE: Final = Candidate(
    "apache-oauth2",
    "Apache mod_oauth2",
    _apache,
)
NODE: Final = Candidate("node-fetch", "Node, fetch, Map", _node)
GRANIAN: Final = Candidate("granian-hello", "bare granian hello: no check", _granian_hello, authenticates=False)
ASGI_UVICORN: Final = Candidate("asgi-uvicorn", "our ASGI middleware, uvicorn", _asgi_uvicorn)
ASGI_GRANIAN: Final = Candidate("asgi-granian", "our ASGI middleware, granian", _asgi_granian)
