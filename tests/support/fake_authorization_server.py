"""An authorization server with a memory, for tests: what it was asked to make is there, whatever became of the answer.

    server = FakeAuthorizationServer(scopes={"read"})
    server.fail_on(Operation.REGISTER, status=503, times=2, after_effect=True)
    remote = Remote("...", transport=server.transport())        # in memory
    async with server.serve() as issuer: ...                    # or over a real socket

Assert on its state: `clients`, `created_total`, `deleted_total`, `tokens`, `requests`. Every secret and token that it
ever gave out or took is in `secrets_ever`, for searches in logs. It follows RFC 6749, 7009, 7591, 7592, 7662, 8414 and
8707 as django-oauth-toolkit does: a 401 for a client that is gone, a registration token that changes with each PUT.
"""

from __future__ import annotations

import asyncio
import base64
import enum
import itertools
import json
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, unquote_plus, urlsplit

import httpx
import uvicorn


class Operation(enum.StrEnum):
    """What a request is about."""

    METADATA = "metadata"
    REGISTER = "register"
    READ = "read"
    UPDATE = "update"
    DELETE = "delete"
    TOKEN = "token"
    INTROSPECT = "introspect"
    REVOKE = "revoke"
    LOGIN = "login"  # of the operator itself, where an admin API wants that


@dataclass
class Client:
    """A client that exists. `metadata` as it was sent, `client_id` left out."""

    client_id: str
    client_secret: str = field(repr=False)
    registration_token: str = field(repr=False)
    metadata: dict[str, Any]

    @property
    def scopes(self) -> set[str]:
        return set(str(self.metadata.get("scope", "")).split())

    @property
    def audience(self) -> set[str]:
        return set(self.metadata.get("audience", ()))


@dataclass
class AccessToken:
    """A token that was issued; it dies with its client."""

    client_id: str
    scope: str
    audience: str | None
    expires_at: float
    revoked: bool = False


@dataclass(frozen=True)
class Seen:
    """One request of the journal, in the order of arrival. `status` is None while, or if ever, no answer was given."""

    operation: Operation
    client_id: str | None
    idempotency_key: str | None
    status: int | None


@dataclass
class _Fault:
    """What is to happen instead of an answer. `status` None: the connection breaks."""

    operation: Operation
    times: int | None
    after_effect: bool
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    hang: bool = False


@dataclass
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]


@dataclass
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    query: str = ""

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode()))

    @property
    def bearer(self) -> str | None:
        scheme, _, value = self.headers.get("authorization", "").partition(" ")
        return value if scheme == "Bearer" else None

    @property
    def basic(self) -> tuple[str, str] | None:
        """Decoded as RFC 6749 section 2.3.1 has it."""
        scheme, _, value = self.headers.get("authorization", "").partition(" ")
        if scheme != "Basic":
            return None
        name, _, password = base64.b64decode(value).decode().partition(":")
        return unquote_plus(name), unquote_plus(password)

    @property
    def credentials(self) -> tuple[str, str, str] | None:
        """Client id, secret and the method by which they came."""
        if self.basic is not None:
            return *self.basic, "client_secret_basic"
        form = self.form
        if "client_secret" in form:
            return form["client_id"], form["client_secret"], "client_secret_post"
        return None


class _ConnectionLostError(Exception):
    """The work may be done, but nobody hears of it."""


