"""Protected resource metadata (RFC 9728)."""

from __future__ import annotations

import pytest

from protectedservice_server.protected_resource import WELL_KNOWN, metadata_url

from ..support.echo_upstream import EchoUpstream
from ..support.introspection_server import IntrospectionServer
from .running import behind, service
from .wire import Header, Reply, ask, head, raw

RESOURCE = "https://api.example/orders"


async def ask_attacker(port: int, target: str, *, token: str | None = None, headers: tuple[Header, ...] = ()) -> Reply:
    """A request whose Host somebody else has chosen."""
    return await raw(port, head("GET", target, headers, token=token, host="attacker.example"))


@pytest.mark.parametrize(
    ("resource", "url"),
    [
        ("https://api.example", "https://api.example/.well-known/oauth-protected-resource"),
        ("https://api.example/", "https://api.example/.well-known/oauth-protected-resource"),
        ("https://api.example:8443/a/b", "https://api.example:8443/.well-known/oauth-protected-resource/a/b"),
        ("https://api.example/a/", "https://api.example/.well-known/oauth-protected-resource/a/"),
    ],
)
def test_the_resource_s_path_follows_the_well_known_one(resource: str, url: str) -> None:
    assert metadata_url(resource) == url


async def test_the_metadata_tells_anybody_where_to_get_which_token(server: IntrospectionServer) -> None:
    rules = [{"paths": ["/x/*"], "scopes": ["write", "read"]}, {"paths": ["/*"], "access": "Deny"}]
    async with EchoUpstream() as upstream, service(server, **behind(upstream.url), resource=RESOURCE, rules=rules) as s:
        told = await ask_attacker(s.port, f"{WELL_KNOWN}/orders?x=1")
        empty = await ask(s.port, f"{WELL_KNOWN}/orders", method="HEAD")
        posted = await ask(s.port, f"{WELL_KNOWN}/orders", method="POST")
        elsewhere = [await ask(s.port, WELL_KNOWN + more) for more in ("", "/", "/orders/", "/Orders", "/other")]
        assert upstream.seen == []

    assert (told.status, told.value("content-type")) == (200, "application/json")
    assert told.json() == {
        "resource": RESOURCE,
        "authorization_servers": ["http://as.test"],
        "scopes_supported": ["read", "write"],
        "bearer_methods_supported": ["header"],
    }
    assert (empty.status, empty.body, empty.value("content-length")) == (200, b"", told.value("content-length"))
    assert (posted.status, posted.value("allow")) == (405, "GET, HEAD")
    assert {answer.status for answer in elsewhere} == {404}
    assert server.asked == []


async def test_every_challenge_names_the_metadata_whatever_host_was_asked_for(server: IntrospectionServer) -> None:
    rules = [{"paths": ["/x"], "scopes": ["write"]}]
    async with service(server, resource=RESOURCE, rules=rules) as running:
        answers = [
            await ask_attacker(running.port, "/protected"),
            await ask_attacker(running.port, "/x"),
            await ask_attacker(running.port, "/protected", token="unknown"),
            await ask_attacker(running.port, "/x", token=server.issue("read")),
            await ask_attacker(running.port, "/protected", headers=(("Authorization", "Bearer ?"),)),
        ]

    assert [answer.status for answer in answers] == [401, 401, 401, 403, 400]
    for answer in answers:
        challenge = answer.value("www-authenticate") or ""
        assert 'resource_metadata="https://api.example/.well-known/oauth-protected-resource/orders"' in challenge
        assert "attacker" not in challenge


async def test_without_a_resource_there_is_no_metadata_and_no_word_of_it(server: IntrospectionServer) -> None:
    async with EchoUpstream() as upstream, service(server, **behind(upstream.url)) as running:
        answers = [await ask(running.port, WELL_KNOWN + more, token=server.issue()) for more in ("", "/orders")]
        beside = await ask(running.port, WELL_KNOWN + "-of-mine", token=server.issue())
        bare = await ask(running.port, "/x")

    assert [answer.status for answer in answers] == [404, 404]
    assert beside.status == 200
    assert "resource_metadata" not in (bare.value("www-authenticate") or "")
    assert [seen.target for seen in upstream.seen] == [WELL_KNOWN + "-of-mine"]
