"""Programs of other people as local processes for tests: built or fetched once, started on free ports, always ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

PAUSE = 0.1  # seconds between two looks
END_DEADLINE = 30.0  # seconds to end after SIGTERM
TAIL = 4000  # characters of a log that an error shows


def cache_folder(name: str) -> Path:
    """Where what was built or fetched is kept between runs; made if need be."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "protectedservice" / "authorization_servers" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run(command: Sequence[str], folder: Path, *, deadline: float, environment: Mapping[str, str] | None = None) -> None:
    """Run to the end, within `deadline` seconds. Raises RuntimeError with the end of its output otherwise."""
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=deadline,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"{command[0]} ended with {done.returncode}:\n{done.stdout.decode(errors='replace')[-TAIL:]}"
        )


class Process:
    """One program that answers HTTP. Use with `with`.

    Args:
        ready: a URL that is answered 200 once it is ready.
        deadline: seconds until then.
    """

    def __init__(
        self,
        folder: Path,
        command: Sequence[str],
        ready: str,
        *,
        deadline: float,
        environment: Mapping[str, str] | None = None,
        working_folder: Path | None = None,
    ) -> None:
        self._command, self._ready, self._deadline = command, ready, deadline
        self._environment, self._working_folder = environment, working_folder or folder
        self._log = folder / f"{type(self).__name__}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=self._working_folder,
                env={**os.environ, **(self._environment or {})},
                stdout=log,
                stderr=log,
                start_new_session=True,  # the end must reach its children, and nobody else
            )
        until = time.monotonic() + self._deadline
        while not self._is_ready():
            if time.monotonic() > until or self._process.poll() is not None:
                self.stop()
                raise RuntimeError(f"{self._command[0]} did not get ready:\n{self.log_text()[-TAIL:]}")
            time.sleep(PAUSE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """SIGTERM to the whole session, and after a while SIGKILL. Does nothing when it does not run."""
        if self._process is None:
            return
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, sign)
            try:
                self._process.wait(END_DEADLINE)
                break
            except subprocess.TimeoutExpired:
                continue
        self._process = None

    def log_text(self) -> str:
        """Everything the program has written."""
        return self._log.read_text(errors="replace")

    def _is_ready(self) -> bool:
        try:
            return httpx.get(self._ready, timeout=5).status_code == 200
        except httpx.TransportError:
            return False
