"""One real server for the whole folder: starting one takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from ..support.authorization_server_process import AuthorizationServerProcess
from .caller import Caller


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthorizationServerProcess]:
    with AuthorizationServerProcess(tmp_path_factory.mktemp("authorization_server")) as process:
        yield process


@pytest.fixture(scope="package")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client


@pytest.fixture
def caller(server: AuthorizationServerProcess, http: httpx.Client) -> Iterator[Caller]:
    """After each test, no secret of it may stand in anything the server has written."""
    caller = Caller(server, http)
    yield caller
    log = server.log_text()

    assert [secret for secret in caller.secrets if secret in log] == []
