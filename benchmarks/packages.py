"""What a run needs besides this repository: Debian packages, a virtual environment of its own, and their versions."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
LOCK: Final = ROOT / "requirements" / "benchmarks.txt"
POLICY_RC: Final = Path("/usr/sbin/policy-rc.d")

PYTHON: Final = Path("/usr/bin/python3")
"""Debian's, as in the images; one that somebody built by hand is often built without profile-guided optimisation."""


class MissingError(Exception):
    """Something is missing that this program cannot get by itself; the text has the remedy."""


@dataclass(frozen=True, slots=True)
class Need:
    """A program on PATH, or a file (a pattern from /), and the Debian package that has it."""

    what: str
    package: str

    def present(self) -> bool:
        if self.what.startswith("/"):
            return any(Path("/").glob(self.what.removeprefix("/")))
        return shutil.which(self.what, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


LUA_CJSON: Final = "/usr/lib/*/lua/5.1/cjson.so"
NEEDS: Final = (
    Need(str(PYTHON), "python3"),
    Need("/usr/lib/python3.*/ensurepip/__init__.py", "python3-venv"),
    Need("setpriv", "util-linux"),
    Need("taskset", "util-linux"),
    Need("wrk", "wrk"),
    Need("nginx", "nginx"),
    Need("/usr/lib/nginx/modules/ngx_http_lua_module.so", "libnginx-mod-http-lua"),
    Need(LUA_CJSON, "lua-cjson"),
    Need("apache2", "apache2"),
    Need("/usr/lib/apache2/modules/mod_oauth2.so", "libapache2-mod-oauth2"),
    Need("node", "nodejs"),
)


def install_packages() -> None:
    """Install the Debian packages that are missing, and start none of their services.

    Raises:
        MissingError: some are missing and cannot be installed here.
    """
    missing = sorted({need.package for need in NEEDS if not need.present()})
    if not missing:
        return
    remedy = f"apt-get install --no-install-recommends {' '.join(missing)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingError(f"not installed: {', '.join(missing)}; remedy: as root, {remedy}")
    print(f"benchmark: {remedy}", flush=True)
    ours = not POLICY_RC.exists()
    if ours:  # Debian starts what it installs unless this file forbids it, and port 80 is not ours to take
        POLICY_RC.write_text("#!/bin/sh\nexit 101\n", "ascii")
        POLICY_RC.chmod(0o755)
    try:
        _run(["apt-get", "update", "-qq"])
        _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing])
    finally:
        if ours:
            POLICY_RC.unlink()
    still = [need.package for need in NEEDS if not need.present()]
    if still:
        raise MissingError(f"still not there after {remedy}: {', '.join(still)}; remedy: look why, by hand")


def _run(command: list[str]) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    ended = subprocess.run(
        command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=600, check=False
    )
    if ended.returncode != 0:
        raise MissingError(f"{' '.join(command)} failed:\n{(ended.stdout + ended.stderr).strip()[-2000:]}")


def venv() -> Path:
    """A virtual environment of Debian's Python with this project and the locked peers; made anew when these changed.

    Raises:
        MissingError: it cannot be made.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    lock = LOCK.read_bytes()
    told = (python_version(), str(ROOT), (ROOT / "pyproject.toml").read_text("utf-8"))
    wanted = hashlib.sha256(lock + "".join(told).encode()).hexdigest()[:16]
    venv = cache / "protectedservice" / f"benchmarks-{wanted}"
    stamp = venv / "complete"
    if not stamp.exists():
        print(f"benchmark: installing {LOCK.relative_to(ROOT)}", flush=True)
        _run([str(PYTHON), "-m", "venv", "--clear", str(venv)])
        pip = [str(venv / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--require-hashes", "-r", str(LOCK)])
        _run([*pip, "--no-deps", "-e", str(ROOT)])
        stamp.touch()
    return venv


def server_program(venv: Path) -> Path:
    """The program under test, as a user starts it."""
    return venv / "bin" / "protectedservice-server"


def python_version() -> str:
    """Of the Python that runs ours and the peers written in it."""
    return _said(str(PYTHON), "-c", "import platform; print(platform.python_version())")


def versions(venv: Path) -> dict[str, str]:
    """Version of each thing that was measured or measured with."""
    found = {
        "protectedservice-server": f"{_said(str(server_program(venv)), '--version')} at {_commit()}",
        "Python": f"{python_version()} (Debian's)",
    }
    debian = ("nginx", "libnginx-mod-http-lua", "apache2", "libapache2-mod-oauth2", "wrk")
    found |= {package: _said("dpkg-query", "-W", "-f", "${Version}", package) for package in debian}
    found["node"] = _said("node", "--version")
    listed = _said(str(venv / "bin" / "pip"), "list", "--format", "freeze", "--disable-pip-version-check")
    names = ("granian", "uvicorn", "uvloop", "httptools")
    found |= {name: version for name, _, version in (line.partition("==") for line in listed.split()) if name in names}
    return found


def _commit() -> str:
    commit = _said("git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD")
    return f"{commit} with uncommitted changes" if _changed() else commit


def _changed() -> bool:
    status = _said("git", "-C", str(ROOT), "status", "--porcelain", "--", "resource_server", "requirements")
    return status not in ("", "unknown")


def _said(*command: str) -> str:
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return ended.stdout.strip() if ended.returncode == 0 else "unknown"
