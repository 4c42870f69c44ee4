"""What was written in the ledger before an upgrade is read after it, and nobody's client is changed for its sake."""

from __future__ import annotations

import json

import pytest

from protectedservice_operator.registration.driver import ClientMetadata
from protectedservice_operator.registration.ledger import ANNOTATION, Entry, Intent, Record

AUDIENCE = "https://orders.example"
# As version 0.1.0 wrote it, before a client could have several audiences.
OLD = {
    "state": "updating", "owner_kind": "ProtectedService", "owner_namespace": "tenant", "owner_name": "orders",
    "owner_uid": "uid-1", "server": "system/default", "audience": AUDIENCE, "attempt": "a" * 32,
    "attempt_started": 1.0, "tag_attempt": "a" * 8, "client_id": "client-1", "manageable": True,
    "intent": {
        "operation": "update", "client_name": "name", "scopes": ["read"], "audience": AUDIENCE,
        "token_endpoint_auth_method": "client_secret_basic", "tag": "t",
    },
    "uncertain": 0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("metadata", "digest"),
    [
        pytest.param(ClientMetadata("name", ("write", "read")), "2358c4429f58b6a9", id="no audience"),
        pytest.param(ClientMetadata("name", ("read",), (AUDIENCE,), tag="t"), "fd5f1abf0acc0a59", id="one audience"),
        pytest.param(
            ClientMetadata("name", ("read",), (AUDIENCE,), token_endpoint_auth_method="client_secret_post"),
            "86ba9c1ad3642d9c",
            id="another way to authenticate",
        ),
    ],
)
def test_what_was_registered_with_at_most_one_audience_keeps_its_digest(metadata: ClientMetadata, digest: str) -> None:
    assert metadata.digest() == digest


def test_more_audiences_and_more_peers_are_another_digest_whatever_their_order() -> None:
    two = ClientMetadata("name", ("read",), ("urn:a", "urn:b"))
    swapped = ClientMetadata("name", ("read",), ("urn:b", "urn:a"))
    met = ClientMetadata("name", ("read",), ("urn:a", "urn:b"), peers=("one", "two"))
    digests = {two.digest(), ClientMetadata("name", ("read",), ("urn:a",)).digest(), met.digest()}

    assert two.digest() == swapped.digest()
    assert len(digests) == 3


def test_an_old_entry_is_read_with_its_audience_and_repeats_what_it_sent() -> None:
    record = Record.model_validate_json(json.dumps(OLD))

    assert record.audiences == (AUDIENCE,)
    assert record.intent is not None
    assert record.intent.metadata() == ClientMetadata("name", ("read",), (AUDIENCE,), tag="t")


def test_an_entry_with_at_most_one_audience_can_be_read_by_the_operator_of_before() -> None:
    entry = Entry(Record.model_validate_json(json.dumps(OLD)))
    written = json.loads(
        entry.to_secret("system", resource_version=None, labels={})["metadata"]["annotations"][ANNOTATION]
    )

    assert written.items() >= {name: value for name, value in OLD.items() if name != "intent"}.items()
    assert written["intent"].items() >= OLD["intent"].items()  # type: ignore[attr-defined]


@pytest.mark.parametrize("audiences", [(), ("urn:a",), ("urn:a", "urn:b")])
def test_audiences_and_peers_come_back_as_they_were_written(audiences: tuple[str, ...]) -> None:
    metadata = ClientMetadata("name", ("read",), audiences, tag="t", peers=("psvc-1",))
    record = Record.model_validate({**OLD, "intent": None, "audience": audiences}).model_copy(
        update={"intent": Intent.of("register", metadata)}
    )

    read = Entry.from_secret(Entry(record).to_secret("system", resource_version=None, labels={})).record

    assert read == record
    assert read.intent is not None
    assert read.intent.metadata() == metadata
