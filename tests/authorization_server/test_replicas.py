"""Two replicas on one PostgreSQL are one server, whichever is asked; it is ready, fails and heals with its database."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from ..support.authorization_server_process import AuthorizationServerProcess
from ..support.postgresql_process import Database, PostgreSQLProcess
from .caller import METADATA, Caller
from .conftest import secret_key

ISSUER = "http://authorization-server.example"
MakeReplica = Callable[[Database], AuthorizationServerProcess]


@pytest.fixture(scope="module")
def make_replica(tmp_path_factory: pytest.TempPathFactory) -> MakeReplica:
    """Replicas of one configuration, not started yet."""
    environment = {"AUTHORIZATION_SERVER_ISSUER": ISSUER, **secret_key()}
    token = "initial-access-token-of-both"  # fictitious

    def make(database: Database) -> AuthorizationServerProcess:
        return AuthorizationServerProcess(
            tmp_path_factory.mktemp("replica"), initial_access_token=token, environment=environment, database=database
        )

    return make


@pytest.fixture(scope="module")
def replicas(
    postgresql: PostgreSQLProcess, make_replica: MakeReplica
) -> Iterator[tuple[AuthorizationServerProcess, AuthorizationServerProcess]]:
    database = postgresql.create_database()
    one, other = make_replica(database), make_replica(database)
    one.migrate()
    with one, other:
        yield one, other


@pytest.fixture
def callers(
    replicas: tuple[AuthorizationServerProcess, AuthorizationServerProcess], http: httpx.Client
) -> Iterator[tuple[Caller, Caller]]:
    """After each test, no secret of it may stand in anything a replica has written."""
    one, other = (Caller(replica, http) for replica in replicas)
    yield one, other
    logs = "".join(replica.log_text() for replica in replicas)

    assert [secret for secret in one.secrets | other.secrets if secret in logs] == []


def test_eight_registrations_at_once_with_one_key_at_both_replicas_make_one_client(
    callers: tuple[Caller, Caller],
) -> None:
    for _ in range(5):  # each time another interleaving
        key, before = str(uuid.uuid4()), callers[0].server.client_count()
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda number, key=key: callers[number % 2].post_registration(key=key), range(8)))

        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.content for answer in answers}) == 1
        assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
        assert callers[0].server.client_count() == before + 1


def test_of_registrations_at_once_with_one_key_and_two_bodies_one_counts_and_the_others_are_refused(
    callers: tuple[Caller, Caller],
) -> None:
    key, before = str(uuid.uuid4()), callers[0].server.client_count()
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda number: callers[number % 2].post_registration(key=key, scope=("read", "write")[number % 2]),
                range(8),
            )
        )

    assert sorted(answer.status_code for answer in answers) == [201] * 4 + [422] * 4
    assert callers[0].server.client_count() == before + 1


def test_repeat_of_a_refused_registration_at_the_other_replica_makes_the_client(callers: tuple[Caller, Caller]) -> None:
    key = str(uuid.uuid4())
    with ThreadPoolExecutor(8) as pool:
        refused = list(pool.map(lambda n: callers[n % 2].post_registration(key=key, scope="launch"), range(8)))
    made = callers[1].post_registration(key=key)

    assert {answer.status_code for answer in refused} == {400}
    assert made.status_code == 201
    assert "Idempotency-Replayed" not in made.headers


def test_updates_at_once_with_one_key_at_both_replicas_get_one_answer(callers: tuple[Caller, Caller]) -> None:
    key, client = str(uuid.uuid4()), callers[0].register()
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: _manage_at(callers[n % 2], "PUT", client, key=key, scope="admin"), range(6)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert _manage_at(callers[1], "GET", answers[0].json()).status_code == 200


def test_updates_at_once_without_a_key_use_up_the_token_at_one_replica_only(callers: tuple[Caller, Caller]) -> None:
    for _ in range(3):
        client = callers[0].register()
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda n, c=client: _manage_at(callers[n % 2], "PUT", c), range(4)))

        assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]


def test_what_one_replica_did_the_other_knows_at_once(callers: tuple[Caller, Caller]) -> None:
    one, other = callers
    client = one.register()
    token = other.token(client)

    assert one.is_active(client, token)
    other.request("POST", "/oauth/revoke", auth=(client["client_id"], client["client_secret"]), data={"token": token})
    assert not one.is_active(client, token)
    assert _manage_at(other, "DELETE", client).status_code == 204
    assert one.ask_token(client).status_code == 401


def test_a_client_deleted_while_it_asks_for_tokens_is_gone_and_no_request_fails_as_a_fault(
    callers: tuple[Caller, Caller],
) -> None:
    for _ in range(5):
        client = callers[0].register()

        def act(number: int, client: dict[str, Any] = client) -> httpx.Response:
            if number == 3:
                return _manage_at(callers[0], "DELETE", client)
            return callers[number % 2].ask_token(client)

        with ThreadPoolExecutor(7) as pool:
            answers = list(pool.map(act, range(7)))
        deleted = answers.pop(3)
        # invalid_scope: it was known when it authenticated, and had no scope any more when that was asked for.
        refusals = {(401, "invalid_client"), (400, "invalid_scope"), (503, "temporarily_unavailable")}

        assert deleted.status_code == 204
        assert {(answer.status_code, answer.json().get("error")) for answer in answers} <= {(200, None), *refusals}
        assert callers[1].ask_token(client).status_code == 401


def test_a_replica_killed_among_registrations_leaves_none_half_done(
    replicas: tuple[AuthorizationServerProcess, AuthorizationServerProcess], callers: tuple[Caller, Caller]
) -> None:
    one, other = replicas
    keys = [str(uuid.uuid4()) for _ in range(12)]
    before = one.client_count()

    def post(number: int) -> None:
        if number == 4:
            other.kill()
            return
        headers = {"Authorization": f"Bearer {one.initial_access_token}", "Idempotency-Key": keys[number]}
        with contextlib.suppress(httpx.TransportError):  # no answer: the caller repeats
            httpx.post(f"{other.url}/oauth/register", headers=headers, json=METADATA, timeout=30)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(post, range(12)))
    answers = [callers[0].post_registration(key=key) for key in keys]
    other.start()

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["client_id"] for answer in answers}) == 12
    assert one.client_count() == before + 12


def test_a_replica_is_alive_before_the_migration_and_ready_after_it(
    database: Database, make_replica: MakeReplica
) -> None:
    replica = make_replica(database)
    replica.start(path="/healthz")
    try:
        unready = httpx.get(f"{replica.url}/readyz")
        registration = httpx.post(
            f"{replica.url}/oauth/register",
            headers={"Authorization": f"Bearer {replica.initial_access_token}", "Idempotency-Key": "early"},
            json=METADATA,
        )
        with ThreadPoolExecutor(2) as pool:  # a Job that is repeated may overlap with its first pod
            outputs = list(pool.map(lambda _: replica.migrate(), range(2)))
        ready = httpx.get(f"{replica.url}/readyz")
    finally:
        replica.stop()

    assert (unready.status_code, unready.json()["reason"].split(":")[0]) == (503, "migrations not applied")
    assert (registration.status_code, registration.json()["error"]) == (503, "temporarily_unavailable")
    assert sum("No migrations to apply" in output for output in outputs) == 1
    assert ready.status_code == 200


def test_database_that_is_away_is_an_outage_and_its_return_heals_without_a_restart(make_replica: MakeReplica) -> None:
    with PostgreSQLProcess() as postgresql:
        replica = make_replica(postgresql.create_database())
        replica.migrate()
        with replica, httpx.Client(timeout=30) as http:
            caller = Caller(replica, http)
            client = caller.register()
            token = caller.token(client)

            postgresql.stop()
            away = [caller.ask_token(client), caller.post_registration(), caller.request("GET", "/readyz")]
            alive = caller.request("GET", "/healthz")
            postgresql.start()

            assert [answer.status_code for answer in away] == [503, 503, 503]
            assert alive.status_code == 200
            assert caller.request("GET", "/readyz").status_code == 200
            assert caller.is_active(client, token)
            assert postgresql.log_text()
            assert [secret for secret in caller.secrets if secret in postgresql.log_text()] == []


def test_migration_tells_why_it_cannot(tmp_path: Path) -> None:
    replica = AuthorizationServerProcess(tmp_path, environment={"AUTHORIZATION_SERVER_SCOPES": '"'})

    with pytest.raises(RuntimeError, match="AUTHORIZATION_SERVER_SCOPES must be"):
        replica.migrate()


def _manage_at(caller: Caller, method: str, client: dict[str, Any], **request: Any) -> httpx.Response:
    """At this caller's replica; `registration_client_uri` names the Service in front of both."""
    return caller.manage(
        method, client | {"registration_client_uri": f"/oauth/register/{client['client_id']}"}, **request
    )
