"""A real Ory Hydra as a local process, built once from its Go module, with its data in memory.

with HydraProcess(tmp_path) as hydra:
    hydra.issuer, hydra.admin_url, hydra.introspection_url
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import httpx

from .process import Process, cache_folder, free_port, run

VERSION = "2.3.0"
# Hydra's own replacements count only in its own tree, so a module of ours that requires it repeats them. Its nested
# client module is not in the module's zip: the one published before takes its place.
GO_MOD = f"""module build

go 1.24.0

require github.com/ory/hydra/v2 v{VERSION}

replace github.com/ory/hydra-client-go/v2 => github.com/ory/hydra-client-go/v2 v2.2.1

replace github.com/gobuffalo/pop/v6 => github.com/ory/pop/v6 v6.2.1-0.20241121111754-e5dfc0f3344b
"""
BUILD_DEADLINE = 1500.0  # seconds: 90 on two idle cores


def missing() -> str | None:
    """Why Hydra cannot be built here, or None."""
    if _binary().exists():
        return None
    if shutil.which("go") is None:
        return "Hydra is built from its Go module, and there is no `go`"
    return None if shutil.which("gcc") else "Hydra's SQLite is built with a C compiler, and there is no `gcc`"


def _binary() -> Path:
    return cache_folder(f"hydra-{VERSION}") / "hydra"


def build() -> Path:
    """The program, built now if it never was. Raises RuntimeError with the compiler's words."""
    binary = _binary()
    if not binary.exists():
        folder = binary.parent / "build"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "go.mod").write_text(GO_MOD)
        environment = {**os.environ, "GOFLAGS": "-mod=mod -buildvcs=false", "CGO_ENABLED": "1"}
        tags, package = "sqlite,sqlite_omit_load_extension,json1", "github.com/ory/hydra/v2"
        made = folder / "hydra"
        run(
            ["nice", "go", "build", "-tags", tags, "-o", str(made), package],
            folder,
            deadline=BUILD_DEADLINE,
            environment=environment,
        )
        made.rename(binary)
    return binary


class HydraProcess(Process):
    """See the module."""

    def __init__(self, folder: Path) -> None:
        public, admin = free_port(), free_port()
        self.issuer, self.admin_url = f"http://127.0.0.1:{public}", f"http://127.0.0.1:{admin}"
        self.introspection_url = f"{self.admin_url}/admin/oauth2/introspect"
        settings = folder / "hydra.yml"
        settings.write_text(
            f"""dsn: memory
serve: {{public: {{host: 127.0.0.1, port: {public}}}, admin: {{host: 127.0.0.1, port: {admin}}}}}
urls: {{self: {{issuer: "{self.issuer}"}}}}
secrets: {{system: [system-secret-of-the-test-0123456789]}}
ttl: {{access_token: 5m}}
"""
        )
        command = [str(build()), "serve", "all", "--dev", "--sqa-opt-out", "-c", str(settings)]
        super().__init__(folder, command, f"{self.admin_url}/health/ready", deadline=60.0)

    def client_ids(self) -> list[str]:
        """All clients there are."""
        return [client["client_id"] for client in httpx.get(f"{self.admin_url}/admin/clients", timeout=10).json()]

    def client(self, client_id: str) -> dict[str, object]:
        """One client, as the admin API shows it."""
        found: dict[str, object] = httpx.get(f"{self.admin_url}/admin/clients/{client_id}", timeout=10).json()
        return found
