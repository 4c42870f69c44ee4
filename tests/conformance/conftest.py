"""One fixture, `front`, runs a test against every front end. They start once a session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ..support.introspection_server import IntrospectionServer
from . import upstreams
from .background import Background
from .expected import SOMETIMES, reason
from .fronts import FRONTS, REMEMBERING, Front, own_before


@pytest.fixture(scope="session")
def background() -> Iterator[Background]:
    with Background() as running:
        yield running


@pytest.fixture(scope="session")
def server(background: Background) -> Iterator[IntrospectionServer]:
    """The authorization server of all fronts."""
    running = IntrospectionServer()
    background.run(running.__aenter__())
    yield running
    background.run(running.__aexit__(None, None, None))


@pytest.fixture(scope="session", params=list(FRONTS))
def front(
    request: pytest.FixtureRequest,
    background: Background,
    server: IntrospectionServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Front]:
    name: str = request.param
    with FRONTS[name](background, server, tmp_path_factory.mktemp(name)) as running:
        yield running


@pytest.fixture(scope="session", params=list(FRONTS))
def remembering(
    request: pytest.FixtureRequest,
    background: Background,
    server: IntrospectionServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Front]:
    """A front end that uses again for a minute what it learnt; see fronts.REMEMBERING."""
    name: str = request.param
    place = tmp_path_factory.mktemp(f"{name}-remembering")
    with FRONTS[name](background, server, place, **REMEMBERING) as running:
        yield running


@pytest.fixture(scope="session", params=["nginx", "node"])
def before_real(
    request: pytest.FixtureRequest, server: IntrospectionServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    """Our own program in front of a real server of somebody else."""
    kind: str = request.param
    missing = upstreams.nginx_missing() if kind == "nginx" else upstreams.node_missing()
    if missing is not None:
        pytest.skip(missing)
    place: Path = tmp_path_factory.mktemp(kind)
    with ExitStack() as stack:
        upstream = stack.enter_context(upstreams.nginx(place) if kind == "nginx" else upstreams.node(place))
        yield stack.enter_context(own_before(server, upstream, upstream.port, place, f"own before {kind}"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `expected.py` names; `test_expected.py` looks for lines that name nothing."""
    for item in items:
        if item.path.parent != Path(__file__).parent or not isinstance(item, pytest.Function):
            continue
        test, _, rest = item.name.partition("[")
        front, _, case = rest.removesuffix("]").partition("-")
        why = reason(front, test, case)
        if why is not None:
            item.add_marker(pytest.mark.xfail(reason=why, strict=(front, test, case) not in SOMETIMES))