class FakeAuthorizationServer:
    """See the module's docstring. Attributes are switches: set them at any time.

    Attributes:
        issuer: also the base of all URLs in answers.
        scopes: those that clients may register for; others are `invalid_client_metadata`.
        initial_access_token: what registration asks for.
        idempotency_honoured: POST and PUT with the same Idempotency-Key get the same answer and happen once; a PUT must
            present the same bearer token, used up or not. Another body under the same key: 422.
        manages_clients: RFC 7592; without it the server only registers.
        rotates_registration_tokens: a PUT replaces the registration token; `rotates_registration_tokens_on_read`: so
            does a GET (RFC 7592 section 3 allows it).
        granted_scope: what the server makes of the scope that a client registers for.
        echoes_scope: whether answers about a client say its scope.
        open_registration: whoever asks is registered.
        demands_redirect_uris: a client without one is refused.
        tells_little: the answer to a registration holds the client's id and secret, and nothing else.
        authentication_methods: those that the endpoints of daily life take.
        enforces_authentication_method: of these, a client may only use the one that it is registered with.
        open_introspection: anybody may introspect.
        token_lifetime: seconds.
        audience_parameter: the name by which the token endpoint is asked for an audience; None: it adds it unasked.
        client_uri_base: where `registration_client_uri` claims to be; default: the issuer.
        metadata: added to the RFC 8414 document; a None removes a member. `metadata_path` moves it.
        down: no connection at all (in memory only).
    """

    def __init__(
        self,
        *,
        issuer: str = "https://authorization-server.test",
        scopes: set[str] | None = None,
        initial_access_token: str = "initial-access-token-of-the-test",
        idempotency_honoured: bool = True,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.issuer = issuer
        self.scopes = scopes if scopes is not None else {"read", "write"}
        self._initial_access_token = initial_access_token
        self.idempotency_honoured = idempotency_honoured
        self.manages_clients = True
        self.rotates_registration_tokens = True
        self.rotates_registration_tokens_on_read = False
        self.granted_scope: Callable[[str], str] = lambda asked: asked
        self.echoes_scope = True
        self.open_registration = False
        self.demands_redirect_uris = False
        self.tells_little = False
        self.authentication_methods = {"client_secret_basic", "client_secret_post"}
        self.enforces_authentication_method = False
        self.open_introspection = False
        self.token_lifetime = 300
        self.audience_parameter: str | None = "resource"
        self.client_uri_base: str | None = None
        self.metadata: dict[str, Any] = {}
        self.metadata_path = "/.well-known/oauth-authorization-server"
        self.down = False

        self.clients: dict[str, Client] = {}
        self.tokens: dict[str, AccessToken] = {}
        self.created_total = 0
        self.deleted_total = 0
        self.requests: list[Seen] = []
        self.secrets_ever: set[str] = {initial_access_token}
        self._now = now
        self._faults: list[_Fault] = []
        self._released = asyncio.Event()
        self._replays: dict[tuple[Operation, str, str], tuple[Any, Answer]] = {}
        self._numbers = itertools.count(1)

    @property
    def initial_access_token(self) -> str:
        return self._initial_access_token

    @initial_access_token.setter
    def initial_access_token(self, value: str) -> None:
        self._initial_access_token = value
        self.secrets_ever.add(value)

    # Misfortunes

    def fail_on(
        self,
        operation: Operation,
        *,
        status: int | None = 503,
        times: int | None = 1,
        after_effect: bool = False,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> None:
        """Answer the next `times` (None: all) such requests so; `status` None: the connection breaks.

        With `after_effect` the work is done and only its answer is lost.
        """
        self._faults.append(_Fault(operation, times, after_effect, status, headers or {}, body))

    def hang_on(self, operation: Operation, *, times: int | None = 1, after_effect: bool = False) -> None:
        """Take the next `times` such requests and say nothing until `release`, then break the connection."""
        self._released.clear()
        self._faults.append(_Fault(operation, times, after_effect, hang=True))

    def release(self) -> None:
        """Let go of all requests that hang."""
        self._released.set()

    def heal(self) -> None:
        """End all misfortunes."""
        self._faults.clear()
        self.down = False
        self.release()

    # What tests ask

    def count(self, operation: Operation) -> int:
        """How many such requests have arrived."""
        return sum(seen.operation is operation for seen in self.requests)

    def is_active(self, token: str) -> bool:
        """What introspection says."""
        known = self.tokens.get(token)
        return (
            known is not None
            and not known.revoked
            and known.expires_at > self._now()
            and known.client_id in self.clients
        )

    def lose_client(self, client_id: str) -> None:
        """As if somebody had deleted it behind everybody's back; not counted as deleted."""
        del self.clients[client_id]

    # Doors

    def transport(self) -> httpx.AsyncBaseTransport:
        """For httpx clients, in memory."""
        return _Transport(self)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Answer on a free port of 127.0.0.1; gives the issuer, and sets it, for as long as it lasts."""
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(self, lifespan="off", log_config=None, access_log=False, ws="none")
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        before, self.issuer = self.issuer, f"http://127.0.0.1:{listener.getsockname()[1]}"
        await server.startup(sockets=[listener])
        try:
            yield self.issuer
        finally:
            self.release()
            await server.shutdown(sockets=[listener])
            self.issuer = before

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]
    ) -> None:
        """The ASGI application."""
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            answer = await self.handle(
                Request(scope["method"], scope["path"], headers, body, scope["query_string"].decode())
            )
        except _ConnectionLostError:
            # More is announced than ever comes: the caller sees the connection end in the middle.
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            return
        raw = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
        raw.append((b"content-length", str(len(answer.body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": raw})
        await send({"type": "http.response.body", "body": answer.body})

    async def handle(self, request: Request) -> Answer:
        """One request, with its misfortune if it has one."""
        operation, client_id = self.operation_of(request)
        index = len(self.requests)
        self.requests.append(Seen(operation, client_id, request.headers.get("idempotency-key"), None))
        fault = self._fault(operation)
        if fault is None or fault.after_effect:
            answer = self._once(operation, client_id, request)
        if fault is not None:
            if fault.hang:
                await self._released.wait()
            if fault.status is None:
                raise _ConnectionLostError
            answer = reply(fault.status, {"error": "server_error"})
            answer.body = fault.body if fault.body is not None else answer.body
            answer.headers |= fault.headers
        self.requests[index] = replace(self.requests[index], status=answer.status)
        return answer

    def _fault(self, operation: Operation) -> _Fault | None:
        for fault in self._faults:
            if fault.operation is operation:
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times == 0:
                        self._faults.remove(fault)
                return fault
        return None

    # Work

    def operation_of(self, request: Request) -> tuple[Operation, str | None]:
        path = request.path
        if path == "/oauth/register":
            return Operation.REGISTER, None
        if path.startswith("/oauth/register/"):
            by_method = {"GET": Operation.READ, "PUT": Operation.UPDATE, "DELETE": Operation.DELETE}
            return by_method[request.method], path.removeprefix("/oauth/register/")
        by_path = {
            "/oauth/token": Operation.TOKEN,
            "/oauth/introspect": Operation.INTROSPECT,
            "/oauth/revoke": Operation.REVOKE,
        }
        credentials = request.credentials if path in by_path else None
        return by_path.get(path, Operation.METADATA), credentials[0] if credentials else None

    def _once(self, operation: Operation, client_id: str | None, request: Request) -> Answer:
        """As Idempotency-Key has it: only successes are kept."""
        key = request.headers.get("idempotency-key")
        if key is None or not self.idempotency_honoured or operation not in (Operation.REGISTER, Operation.UPDATE):
            return self.perform(operation, client_id, request)
        if operation is Operation.REGISTER and request.bearer != self.initial_access_token:
            return error(401, "invalid_token")
        slot = (operation, key, f"{client_id} {request.bearer}" if operation is Operation.UPDATE else "")
        sent = json.loads(request.body)
        if slot in self._replays:
            known, answer = self._replays[slot]
            return answer if known == sent else error(422, "idempotency_key_reused")
        answer = self.perform(operation, client_id, request)
        if answer.status < 400:
            self._replays[slot] = (sent, answer)
        return answer

    def perform(self, operation: Operation, client_id: str | None, request: Request) -> Answer:
        match operation:
            case Operation.METADATA:
                return self._metadata(request)
            case Operation.REGISTER:
                return self._register(request)
            case Operation.READ | Operation.UPDATE | Operation.DELETE:
                return self._manage(operation, str(client_id), request)
        token = request.form.get("token", "")
        known = self.tokens.get(token)
        if operation is Operation.INTROSPECT and self.open_introspection:
            return self.introspect(known if self.is_active(token) else None, None)
        client = self._authenticated(request)
        if client is None:
            return error(401, "invalid_client")
        if operation is Operation.TOKEN:
            return self._token(client, request.form)
        if operation is Operation.REVOKE:
            if known is not None and known.client_id == client.client_id:
                known.revoked = True
            return reply(200, {})
        return self.introspect(known if self.is_active(token) else None, client)

    def _authenticated(self, request: Request) -> Client | None:
        """The client that says who it is, in a way that is taken."""
        if request.credentials is None:
            return None
        client_id, secret, method = request.credentials
        client = self.clients.get(client_id)
        if client is None or secret != client.client_secret or method not in self.authentication_methods:
            return None
        registered = client.metadata.get("token_endpoint_auth_method")
        return None if self.enforces_authentication_method and method != registered else client

    def introspect(self, known: AccessToken | None, asker: Client | None) -> Answer:
        """What is said of a token; `known` is None when it is not active, `asker` when anybody may ask."""
        if known is None:
            return reply(200, {"active": False})
        audience = {"aud": [known.audience]} if known.audience else {}
        return reply(
            200,
            {"active": True, "scope": known.scope, "client_id": known.client_id, "exp": int(known.expires_at)}
            | audience,
        )

    def _metadata(self, request: Request) -> Answer:
        if request.path != self.metadata_path:
            return Answer(404, b"<html>Not Found</html>", {"content-type": "text/html"})
        document: dict[str, Any] = {
            "issuer": self.issuer,
            "token_endpoint": f"{self.issuer}/oauth/token",
            "introspection_endpoint": f"{self.issuer}/oauth/introspect",
            "revocation_endpoint": f"{self.issuer}/oauth/revoke",
            "registration_endpoint": f"{self.issuer}/oauth/register",
            "grant_types_supported": ["client_credentials"],
        } | self.metadata
        return reply(200, {name: value for name, value in document.items() if value is not None})

    def _register(self, request: Request) -> Answer:
        if request.bearer != self.initial_access_token and not self.open_registration:
            return error(401, "invalid_token")
        body = json.loads(request.body)
        if (refusal := self.refuse_metadata(body)) is not None:
            return refusal
        if self.demands_redirect_uris and not body["redirect_uris"]:
            return error(400, "invalid_redirect_uri", "redirect_uris must not be empty")
        number = next(self._numbers)
        client = Client(f"client-{number}", self._secret("secret"), self._secret("registration"), body)
        self.clients[client.client_id] = client
        self.created_total += 1
        if self.tells_little:
            return reply(201, {"client_id": client.client_id, "client_secret": client.client_secret})
        return reply(
            201, self._description(client) | {"client_secret": client.client_secret, "client_secret_expires_at": 0}
        )

    def _manage(self, operation: Operation, client_id: str, request: Request) -> Answer:
        if not self.manages_clients:
            return Answer(404, b"<html>Not Found</html>", {"content-type": "text/html"})
        client = self.clients.get(client_id)
        if client is None or request.bearer != client.registration_token:
            return error(401, "invalid_token")
        if operation is Operation.DELETE:
            del self.clients[client_id]
            self.deleted_total += 1
            return Answer(204, b"", {})
        if operation is Operation.UPDATE:
            body = json.loads(request.body)
            if body.pop("client_id", None) != client_id or "client_secret" in body:
                return error(400, "invalid_client_metadata", "client_id must be sent, client_secret must not")
            if (refusal := self.refuse_metadata(body)) is not None:
                return refusal
            client.metadata = body
            if self.rotates_registration_tokens:
                client.registration_token = self._secret("registration")
        elif self.rotates_registration_tokens_on_read:
            client.registration_token = self._secret("registration")
        return reply(200, self._description(client))

    def refuse_metadata(self, body: dict[str, Any]) -> Answer | None:
        """The refusal, if any; else `body` holds what is granted."""
        unknown = set(str(body.get("scope", "")).split()) - self.scopes
        if unknown:
            return error(400, "invalid_client_metadata", "Unknown scope: " + " ".join(sorted(unknown)))
        body["scope"] = self.granted_scope(str(body.get("scope", "")))
        return None

    def _description(self, client: Client) -> dict[str, Any]:
        """RFC 7591 section 3.2.1, without the secret."""
        described = {"client_id": client.client_id, **client.metadata}
        if not self.echoes_scope:
            del described["scope"]
        if self.manages_clients:
            base = self.client_uri_base or self.issuer
            described["registration_client_uri"] = f"{base}/oauth/register/{client.client_id}"
            described["registration_access_token"] = client.registration_token
        return described

    def _token(self, client: Client, form: Mapping[str, str]) -> Answer:
        if form.get("grant_type") != "client_credentials":
            return error(400, "unsupported_grant_type")
        asked = set(form.get("scope", " ".join(client.scopes)).split())
        if not asked <= client.scopes:
            return error(400, "invalid_scope")
        audience = form.get(self.audience_parameter) if self.audience_parameter else next(iter(client.audience), None)
        if audience is not None and audience not in client.audience:
            return error(400, "invalid_target")
        value, ends = self._secret("token"), self._now() + self.token_lifetime
        self.tokens[value] = AccessToken(client.client_id, " ".join(sorted(asked)), audience, ends)
        scope = " ".join(sorted(asked))
        told = {"access_token": value, "token_type": "Bearer", "expires_in": self.token_lifetime, "scope": scope}
        return reply(200, told)

    def _secret(self, what: str) -> str:
        value = f"{what}-{secrets.token_urlsafe(24)}"
        self.secrets_ever.add(value)
        return value


class _Transport(httpx.AsyncBaseTransport):
    """httpx's way in, without a socket."""

    def __init__(self, server: FakeAuthorizationServer) -> None:
        self._server = server

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._server.down:
            raise httpx.ConnectError("All connection attempts failed", request=request)
        body = await request.aread()
        url = urlsplit(str(request.url))
        try:
            answer = await self._server.handle(
                Request(request.method, url.path, dict(request.headers), body, url.query)
            )
        except _ConnectionLostError:
            raise httpx.ReadError("", request=request) from None
        return httpx.Response(answer.status, headers=answer.headers, stream=httpx.ByteStream(answer.body))


def reply(status: int, body: Mapping[str, Any]) -> Answer:
    headers = {"content-type": "application/json", "cache-control": "no-store"}
    return Answer(status, json.dumps(body).encode(), headers)


def error(status: int, code: str, description: str = "") -> Answer:
    body = {"error": code} | ({"error_description": description} if description else {})
    return reply(status, body)
