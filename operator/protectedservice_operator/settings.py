"""What the operator is told by its environment: one frozen object, made in `main` and passed down."""

from __future__ import annotations

import importlib.metadata
import re
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX: Final = "PROTECTEDSERVICE_"
NAMESPACE_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

LogLevel = Literal["debug", "info", "warning", "error"]


def default_server_image() -> str:
    """The resource server of the operator's own version."""
    return f"protectedservice/resource-server:{importlib.metadata.version('protectedservice')}"


class Settings(BaseSettings):
    """Every field is the variable `PROTECTEDSERVICE_<FIELD>`. Times are seconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )

    namespace: str = "protectedservice-system"
    """Where the operator runs and keeps its ledger."""

    default_authorization_server: str | None = None
    """`namespace/name` of the AuthorizationServer of services that name none; without it they must name one."""

    authorization_server_namespaces: Annotated[tuple[str, ...], NoDecode] = ()
    """Where AuthorizationServers count, separated by commas; default: the operator's own namespace."""

    server_image: str = Field(default_factory=default_server_image, min_length=1)
    """Image of the resource server."""

    cluster_id: str | None = Field(default=None, max_length=64)
    """Goes into the tag of every client; default: the uid of namespace kube-system."""

    deletion_deadline: float = Field(default=86_400, ge=0)
    """How long a deleted service waits for its authorization server before it is released."""

    rollout_concurrency: int = Field(default=10, ge=1)
    """How many workloads an operator upgrade rolls at a time."""

    verification: bool = True
    """Whether the live 401/200/401 proof is made."""

    cross_client_check: bool = True
    """Whether it is looked, once at each AuthorizationServer, if one client may introspect another's token: a probe
    client is registered there for that moment."""

    workers: int = Field(default=16, ge=1, le=256)
    """Passes at a time."""

    probe_interval: float = Field(default=30, ge=1)
    """Between two probes of an AuthorizationServer."""

    verification_interval: float = Field(default=21_600, ge=60)
    """Between two proofs of an unchanged service."""

    drift_interval: float = Field(default=3_600, ge=60)
    """Between two looks at a client at its authorization server."""

    orphan_sweep: Literal["report", "delete"] = "report"
    """What the sweep does about clients whose object is gone: report (events, metrics, log) or delete."""

    orphan_sweep_interval: float = Field(default=3_600, ge=60)
    """Between two sweeps."""

    orphan_sweep_limit: int = Field(default=10, ge=1)
    """Deletions a sweep."""

    resync_interval: float = Field(default=1_200, ge=10)
    """Between two comparisons of the caches with full lists."""

    management_port: int = Field(default=8090, ge=0, le=65_535)
    """Health and metrics; 0: any free port."""

    log_level: LogLevel = "info"
    """debug, info, warning or error."""

    @field_validator("log_level", "orphan_sweep", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("authorization_server_namespaces", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("namespace")
    @classmethod
    def _namespace(cls, value: str) -> str:
        return _namespace_name(value)

    @field_validator("authorization_server_namespaces")
    @classmethod
    def _namespaces(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_namespace_name(value) for value in values)

    @field_validator("default_authorization_server")
    @classmethod
    def _reference(cls, value: str | None) -> str | None:
        if value is not None:
            namespace, slash, name = value.partition("/")
            if not slash or not name or "/" in name:
                raise ValueError("give namespace/name")
            _namespace_name(namespace)
        return value

    @property
    def honoured_namespaces(self) -> frozenset[str]:
        """Where AuthorizationServers count: what is named, else the operator's own namespace."""
        return frozenset(self.authorization_server_namespaces or (self.namespace,))

    @property
    def default_server_place(self) -> tuple[str, str] | None:
        """`default_authorization_server` as namespace and name."""
        if self.default_authorization_server is None:
            return None
        namespace, _, name = self.default_authorization_server.partition("/")
        return namespace, name


class BadSettings(Exception):
    """The environment cannot be used; `faults` holds one sentence per fault, without the faulty values."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def load() -> Settings:
    """The settings of this process. Raises BadSettings with every fault at once."""
    try:
        return Settings()
    except ValidationError as error:
        faults = []
        for fault in error.errors(include_url=False, include_input=False):
            field = "_".join(str(part) for part in fault["loc"] if isinstance(part, str)).upper()
            faults.append(f"{PREFIX}{field}: {fault['msg'].removeprefix('Value error, ')}")
        raise BadSettings(faults) from None


def _namespace_name(value: str) -> str:
    if not NAMESPACE_NAME.fullmatch(value):
        raise ValueError("not the name of a namespace (lower-case letters, digits and dashes, at most 63)")
    return value
