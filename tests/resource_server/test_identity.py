"""What the upstream is told of the caller, what goes on to it, and over what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from protectedservice_server.decision import Facts
from protectedservice_server.identity import Identity, plain
from protectedservice_server.policy import IDENTITY_HEADERS, Access, Claim, Rule, Rules, Upstream
from protectedservice_server.trust import TrustError

from ..support.certificates import Authority
from ..support.echo_upstream import EchoUpstream
from ..support.introspection_server import IntrospectionServer
from .running import behind, service
from .wire import ask

FACTS = Facts(
    active=True, scope="read", client_id="shop", sub="alice", username="Alice", iss="https://as", aud=("a",), exp=1.0
)
URL = "http://orders"


def test_the_upstream_is_told_client_subject_and_scopes_unless_it_is_said_otherwise() -> None:
    told = Identity(Upstream(URL), Rules()).told(FACTS)

    assert told == [("X-Auth-Client-Id", "shop"), ("X-Auth-Subject", "alice"), ("X-Auth-Scope", "read")]


def test_claims_go_by_the_names_that_the_policy_gives() -> None:
    names = {**IDENTITY_HEADERS, Claim.SUBJECT: "X-User", Claim.USERNAME: "X-Login", Claim.ISSUER: "X-From"}
    told = dict(Identity(Upstream(URL, identity_headers=names), Rules()).told(FACTS))

    assert told["X-User"] == "alice"
    assert told["X-Login"] == "Alice"
    assert told["X-From"] == "https://as"
    assert "X-Auth-Subject" not in told


def test_a_claim_that_the_token_has_not_is_no_header() -> None:
    names = dict.fromkeys(Claim, "")
    names |= {claim: f"X-{claim}" for claim in Claim}

    assert Identity(Upstream(URL, identity_headers=names), Rules()).told(Facts(active=True)) == []


def test_nothing_is_told_where_that_is_switched_off_or_no_token_was_looked_at() -> None:
    assert Identity(Upstream(URL, tell_identity=False), Rules()).told(FACTS) == []
    assert Identity(Upstream(URL), Rules()).told(None) == []


@pytest.mark.parametrize("tell", [True, False])
@pytest.mark.parametrize("name", ["X-User", "x_user", "X-USER", "X-Auth-Subject", "x_auth_scope", "X-Auth-Client_Id"])
def test_a_caller_s_own_identity_is_taken_off_by_old_and_new_names_whether_ours_is_told_or_not(
    name: str, tell: bool
) -> None:
    names = {**IDENTITY_HEADERS, Claim.SUBJECT: "X-User"}
    identity = Identity(Upstream(URL, tell_identity=tell, identity_headers=names), Rules())

    assert identity.drops(plain(name), FACTS)
    assert identity.drops(plain(name), None)
    assert not identity.drops(plain("X-Users"), FACTS)


@pytest.mark.parametrize(
    ("forward", "facts", "dropped"), [(False, FACTS, True), (True, FACTS, False), (True, None, True)]
)
def test_a_token_goes_on_only_where_that_is_wanted_and_it_was_found_good(
    forward: bool, facts: Facts | None, dropped: bool
) -> None:
    identity = Identity(Upstream(URL, forward_token=forward), Rules((Rule(("/*",), Access.PUBLIC),)))

    assert identity.drops("authorization", facts) is dropped


async def test_the_token_arrives_once_as_it_was_sent(server: IntrospectionServer) -> None:
    rules = [{"paths": ["/open"], "access": "Public"}]
    async with EchoUpstream() as upstream:
        changes = {**behind(upstream.url, forwardToken=True), "rules": rules}
        async with service(server, **changes) as proxy:
            token = server.issue(sub="alice")
            await ask(proxy.port, "/x", token=token)
            await ask(proxy.port, "/open", token=token)

    assert upstream.seen[0].values("authorization") == [f"Bearer {token}"]
    assert upstream.seen[0].values("x-auth-subject") == ["alice"]
    assert upstream.seen[1].values("authorization") == []


async def test_other_names_reach_the_upstream_and_forged_ones_do_not(server: IntrospectionServer) -> None:
    headers = {"names": {"subject": "X-User", "username": "X-Login"}}
    async with EchoUpstream() as upstream, service(server, **behind(upstream.url, identityHeaders=headers)) as proxy:
        forged = [("x_user", "root"), ("X-LOGIN", "root"), ("X-Auth-Subject", "root")]
        await ask(proxy.port, "/x", token=server.issue(sub="alice", username="Älice"), headers=forged)
    seen = upstream.seen[0]

    assert seen.values("x-user") == ["alice"]
    assert seen.values("x-login") == ["%C3%84lice"]
    assert "root" not in repr(seen)


@pytest.fixture
def ours() -> Authority:
    return Authority("ours")


def https(url: str, file: Path | None, **tls: str) -> dict[str, Any]:
    return behind(url, tls={**({"caFile": str(file)} if file else {}), **tls})


async def test_an_https_upstream_is_believed_when_its_certificate_comes_from_the_authority_named(
    server: IntrospectionServer, ours: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "ca.crt"
    file.write_text(ours.pem)
    async with EchoUpstream(tls=ours.server()) as upstream, service(server, **https(upstream.url, file)) as proxy:
        answer = await ask(proxy.port, "/x", token=server.issue())

    assert (answer.status, answer.body) == (200, b"echo")


@pytest.mark.parametrize("trusted", [False, True])
async def test_an_https_upstream_of_another_authority_or_name_gets_nothing(
    server: IntrospectionServer, ours: Authority, tmp_path: Path, trusted: bool
) -> None:
    file = tmp_path / "ca.crt"
    file.write_text((ours if trusted else Authority("theirs")).pem)
    tls = ours.server(host="orders.example" if trusted else "127.0.0.1")
    async with EchoUpstream(tls=tls) as upstream, service(server, **https(upstream.url, file)) as proxy:
        answer = await ask(proxy.port, "/x", token=server.issue())

    assert answer.status == 502
    assert upstream.seen == []


async def test_an_https_upstream_may_bear_another_name_than_its_url(
    server: IntrospectionServer, ours: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "ca.crt"
    file.write_text(ours.pem)
    async with EchoUpstream(tls=ours.server(host="orders.example")) as upstream:
        changes = https(upstream.url, file, serverName="orders.example")
        async with service(server, **changes) as proxy:
            answer = await ask(proxy.port, "/x", token=server.issue())

    assert answer.status == 200
    assert upstream.seen[0].values("host") == [f"127.0.0.1:{upstream.port}"]


async def test_an_authority_that_changes_holds_from_the_next_connection_on(
    server: IntrospectionServer, ours: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "ca.crt"
    file.write_text(Authority("former").pem)
    async with EchoUpstream(tls=ours.server()) as upstream, service(server, **https(upstream.url, file)) as proxy:
        before = await ask(proxy.port, "/x", token=server.issue())
        file.write_text(ours.pem)
        after = await ask(proxy.port, "/x", token=server.issue())

    assert (before.status, after.status) == (502, 200)


async def test_an_authority_that_cannot_be_read_ends_the_start(server: IntrospectionServer, tmp_path: Path) -> None:
    with pytest.raises(TrustError, match=r"ca\.crt: cannot be read"):
        async with service(server, **https("https://127.0.0.1:1", tmp_path / "ca.crt")):
            pass
