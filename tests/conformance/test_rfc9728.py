"""RFC 9728, Protected Resource Metadata: there where the policy names the resource, and else no word of it."""

from __future__ import annotations

import pytest

from .conversation import ask, head
from .fronts import REMEMBERING, Front
from .upstreams import fresh_target

WELL_KNOWN = "/.well-known/oauth-protected-resource"
RESOURCE = REMEMBERING["resource"]
PATH = f"{WELL_KNOWN}/api"


async def test_without_a_resource_there_are_no_metadata_and_no_word_of_them(front: Front) -> None:
    mark = front.upstream.mark()
    answer = await ask(front.port, head("GET", WELL_KNOWN))
    refused = await ask(front.port, head("GET", "/any"))

    assert answer.status == 404
    assert "resource_metadata" not in (refused.value("www-authenticate") or "")
    assert await front.seen_since(mark) == []


async def test_the_metadata_are_there_for_everybody_below_the_well_known_path(remembering: Front) -> None:
    mark = remembering.upstream.mark()
    answer = await ask(remembering.port, head("GET", PATH))
    document = answer.json()

    assert (answer.status, answer.value("content-type")) == (200, "application/json")
    # Section 3.3: what does not name the very resource that was asked for must not be used.
    assert document["resource"] == RESOURCE
    assert document["authorization_servers"] == ["http://as.test"]
    assert document["bearer_methods_supported"] == ["header"]
    assert set(document["scopes_supported"]) == {"read", "admin"}
    assert await remembering.seen_since(mark) == []


async def test_head_of_the_metadata_has_no_body_and_other_methods_are_refused(remembering: Front) -> None:
    asked = await ask(remembering.port, head("HEAD", PATH), "HEAD")
    posted = await ask(remembering.port, head("POST", PATH, "Content-Length: 0"), "POST")

    assert (asked.status, asked.body) == (200, b"")
    assert posted.status == 405


@pytest.mark.parametrize("token", [None, "unknown-token"])
@pytest.mark.parametrize("host", ["svc", "attacker.example"])
async def test_every_challenge_names_the_metadata_whatever_host_was_asked_for(
    remembering: Front, token: str | None, host: str
) -> None:
    answer = await ask(remembering.port, head("GET", fresh_target("challenged"), token=token, host=host))

    assert answer.status == 401
    # Section 5.1.
    assert f'resource_metadata="https://orders.example{PATH}"' in (answer.value("www-authenticate") or "")


@pytest.mark.parametrize("path", [WELL_KNOWN, f"{WELL_KNOWN}/", f"{PATH}/x", f"{WELL_KNOWN}/other"])
async def test_what_lies_beside_the_metadata_is_404_and_never_forwarded(remembering: Front, path: str) -> None:
    mark = remembering.upstream.mark()
    answer = await ask(remembering.port, head("GET", path, token=remembering.token()))

    assert answer.status == 404
    assert await remembering.seen_since(mark) == []
