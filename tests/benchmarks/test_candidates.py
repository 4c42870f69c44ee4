from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import candidates
from benchmarks.candidates import Candidate, Place, Setup, Tools
from protectedservice_server import policy_file

ALL = [
    candidates.OURS,
    candidates.NGINX_RETURN,
    candidates.NGINX_LUA,
    candidates.APACHE,
    candidates.NODE,
    candidates.GRANIAN,
    candidates.ASGI_UVICORN,
    candidates.ASGI_GRANIAN,
]


def tools(folder: Path) -> Tools:
    return Tools(folder / "protectedservice-server", folder / "venv", folder / "lua", folder / "sources")


def place(folder: Path) -> Place:
    return Place(folder, 8101, 8102, 8103, 8104)


def test_a_template_is_filled_and_a_hole_in_it_is_an_error() -> None:
    assert candidates.render("listen @PORT@;", {"PORT": "80"}) == "listen 80;"
    with pytest.raises(KeyError, match="LIFETIME"):
        candidates.render("@LIFETIME@", {"PORT": "80"})


@pytest.mark.parametrize("candidate", ALL, ids=lambda candidate: candidate.name)
@pytest.mark.parametrize("setup", [Setup(), Setup(lifetime=0), Setup(proxy=True)], ids=["hot", "no cache", "proxy"])
def test_each_candidate_writes_whole_files_and_listens_where_it_is_told(
    tmp_path: Path, candidate: Candidate, setup: Setup
) -> None:
    launch = candidate.launch(tools(tmp_path), place(tmp_path), setup)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    everything = [*launch.command, *launch.environment.values(), *(file.read_text("utf-8") for file in files)]
    assert any("8101" in text for text in everything)
    assert not [text for text in everything if candidates._PLACE.search(text)]


@pytest.mark.parametrize("lifetime", [0, 5, 600])
@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("proxy", [False, True])
def test_our_policy_is_one_that_the_server_takes(tmp_path: Path, lifetime: int, embedded: bool, proxy: bool) -> None:
    text = candidates.policy(place(tmp_path), Setup(lifetime, proxy), embedded=embedded)
    found = policy_file.parse(text, embedded=embedded)
    assert found.validation.max_revocation_delay == lifetime
    assert (found.upstream is not None) is (proxy and not embedded)


def test_the_stub_knows_good_tokens_and_ones_without_the_scope(tmp_path: Path) -> None:
    candidates.authorization_server(tools(tmp_path), place(tmp_path), tmp_path / "www")
    text = (tmp_path / "authorization_server.conf").read_text("utf-8")
    assert '"scope": "read write"' in text
    assert '"scope": "write"' in text
    assert f"Basic {candidates.BASIC}" in text
