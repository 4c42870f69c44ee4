"""What the environment says, checked before anything else starts. No Django here.

Every variable starts with `AUTHORIZATION_SERVER_`. `load` names every fault at once, so that a wrong manifest is
corrected in one round.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

PREFIX: Final = "AUTHORIZATION_SERVER_"
REGISTRATION_SCOPE: Final = "oauth2_provider:registration"
"""What the toolkit stamps on registration access tokens. A client that could ask for it could manage clients."""

DEFAULT_SCOPES: Final = "read write orders:read orders:write admin"
LONGEST_TOKEN_TTL: Final = 86_400  # seconds; tokens here end by revocation or soon, never after days
SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 section 3.3
VISIBLE: Final = re.compile(r"[\x21-\x7e]+")


class ConfigurationError(Exception):
    """The environment is unusable. The message is one line and lists every fault."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__("the authorization server cannot start: " + "; ".join(faults))


@dataclass(frozen=True)
class PostgreSQL:
    """Where the database is that several replicas share. `repr` shows no secret."""

    host: str
    port: int
    name: str
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Configuration:
    """A usable environment. `repr` shows no secret."""

    issuer: str  # scheme and authority only, no trailing slash
    initial_access_token: str = field(repr=False)
    secret_key: str | None = field(repr=False)  # None, with SQLite only: kept in the data folder
    database: Path | PostgreSQL  # the data folder, for SQLite in it
    scopes: tuple[str, ...]
    token_ttl: int  # seconds
    allowed_hosts: tuple[str, ...]
    bind: str  # host:port


def load(environ: Mapping[str, str]) -> Configuration:
    """Read the environment. Raises ConfigurationError naming every fault; touches no file but `_FILE` ones."""
    faults: list[str] = []
    issuer = environ.get(f"{PREFIX}ISSUER", "")
    if not issuer:
        faults.append(f"{PREFIX}ISSUER is not set (the URL clients use, e.g. http://authorization-server.example)")
    elif not _is_issuer(issuer):
        faults.append(f"{PREFIX}ISSUER must be http(s)://host[:port] without path, query or trailing slash: {issuer!r}")

    initial_access_token = _secret(environ, "INITIAL_ACCESS_TOKEN", faults)
    if initial_access_token is None:
        faults.append(f"{PREFIX}INITIAL_ACCESS_TOKEN or {PREFIX}INITIAL_ACCESS_TOKEN_FILE is not set")
    elif initial_access_token and not VISIBLE.fullmatch(initial_access_token):
        faults.append(f"{PREFIX}INITIAL_ACCESS_TOKEN must be visible ASCII characters without blanks")
    secret_key = _secret(environ, "SECRET_KEY", faults)

    database = _postgresql(environ, faults) if f"{PREFIX}DATABASE_HOST" in environ else _data_folder(environ, faults)
    if isinstance(database, PostgreSQL) and secret_key is None:
        faults.append(
            f"{PREFIX}SECRET_KEY or {PREFIX}SECRET_KEY_FILE is not set (with {PREFIX}DATABASE_HOST it must be given:"
            " replicas share it)"
        )

    scopes = tuple(dict.fromkeys(environ.get(f"{PREFIX}SCOPES", DEFAULT_SCOPES).replace(",", " ").split()))
    unusable = [scope for scope in scopes if not SCOPE_TOKEN.fullmatch(scope) or scope == REGISTRATION_SCOPE]
    if unusable or not scopes:
        faults.append(f"{PREFIX}SCOPES must be scope names separated by blanks, not {' '.join(unusable) or 'empty'!r}")

    ttl_text = environ.get(f"{PREFIX}TOKEN_TTL", "300")
    token_ttl = int(ttl_text) if re.fullmatch(r"[0-9]{1,6}", ttl_text) else 0
    if not 1 <= token_ttl <= LONGEST_TOKEN_TTL:
        faults.append(f"{PREFIX}TOKEN_TTL must be whole seconds, 1 to {LONGEST_TOKEN_TTL}: {ttl_text!r}")

    bind = environ.get(f"{PREFIX}BIND", "0.0.0.0:8000")
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^\s:/]+):[0-9]{1,5}", bind):
        faults.append(f"{PREFIX}BIND must be address:port: {bind!r}")

    if faults:
        raise ConfigurationError(faults)
    return Configuration(
        issuer=issuer,
        initial_access_token=initial_access_token or "",
        secret_key=secret_key,
        database=database,
        scopes=scopes,
        token_ttl=token_ttl,
        allowed_hosts=tuple(environ.get(f"{PREFIX}ALLOWED_HOSTS", "*").replace(",", " ").split()),
        bind=bind,
    )


