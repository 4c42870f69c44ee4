"""A real Node oidc-provider as a local process, fetched once by npm, with its data in memory.

with OidcProviderProcess(tmp_path) as server:
    server.issuer, server.initial_access_token
"""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from .process import Process, cache_folder, free_port, run

VERSION = "9"
PROGRAM = Path(__file__).with_name("oidc_provider.mjs")
FETCH_DEADLINE = 300.0  # seconds


def missing() -> str | None:
    """Why it cannot be run here, or None."""
    absent = [name for name in ("node", "npm") if shutil.which(name) is None]
    return (
        f"oidc-provider is fetched by npm and runs on Node, and there is no `{'`, `'.join(absent)}`" if absent else None
    )


def fetch() -> Path:
    """The folder with its node_modules, fetched now if it never was. Raises RuntimeError with npm's words."""
    folder = cache_folder(f"oidc-provider-{VERSION}")
    if not (folder / "node_modules" / "oidc-provider").exists():
        (folder / "package.json").write_text("{}")
        run(["npm", "install", "--silent", f"oidc-provider@{VERSION}"], folder, deadline=FETCH_DEADLINE)
    return folder


class OidcProviderProcess(Process):
    """See the module. `host` is the address that it listens on, and is called by."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        port = free_port()
        self.issuer, self.initial_access_token = f"http://{host}:{port}", secrets.token_urlsafe(24)
        environment = {
            "HOST": host,
            "PORT": str(port),
            "MODULES": str(fetch()),
            "INITIAL_ACCESS_TOKEN": self.initial_access_token,
        }
        ready = f"{self.issuer}/.well-known/openid-configuration"
        super().__init__(folder, ["node", str(PROGRAM)], ready, deadline=60.0, environment=environment)
