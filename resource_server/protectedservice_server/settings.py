"""How the process was started: command line first, then environment, then defaults. Collects every fault."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PREFIX: Final = "PROTECTEDSERVICE_"
DEFAULT_PORT: Final = "8080"
DEFAULT_MANAGEMENT_PORT: Final = "9090"
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


class SettingsError(ValueError):
    """The process cannot start as asked; `faults` has one sentence a fault, each starting with the setting."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class Settings:
    """One process's settings; built in `main`, passed down."""

    policy: Path
    """File; see policy_file.py."""
    credentials: Path
    """Folder with the files client_id and client_secret."""
    port: int
    """Of the service. 0: any free one, told in the log."""
    management_port: int
    """Of health, readiness and metrics; never to be exposed."""
    log_level: str
    tls: Path | None = None
    """Folder with the files tls.crt and tls.key for the service port. None: plain HTTP."""


def load(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """The settings.

    Raises:
        SettingsError: with every fault.
        SystemExit: for --help, --version, and what argparse cannot read (status 2).
    """
    given = vars(_parser().parse_args(arguments))
    faults: list[str] = []

    def text(option: str, default: str | None = None) -> str | None:
        value = given[option]
        if value is None:
            value = environment.get(PREFIX + option.upper(), default)
        if not value:
            flag = option.replace("_", "-")
            faults.append(f"--{flag}: is required (or {PREFIX}{option.upper()} in the environment)")
            return None
        return str(value)

    policy, credentials = text("policy"), text("credentials")
    port = _port("port", text("port", DEFAULT_PORT), faults)
    management_port = _port("management-port", text("management_port", DEFAULT_MANAGEMENT_PORT), faults)
    log_level = text("log_level", "info")
    if log_level is not None and log_level not in LOG_LEVELS:
        faults.append(f"--log-level: must be {', '.join(LOG_LEVELS[:-1])} or {LOG_LEVELS[-1]}")
    if port == management_port != 0:
        faults.append(f"--management-port: is {port} like --port: metrics must not be reachable through the service")
    if faults or policy is None or credentials is None or log_level is None:
        raise SettingsError(faults)
    tls = given["tls"] if given["tls"] is not None else environment.get(f"{PREFIX}TLS")
    return Settings(Path(policy), Path(credentials), port, management_port, log_level, Path(tls) if tls else None)


def _port(name: str, value: str | None, faults: list[str]) -> int:
    if value is None:
        return 0
    if not (value.isascii() and value.isdecimal() and len(value) <= 5 and int(value) <= 65535):
        faults.append(f"--{name}: must be a port from 0 to 65535")
        return 0
    return int(value)


class _Version(argparse.Action):
    """Looks the version up when it is asked for: it is in the installed package's files."""

    def __init__(self, option_strings: Sequence[str], dest: str, **keywords: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, **keywords)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version  # noqa: PLC0415 slow to load, and never needed to serve

        sys.stdout.write(f"{version('protectedservice')}\n")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="protectedservice-server",
        description="Lets only holders of a good OAuth 2.0 token through to an upstream.",
        epilog=f"The environment can give each option too: {PREFIX}MANAGEMENT_PORT for --management-port, and so on.",
        allow_abbrev=False,
    )
    parser.add_argument("--policy", metavar="FILE", help="the policy, YAML or JSON")
    parser.add_argument("--credentials", metavar="DIR", help="folder with the files client_id and client_secret")
    parser.add_argument("--port", metavar="N", help=f"port of the service ({DEFAULT_PORT})")
    parser.add_argument("--management-port", metavar="N", help=f"health and metrics ({DEFAULT_MANAGEMENT_PORT})")
    parser.add_argument("--tls", metavar="DIR", help="serve HTTPS with DIR/tls.crt and DIR/tls.key (plain HTTP)")
    parser.add_argument("--log-level", metavar="LEVEL", help=f"{', '.join(LOG_LEVELS)} (info)")
    parser.add_argument("--version", action=_Version, help="tell the version and end")
    return parser