def secret_key(configuration: Configuration) -> str:
    """The configured key, or the one in the data folder, made at first start with mode 0600.

    Safe when two processes start at once, and when one dies half-way: a complete file appears or none.
    """
    if configuration.secret_key is not None:
        return configuration.secret_key
    assert isinstance(configuration.database, Path)  # noqa: S101 (what `load` promises)
    path = configuration.database / "secret_key"
    if not path.exists():
        draft = path.with_name(f".secret_key.{os.getpid()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(64))
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            pass  # another process was first: its key counts
        finally:
            draft.unlink()
    return path.read_text()


def _data_folder(environ: Mapping[str, str], faults: list[str]) -> Path:
    folder = Path(environ.get(f"{PREFIX}DATA_DIR", "/data"))
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        faults.append(f"{PREFIX}DATA_DIR is not a folder that can be written: {str(folder)!r} (mount a volume there)")
    astray = sorted(name for name in environ if name.startswith(f"{PREFIX}DATABASE_"))
    if astray:  # clients in a file that nobody expects would be lost with the pod
        faults.append(f"{PREFIX}DATABASE_HOST is not set, but {' '.join(astray)}: set it, or remove them for SQLite")
    return folder


def _postgresql(environ: Mapping[str, str], faults: list[str]) -> PostgreSQL:
    host = environ[f"{PREFIX}DATABASE_HOST"]
    if not VISIBLE.fullmatch(host) or set(host) & set("/,"):
        faults.append(f"{PREFIX}DATABASE_HOST must be one host name or address: {host!r}")
    port = environ.get(f"{PREFIX}DATABASE_PORT", "5432")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65_535:
        faults.append(f"{PREFIX}DATABASE_PORT must be a port, 1 to 65535: {port!r}")
    name, user = (environ.get(f"{PREFIX}DATABASE_{what}", "authorization_server") for what in ("NAME", "USER"))
    for variable, value in (("DATABASE_NAME", name), ("DATABASE_USER", user)):
        if not VISIBLE.fullmatch(value):
            faults.append(f"{PREFIX}{variable} must be visible ASCII characters without blanks: {value!r}")
    password = _secret(environ, "DATABASE_PASSWORD", faults)
    if password is None:
        faults.append(f"{PREFIX}DATABASE_PASSWORD or {PREFIX}DATABASE_PASSWORD_FILE is not set")
    return PostgreSQL(host, int(port) if port.isdigit() else 0, name, user, password or "")


def _is_issuer(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    rebuilt = f"{parts.scheme}://{parts.hostname or ''}" + (f":{port}" if port is not None else "")
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and rebuilt == url


def _secret(environ: Mapping[str, str], name: str, faults: list[str]) -> str | None:
    """The secret in NAME or in the file that NAME_FILE names; "" after noting a fault; None where neither is set."""
    value, path = environ.get(PREFIX + name), environ.get(f"{PREFIX}{name}_FILE")
    if value is not None and path is not None:
        faults.append(f"{PREFIX}{name} and {PREFIX}{name}_FILE are both set: keep one")
        return ""
    if path is not None:
        try:
            value = Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            faults.append(f"{PREFIX}{name}_FILE cannot be read: {path!r} ({type(error).__name__})")
            return ""
    if value == "":
        faults.append(f"{PREFIX}{name} is empty")
    return value
