"""RFC 9728, Protected Resource Metadata: 404 without `resource`; the rest of it comes with that field of the policy."""

from __future__ import annotations

import pytest

from .conversation import ask, head
from .fronts import PROXIES, Front

PATH = "/.well-known/oauth-protected-resource"


@pytest.mark.parametrize("front", PROXIES, indirect=True)
async def test_without_a_resource_there_are_no_metadata_and_no_word_of_them(front: Front) -> None:
    mark = front.upstream.mark()
    answer = await ask(front.port, head("GET", PATH))
    refused = await ask(front.port, head("GET", "/any"))

    assert answer.status in (401, 404)
    assert "resource_metadata" not in (refused.value("www-authenticate") or "")
    assert await front.seen_since(mark) == []
