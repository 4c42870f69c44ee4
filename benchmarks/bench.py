"""The stage: the stub authorization server with the upstream on core 1, and candidates started on core 0."""

from __future__ import annotations

import http.client
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import answers, candidates
from .candidates import Candidate, Place, Setup, Tools
from .processes import Processes, Running

SERVER_CORE: Final = 0
LOAD_CORE: Final = 1
"""The load generator, the stub and this process itself. Two cores are needed, and two are enough."""

START_LIMIT: Final = 20.0
"""Seconds from a start to the first good answer; beyond it the candidate is given up."""

BODIES: Final[Mapping[str, bytes]] = {"/200b": b"a" * 200, "/100k": bytes(range(256)) * 400}
"""What the upstream has: 200 bytes and 102,400."""


class StartError(Exception):
    """A process did not come to answer; `cause` has its last words."""

    def __init__(self, name: str, cause: str) -> None:
        super().__init__(f"{name}: {cause}")
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Live:
    """A candidate that answers."""

    candidate: Candidate
    setup: Setup
    place: Place
    running: Running
    started_in: float
    """Seconds from its start to the first 200."""

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.place.port}{path}"

    def faults(self, path: str) -> tuple[str, ...]:
        """What it answers wrongly at `path` now."""
        expected = answers.same_bytes(BODIES[path]) if self.setup.proxy else answers.same_json(candidates.ANSWER)
        return answers.faults(
            lambda token: answers.get(self.place.port, path, token),
            expected,
            authenticates=self.candidate.authenticates,
        )


class Bench:
    """Starts and stops; a context manager that leaves nothing behind."""

    def __init__(self, tools: Tools) -> None:
        self.tools = tools
        self._folder = Path(tempfile.mkdtemp(prefix="data-plane-"))
        self._folder.chmod(0o755)
        self._processes = Processes()
        self._count = 0
        self._as_port, self._upstream_port = free_port(), free_port()

    def __enter__(self) -> Bench:
        try:
            self._start_authorization_server()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._processes.__exit__(None, None, None)
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self, candidate: Candidate, setup: Setup, *, path: str = "/protected") -> Live:
        """Start a candidate and wait until it lets a good token in.

        Raises:
            StartError: it ended, or did not answer 200 in time.
        """
        place = self._place()
        launch = candidate.launch(self.tools, place, setup)
        began = time.monotonic()
        running = self._processes.start(
            candidate.name, launch.command, place.folder, core=SERVER_CORE, environment=launch.environment
        )
        try:
            _await(running, lambda: answers.get(place.port, path, answers.GOOD_TOKEN).status == 200)
        except StartError:
            self._processes.stop(running)
            raise
        return Live(candidate, setup, place, running, time.monotonic() - began)

    def stop(self, *lives: Live) -> None:
        """End these candidates."""
        self._processes.stop(*(live.running for live in lives))

    def introspections(self) -> int:
        """How many questions the stub has been asked so far."""
        return int(answers.get(self._as_port, "/introspections", None).body)

    def delay_introspection(self, seconds: float) -> None:
        """Let each answer of the stub take this long from now on."""
        answer = answers.get(self._as_port, f"/delay?seconds={seconds}", None)
        if answer.status != 200:
            raise StartError("authorization server", f"answered {answer.status} to a change of its delay")

    def _start_authorization_server(self) -> None:
        www = self._folder / "www"
        www.mkdir()
        for path, body in BODIES.items():
            (www / path.removeprefix("/")).write_bytes(body)
        place = self._place(self._as_port)
        launch = candidates.authorization_server(self.tools, place, www)
        running = self._processes.start("authorization server", launch.command, place.folder, core=LOAD_CORE)
        _await(running, lambda: answers.get(self._as_port, "/introspections", None).status == 200)

    def _place(self, port: int | None = None) -> Place:
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        return Place(folder, port or free_port(), free_port(), self._as_port, self._upstream_port)


def _await(running: Running, answered: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_LIMIT
    seen = "did not answer"
    while time.monotonic() < deadline:
        if running.ended():
            raise StartError(running.name, f"ended at once: {running.last_words()}")
        try:
            if answered():
                return
            seen = "did not answer 200"
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.002)
    raise StartError(running.name, f"{seen} within {START_LIMIT:.0f} s: {running.last_words()}")


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])
