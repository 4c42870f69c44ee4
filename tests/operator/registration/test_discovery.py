"""Which endpoints count, and whose fault it is when there are none."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from protectedservice_operator.authorization_server import Endpoints
from protectedservice_operator.errors import AdministratorMustAct, ServerUnavailable
from protectedservice_operator.registration.discovery import discover, well_known
from protectedservice_operator.registration.remote import Remote

from ...support.fake_authorization_server import FakeAuthorizationServer, Operation

ISSUER = "https://authorization-server.test"
EVERYTHING = Endpoints(
    token="https://a.test/t", introspection="https://b.test/i", registration="https://c.test/r", jwks="https://d.test/j"
)


@pytest.fixture
def server() -> FakeAuthorizationServer:
    return FakeAuthorizationServer(issuer=ISSUER)


@pytest.fixture
async def remote(server: FakeAuthorizationServer) -> AsyncIterator[Remote]:
    remote = Remote("AuthorizationServer ns/as", transport=server.transport())
    yield remote
    await remote.aclose()


async def find(
    remote: Remote, issuer: str | None, overrides: Endpoints | None = None, *, allow_insecure_http: bool = False
) -> Endpoints:
    return await discover(remote, issuer, overrides or Endpoints(), allow_insecure_http=allow_insecure_http)


@pytest.mark.parametrize(
    ("issuer", "urls"),
    [
        pytest.param(
            "https://h.test",
            (
                "https://h.test/.well-known/oauth-authorization-server",
                "https://h.test/.well-known/openid-configuration",
            ),
            id="no path",
        ),
        pytest.param(
            "https://h.test:8443/o/realm/",
            (
                "https://h.test:8443/.well-known/oauth-authorization-server/o/realm",
                "https://h.test:8443/o/realm/.well-known/openid-configuration",
            ),
            id="with a path: RFC 8414 puts itself before it, OpenID Connect after it",
        ),
    ],
)
def test_where_metadata_stands(issuer: str, urls: tuple[str, str]) -> None:
    assert well_known(issuer) == urls


async def test_everything_is_taken_from_rfc_8414_metadata(server: FakeAuthorizationServer, remote: Remote) -> None:
    server.metadata["jwks_uri"] = f"{ISSUER}/jwks"

    assert await find(remote, ISSUER) == Endpoints(
        issuer=ISSUER,
        token=f"{ISSUER}/oauth/token",
        introspection=f"{ISSUER}/oauth/introspect",
        revocation=f"{ISSUER}/oauth/revoke",
        registration=f"{ISSUER}/oauth/register",
        jwks=f"{ISSUER}/jwks",
    )
    assert server.count(Operation.METADATA) == 1


async def test_openid_discovery_is_asked_where_there_is_no_rfc_8414(
    server: FakeAuthorizationServer, remote: Remote
) -> None:
    server.metadata_path = "/.well-known/openid-configuration"

    assert (await find(remote, ISSUER)).token == f"{ISSUER}/oauth/token"
    assert server.count(Operation.METADATA) == 2


async def test_a_page_for_people_at_the_first_place_only_means_look_at_the_second(
    server: FakeAuthorizationServer, remote: Remote
) -> None:
    server.metadata_path = "/.well-known/openid-configuration"
    server.fail_on(Operation.METADATA, status=200, body=b"<html>welcome</html>", headers={"content-type": "text/html"})

    assert (await find(remote, ISSUER)).token == f"{ISSUER}/oauth/token"


async def test_overrides_win_one_by_one_and_may_be_elsewhere(server: FakeAuthorizationServer, remote: Remote) -> None:
    found = await find(remote, ISSUER, Endpoints(introspection="https://admin.test/introspect"))

    assert found.introspection == "https://admin.test/introspect"
    assert found.token == f"{ISSUER}/oauth/token"


async def test_without_an_issuer_the_overrides_are_all_and_nobody_is_asked(
    server: FakeAuthorizationServer, remote: Remote
) -> None:
    assert await find(remote, None, EVERYTHING) == EVERYTHING
    assert server.requests == []


async def test_overrides_suffice_where_there_is_no_metadata(server: FakeAuthorizationServer, remote: Remote) -> None:
    server.metadata_path = "/nowhere"
    found = await find(remote, ISSUER, EVERYTHING)

    assert (found.issuer, found.token) == (ISSUER, EVERYTHING.token)


@pytest.mark.parametrize(
    "claimed",
    [
        pytest.param("https://elsewhere.test", id="another issuer"),
        pytest.param(f"{ISSUER}/", id="a slash too many"),
        pytest.param(ISSUER.upper(), id="another case"),
        pytest.param(None, id="no issuer"),
        pytest.param(["https://authorization-server.test"], id="no string"),
    ],
)
async def test_metadata_of_another_issuer_is_refused(
    claimed: object, server: FakeAuthorizationServer, remote: Remote
) -> None:
    server.metadata["issuer"] = claimed
    with pytest.raises(AdministratorMustAct) as caught:
        await find(remote, ISSUER, EVERYTHING)

    assert caught.value.reason == "IssuerMismatch"
    assert "spec.issuer" in caught.value.message


@pytest.mark.parametrize(
    ("member", "value", "because"),
    [
        pytest.param("token_endpoint", None, "has no token_endpoint", id="not there"),
        pytest.param("token_endpoint", 5, "has no token_endpoint", id="no string"),
        pytest.param("token_endpoint", "https://evil.test/token", "https://evil.test, another origin", id="elsewhere"),
        pytest.param(
            "token_endpoint", "https://authorization-server.test:8443/t", ":8443, another origin", id="another port"
        ),
        pytest.param("token_endpoint", "http://authorization-server.test/t", "another origin", id="another scheme"),
        pytest.param("token_endpoint", "/oauth/token", "must be an absolute", id="relative"),
        pytest.param("token_endpoint", "ftp://authorization-server.test/t", "http or https", id="another protocol"),
        pytest.param(
            "token_endpoint", "https://u:pw@authorization-server.test/t", "user name or password", id="a password in it"
        ),
        pytest.param("token_endpoint", f"{ISSUER}/t#x", "no fragment", id="a fragment"),
        pytest.param("token_endpoint", f"{ISSUER}/t\nx", "characters", id="a line end in it"),
        pytest.param("token_endpoint", "https://h:99999/", "no URL", id="a port that is none"),
    ],
)
async def test_a_named_endpoint_that_does_not_count_is_named_and_can_be_overridden(
    member: str, value: object, because: str, server: FakeAuthorizationServer, remote: Remote
) -> None:
    server.metadata[member] = value
    with pytest.raises(AdministratorMustAct) as caught:
        await find(remote, ISSUER)

    assert caught.value.reason == "EndpointMissing"
    assert "spec.endpoints.token must be set" in caught.value.message
    assert because in caught.value.message
    assert "pw" not in caught.value.message

    found = await find(remote, ISSUER, Endpoints(token="https://listed.test/t"))
    assert found.token == "https://listed.test/t"


@pytest.mark.parametrize("member", ["revocation_endpoint", "jwks_uri"])
async def test_an_endpoint_that_is_not_needed_may_be_missing_or_elsewhere(
    member: str, server: FakeAuthorizationServer, remote: Remote
) -> None:
    server.metadata[member] = "https://evil.test/x"
    found = await find(remote, ISSUER)

    assert "https://evil.test/x" not in found.to_status().values()


@pytest.mark.parametrize("missing", ["token", "introspection", "registration"])
async def test_without_an_issuer_each_needed_endpoint_is_asked_for_by_name(missing: str, remote: Remote) -> None:
    given = {name: value for name, value in EVERYTHING.to_status().items() if name != missing}
    with pytest.raises(AdministratorMustAct, match=f"spec.endpoints.{missing} must be set") as caught:
        await find(remote, None, Endpoints(**given))

    assert caught.value.reason == "EndpointMissing"
    assert "no spec.issuer" in caught.value.message


async def test_without_metadata_both_places_are_named(server: FakeAuthorizationServer, remote: Remote) -> None:
    server.metadata_path = "/nowhere"
    with pytest.raises(AdministratorMustAct) as caught:
        await find(remote, ISSUER)

    for url in well_known(ISSUER):
        assert url in caught.value.message


@pytest.mark.parametrize(
    ("issuer", "overrides", "field"),
    [
        pytest.param("http://plain.test", Endpoints(), "spec.issuer", id="issuer"),
        pytest.param(ISSUER, Endpoints(token="http://plain.test/t"), "spec.endpoints.token", id="override"),
    ],
)
async def test_plain_http_is_refused_before_anything_is_sent(
    issuer: str, overrides: Endpoints, field: str, server: FakeAuthorizationServer, remote: Remote
) -> None:
    with pytest.raises(AdministratorMustAct) as caught:
        await find(remote, issuer, overrides)

    assert caught.value.reason == "InsecureEndpoint"
    assert field in caught.value.message
    assert "allowInsecureHTTP" in caught.value.message
    assert server.requests == []


async def test_plain_http_is_used_where_it_is_allowed() -> None:
    server = FakeAuthorizationServer()
    async with server.serve() as issuer:
        remote = Remote("as")
        found = await find(remote, issuer, allow_insecure_http=True)
        await remote.aclose()

    assert found.introspection == f"{issuer}/oauth/introspect"


@pytest.mark.parametrize(
    ("issuer", "overrides", "field"),
    [
        pytest.param("https://u:hunter2@h.test", Endpoints(), "spec.issuer", id="password in the issuer"),
        pytest.param("h.test", Endpoints(), "spec.issuer", id="no scheme"),
        pytest.param("https://h.test?x=1", Endpoints(), "spec.issuer", id="query in the issuer"),
        pytest.param(ISSUER, Endpoints(jwks="https:///x"), "spec.endpoints.jwks", id="no host in an override"),
    ],
)
async def test_a_url_that_cannot_be_used_is_refused_by_field_and_unquoted(
    issuer: str, overrides: Endpoints, field: str, remote: Remote
) -> None:
    with pytest.raises(AdministratorMustAct) as caught:
        await find(remote, issuer, overrides)

    assert caught.value.reason == "InvalidEndpoint"
    assert field in caught.value.message
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(503, b"", id="503"),
        pytest.param(200, b'{"issuer": "https://auth', id="truncated JSON"),
        pytest.param(302, b"", id="redirect"),
    ],
)
async def test_an_outage_is_not_taken_for_missing_metadata(
    status: int, body: bytes, server: FakeAuthorizationServer, remote: Remote
) -> None:
    server.fail_on(Operation.METADATA, status=status, body=body, times=None)
    with pytest.raises(ServerUnavailable):
        await find(remote, ISSUER, EVERYTHING)
