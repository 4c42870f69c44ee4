"""The real program, started by its console script, as those start it who have no Kubernetes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SCRIPT = Path(sys.executable).parent / "protectedservice-server"
DEADLINE = 30.0  # seconds, on a machine that is busy with other tests


class ServerProcess:
    """A running server and its log."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        serving = self.log_until("Serving")
        self.port: int = serving["port"]
        self.management_port: int = serving["management_port"]

    def log_until(self, message: str) -> dict[str, Any]:
        """Read the log up to the line with this message. Every line must be JSON. Raises: EOFError: it ended before."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            record: dict[str, Any] = json.loads(line)
            if record["message"].startswith(message):
                return record
        raise EOFError(f"the server ended without saying {message!r}:\n{''.join(self.lines)}")

    def ended(self) -> tuple[int, str]:
        """Wait for the end: exit status and whole log."""
        _, rest = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, "".join(self.lines) + rest


@contextmanager
def started(policy: Path, credentials: Path, environment: Mapping[str, str] | None = None) -> Iterator[ServerProcess]:
    """A server on free ports; killed at the end if it still runs."""
    arguments = ["--policy", str(policy), "--credentials", str(credentials), "--port", "0", "--management-port", "0"]
    process = subprocess.Popen(
        [SCRIPT, *arguments],
        env={"PATH": os.environ["PATH"], **(environment or {})},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            yield ServerProcess(process)
        finally:
            if process.poll() is None:
                process.kill()


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """The script until it ends by itself."""
    return subprocess.run(
        [SCRIPT, *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def credentials_folder(place: Path, client_id: str, client_secret: str) -> Path:
    """A folder as a mounted Secret is one."""
    place.mkdir(exist_ok=True)
    (place / "client_id").write_text(client_id)
    (place / "client_secret").write_text(client_secret)
    return place
