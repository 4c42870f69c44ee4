"""`Idempotency-Key` at the real server: a repeat gets the same answer, and the work is done once."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from ..support.authorization_server_process import AuthorizationServerProcess
from .caller import METADATA, Caller
from .conftest import ON_BOTH_DATABASES

pytestmark = ON_BOTH_DATABASES


@pytest.fixture
def key() -> str:
    return str(uuid.uuid4())


def test_repeated_registration_gets_the_same_answer_byte_for_byte(
    server: AuthorizationServerProcess, caller: Caller, key: str
) -> None:
    first = caller.post_registration(key=key)
    count = server.client_count()
    again = caller.post_registration(key=key)

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert "client_secret" in again.json()
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Cache-Control"] == "no-store"
    assert server.client_count() == count


def test_order_of_members_does_not_make_another_request(caller: Caller, key: str) -> None:
    first = caller.post_registration(key=key)
    headers = {"Authorization": f"Bearer {caller.server.initial_access_token}", "Idempotency-Key": key}
    again = caller.request("POST", "/oauth/register", headers=headers, json=dict(reversed(METADATA.items())))

    assert again.content == first.content


def test_same_key_with_another_body_is_refused(server: AuthorizationServerProcess, caller: Caller, key: str) -> None:
    caller.post_registration(key=key, scope="read")
    count = server.client_count()
    response = caller.post_registration(key=key, scope="write")

    assert (response.status_code, response.json()["error"]) == (422, "idempotency_key_reused")
    assert server.client_count() == count


def test_another_key_makes_another_client(server: AuthorizationServerProcess, caller: Caller, key: str) -> None:
    first = caller.post_registration(key=key)
    other = caller.post_registration(key=key + "x")

    assert first.json()["client_id"] != other.json()["client_id"]


def test_repeat_needs_the_initial_access_token_as_well(caller: Caller, key: str) -> None:
    caller.post_registration(key=key)

    assert caller.post_registration(key=key, bearer="wrong").status_code == 401


def test_refusal_is_not_kept_under_the_key(caller: Caller, key: str) -> None:
    refused = caller.post_registration(key=key, scope="launch")
    corrected = caller.post_registration(key=key, scope="read")

    assert (refused.status_code, corrected.status_code) == (400, 201)
    assert "Idempotency-Replayed" not in corrected.headers


def test_refused_update_is_not_kept_under_the_key(server: AuthorizationServerProcess, caller: Caller, key: str) -> None:
    client = caller.register()
    answers = [caller.manage("PUT", client, key=key, bearer="wrong") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [401, 401]
    assert server.query("SELECT count(*) FROM stored_answer WHERE key = ?", key) == [(0,)]


@pytest.mark.parametrize("unusable", ["", "k" * 256, "tab\there", "ключ"])
def test_unusable_key_is_refused_and_makes_no_client(
    server: AuthorizationServerProcess, caller: Caller, unusable: str
) -> None:
    before = server.client_count()
    headers = {
        "Authorization": f"Bearer {server.initial_access_token}".encode(),
        "Idempotency-Key": unusable.encode(),
    }
    response = caller.request("POST", "/oauth/register", headers=headers, json=METADATA)

    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")
    assert server.client_count() == before


def test_eight_requests_at_once_with_one_key_make_one_client(
    server: AuthorizationServerProcess, caller: Caller, key: str
) -> None:
    before = server.client_count()

    def post(_: int) -> httpx.Response:
        headers = {"Authorization": f"Bearer {server.initial_access_token}", "Idempotency-Key": key}
        return httpx.post(f"{server.url}/oauth/register", headers=headers, json=METADATA, timeout=30)

    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(post, range(8)))
    caller.secrets.add(responses[0].json()["client_secret"])

    assert {response.status_code for response in responses} == {201}
    assert len({response.content for response in responses}) == 1
    assert sum("Idempotency-Replayed" not in response.headers for response in responses) == 1
    assert server.client_count() == before + 1


def test_key_is_free_again_after_24_hours(server: AuthorizationServerProcess, caller: Caller, key: str) -> None:
    first = caller.post_registration(key=key)
    now, update = datetime.now(UTC), "UPDATE stored_answer SET stored_at = ? WHERE key = ?"
    server.query(update, now - timedelta(hours=23, minutes=59), key)
    within = caller.post_registration(key=key)
    server.query(update, now - timedelta(hours=24, minutes=1), key)
    after = caller.post_registration(key=key)

    assert within.content == first.content
    assert after.status_code == 201
    assert after.json()["client_id"] != first.json()["client_id"]


def test_stored_answer_is_encrypted(server: AuthorizationServerProcess, caller: Caller, key: str) -> None:
    client = caller.post_registration(key=key).json()
    tables = ("stored_answer", "oauth2_provider_application", "oauth2_provider_accesstoken")
    [sealed] = [bytes(row[0]) for row in server.query("SELECT sealed FROM stored_answer WHERE key = ?", key)]
    rows = [row for table in tables for row in server.query(f"SELECT * FROM {table}")]  # noqa: S608 (constants)
    stored = b"".join(
        [value if isinstance(value, bytes) else str(value).encode() for row in rows for value in row]
        + [path.read_bytes() for path in server.folder.glob("db.sqlite3*")]
    )

    assert len(sealed) > 200
    assert client["client_id"].encode() in stored
    assert client["client_secret"].encode() not in stored
    assert client["registration_access_token"].encode() not in stored


def test_lost_answer_to_an_update_can_be_asked_for_again(
    server: AuthorizationServerProcess, caller: Caller, key: str
) -> None:
    client = caller.register()
    lost = caller.manage("PUT", client, key=key, scope="admin")
    again = caller.manage("PUT", client, key=key, scope="admin")

    assert (lost.status_code, again.status_code) == (200, 200)
    assert again.content == lost.content
    assert again.headers["Idempotency-Replayed"] == "true"
    assert caller.manage("GET", again.json()).status_code == 200


def test_four_updates_at_once_with_one_key_get_one_answer(caller: Caller, key: str) -> None:
    client = caller.register()
    with ThreadPoolExecutor(4) as pool:
        responses = list(pool.map(lambda _: caller.manage("PUT", client, key=key, scope="admin"), range(4)))

    assert {response.status_code for response in responses} == {200}
    assert len({response.content for response in responses}) == 1
    assert caller.manage("GET", responses[0].json()).status_code == 200


def test_four_updates_at_once_with_keys_of_their_own_cannot_all_use_up_one_token(caller: Caller, key: str) -> None:
    client = caller.register()
    with ThreadPoolExecutor(4) as pool:
        responses = list(pool.map(lambda n: caller.manage("PUT", client, key=f"{key}{n}", scope="admin"), range(4)))
    [done] = [response for response in responses if response.status_code == 200]

    assert sorted(response.status_code for response in responses) == [200, 401, 401, 401]
    assert caller.manage("GET", done.json()).status_code == 200


@pytest.mark.parametrize("client_id", ["c" * 400, "%00", "%ED%A0%80"])
def test_update_of_a_client_id_that_no_column_could_hold_is_refused(caller: Caller, key: str, client_id: str) -> None:
    headers = {"Authorization": "Bearer of-nobody", "Idempotency-Key": key}
    for method in ("PUT", "DELETE", "GET"):
        response = caller.request(method, f"/oauth/register/{client_id}", headers=headers)

        assert response.status_code in {400, 401, 404}, (method, response.text)


def test_answer_sealed_with_another_secret_key_is_a_conflict_and_makes_no_second_client(
    server: AuthorizationServerProcess, caller: Caller, key: str
) -> None:
    caller.post_registration(key=key)
    server.query("UPDATE stored_answer SET sealed = ? WHERE key = ?", b"sealed with another key", key)
    count = server.client_count()
    response = caller.post_registration(key=key)

    assert (response.status_code, response.json()["error"]) == (409, "idempotency_key_unreadable")
    assert server.client_count() == count


def test_used_up_token_without_the_key_or_with_another_gets_nothing(caller: Caller, key: str) -> None:
    client = caller.register()
    caller.manage("PUT", client, key=key, scope="admin")

    assert caller.manage("PUT", client, scope="admin").status_code == 401
    assert caller.manage("PUT", client, key=key + "x", scope="admin").status_code == 401


def test_key_of_an_update_without_its_bearer_token_gets_nothing(caller: Caller, key: str) -> None:
    client, other = caller.register(), caller.register()
    caller.manage("PUT", client, key=key, scope="admin")
    response = caller.manage("PUT", client, key=key, scope="admin", bearer=other["registration_access_token"])

    assert response.status_code == 401
    assert "registration_access_token" not in response.json()


def test_repeated_update_with_another_body_is_refused(caller: Caller, key: str) -> None:
    client = caller.register()
    caller.manage("PUT", client, key=key, scope="admin")

    assert caller.manage("PUT", client, key=key, scope="read").status_code == 422


def test_answer_to_an_update_is_dropped_when_the_next_one_proves_its_receipt(caller: Caller, key: str) -> None:
    client = caller.register()
    second = caller.manage("PUT", client, key=key, scope="admin").json()
    caller.manage("PUT", second, key=key + "x", scope="read")

    assert caller.manage("PUT", client, key=key, scope="admin").status_code == 401


def test_deletion_ends_repeats_of_updates_but_a_late_registration_makes_no_second_client(
    server: AuthorizationServerProcess, caller: Caller, key: str
) -> None:
    registered = caller.post_registration(key=key)
    client = registered.json()
    updated = caller.manage("PUT", client, key=key, scope="admin").json()
    caller.manage("DELETE", updated)
    count = server.client_count()

    assert caller.manage("PUT", client, key=key, scope="admin").status_code == 401
    assert caller.post_registration(key=key).content == registered.content
    assert server.client_count() == count
