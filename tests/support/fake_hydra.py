"""Ory Hydra with a memory, as 2.3 was seen to behave: an open admin API beside the public endpoints.

    server = FakeHydra()
    server.admin_url                       # for spec.registration.hydra
    server.fail_on(Operation.REGISTER, status=None, after_effect=True)

POST with an id that exists is 409, PUT replaces everything and keeps the secret unless one is sent, a second DELETE is
404. Clients must authenticate as they are registered, `audience` asks for an audience, and introspection asks nobody.
"""

from __future__ import annotations

import json
from typing import Any

from .fake_authorization_server import Answer, Client, FakeAuthorizationServer, Operation, Request, error, reply

ADMIN = "/admin/clients"


class FakeHydra(FakeAuthorizationServer):
    """See the module. `proxy_authorization`: what something in front of the admin API asks for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.proxy_authorization: str | None = None
        self.metadata = {"registration_endpoint": None, "introspection_endpoint": None}
        self.audience_parameter = "audience"
        self.open_introspection = True
        self.enforces_authentication_method = True

    @property
    def admin_url(self) -> str:
        return self.issuer

    @property
    def introspection_url(self) -> str:
        return f"{self.issuer}/oauth/introspect"

    def operation_of(self, request: Request) -> tuple[Operation, str | None]:
        if request.path == ADMIN:
            return Operation.REGISTER, None
        if request.path.startswith(f"{ADMIN}/"):
            by_method = {"GET": Operation.READ, "PUT": Operation.UPDATE, "DELETE": Operation.DELETE}
            return by_method[request.method], request.path.removeprefix(f"{ADMIN}/")
        return super().operation_of(request)

    def perform(self, operation: Operation, client_id: str | None, request: Request) -> Answer:
        if not request.path.startswith(ADMIN):
            return super().perform(operation, client_id, request)
        if request.headers.get("authorization") != self.proxy_authorization:
            return Answer(401, b"<html>Who are you?</html>", {"content-type": "text/html"})
        if operation is Operation.REGISTER:
            return self._create(json.loads(request.body))
        client = self.clients.get(str(client_id))
        if client is None:
            return error(404, "Unable to locate the resource", "")
        if operation is Operation.DELETE:
            del self.clients[client.client_id]
            self.deleted_total += 1
            return Answer(204, b"", {})
        if operation is Operation.UPDATE:
            body = json.loads(request.body)
            if (refusal := self.refuse_metadata(body)) is not None:
                return refusal
            client.client_secret = self._known(body.pop("client_secret", client.client_secret))
            client.metadata = {name: value for name, value in body.items() if name != "client_id"}
        return reply(200, {"client_id": client.client_id, **client.metadata})

    def _create(self, body: dict[str, Any]) -> Answer:
        client_id = body.pop("client_id")
        if client_id in self.clients:
            return error(409, "Unable to insert or update resource because a resource with that value exists already")
        if (refusal := self.refuse_metadata(body)) is not None:
            return refusal
        secret = self._known(body.pop("client_secret"))
        self.clients[client_id] = Client(client_id, secret, "", body)
        self.created_total += 1
        return reply(201, {"client_id": client_id, **body})

    def _known(self, secret: str) -> str:
        self.secrets_ever.add(secret)
        return secret
