"""The policy: what a request must bring, where it then goes, and who says whether a token is good. Pure.

`policy_file` reads it from a file, and says there what each field means.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from .request_target import RefusedTarget

CHECK_PATH: Final = "/.well-known/protectedservice/check"
DEMO_PROTECTED_PATH: Final = "/protected"


class Access(StrEnum):
    """What a rule says where it asks for no token."""

    PUBLIC = "Public"
    """Everybody may, and the token of whoever sends one is not looked at."""
    DENY = "Deny"
    """Nobody may, whatever token is sent."""


class ScopeMatch(StrEnum):
    """Whether a token needs all the scopes or one of them."""

    ALL = "All"
    ANY = "Any"


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a token must carry to be let in."""

    scopes: tuple[str, ...]
    match: ScopeMatch = ScopeMatch.ALL
    audience: str | None = None
    resource_metadata: str | None = None
    """Where a challenge says that more is to be learnt (RFC 9728 section 5.1); None: it says nothing of it."""


Need = Requirement | Access


@dataclass(frozen=True, slots=True)
class Rule:
    """What some requests need."""

    paths: tuple[str, ...]
    """Each the very path, or `/p/*` for `/p` and everything below it; `/*` is everything."""
    need: Need
    methods: frozenset[str] | None = None
    """None: all of them. GET stands for HEAD too."""

    def methods_meant(self) -> frozenset[str] | None:
        """The methods, with HEAD where GET is."""
        return self.methods | {"HEAD"} if self.methods is not None and "GET" in self.methods else self.methods


@dataclass(frozen=True, slots=True)
class _Entry:
    position: int
    methods: frozenset[str] | None
    need: Need


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules in their order; the first that fits a request decides.

    Looked up for every request, so the order is not walked: exact paths and prefixes are found in two dicts, the
    prefixes by the path's own ancestors, and of what is found the foremost counts. That costs a few look-ups for 64
    rules as for one, and no more for a path of a thousand segments than for the longest prefix.
    """

    rules: tuple[Rule, ...] = ()
    _exact: Mapping[str, tuple[_Entry, ...]] = field(init=False, repr=False, compare=False)
    _below: Mapping[str, tuple[_Entry, ...]] = field(init=False, repr=False, compare=False)
    _deepest: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        exact: dict[str, tuple[_Entry, ...]] = {}
        below: dict[str, tuple[_Entry, ...]] = {}
        for position, rule in enumerate(self.rules):
            entry = _Entry(position, rule.methods_meant(), rule.need)
            for path in rule.paths:
                table, key = (below, path[:-2]) if path.endswith("/*") else (exact, path)
                table[key] = (*table.get(key, ()), entry)
        object.__setattr__(self, "_exact", exact)
        object.__setattr__(self, "_below", below)
        object.__setattr__(self, "_deepest", max((key.count("/") for key in below), default=-1))

    def need(self, method: str, path: str) -> Need | None:
        """What the first rule that fits asks for; None: no rule fits.

        Raises:
            RefusedTarget: servers differ in what such a path means, so that no rule could be relied on.
        """
        if not self.rules:
            return None
        if "//" in path:
            raise RefusedTarget("the path holds an empty segment, and this service has rules for paths")
        if ";" in path:
            raise RefusedTarget("the path holds a semicolon, and this service has rules for paths")
        best = _first(self._exact.get(path, ()), method, None)
        end = 0
        for _ in range(self._deepest + 1):
            best = _first(self._below.get(path[:end], ()), method, best)
            if end == len(path):
                break
            end = path.find("/", end + 1)
            if end < 0:
                end = len(path)
        return best.need if best is not None else None


def _first(entries: Iterable[_Entry], method: str, best: _Entry | None) -> _Entry | None:
    """The foremost of `best` and those `entries`, which are in order, that fit the method."""
    for entry in entries:
        if best is not None and best.position < entry.position:
            return best
        if entry.methods is None or method in entry.methods:
            return entry
    return best


class Claim(StrEnum):
    """What the upstream can be told about the caller. The values are the policy's words."""

    CLIENT_ID = "clientId"
    SUBJECT = "subject"
    SCOPE = "scope"
    USERNAME = "username"
    ISSUER = "issuer"


IDENTITY_HEADERS: Final[Mapping[Claim, str]] = MappingProxyType(
    {Claim.CLIENT_ID: "X-Auth-Client-Id", Claim.SUBJECT: "X-Auth-Subject", Claim.SCOPE: "X-Auth-Scope"}
)
"""The headers that tell the claims, unless a policy names others. The claims that are not here are not told then."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where admitted requests go."""

    url: str
    """Scheme and authority, without a path: `http://orders:8080`."""
    timeout: float = 30.0
    """Seconds to connect, and the longest silence while an answer is awaited."""
    allow_loopback: bool = False
    forward_token: bool = False
    """Whether the token that was found good goes on to the upstream."""
    tell_identity: bool = True
    """Whether the upstream is told who calls. Callers' own headers of the names are taken off in any case."""
    identity_headers: Mapping[Claim, str] = field(default_factory=lambda: IDENTITY_HEADERS)
    ca_file: str | None = None
    """Certificates in PEM that an https upstream's must come from; None: those of the system."""
    server_name: str | None = None
    """The name that an https upstream's certificate must bear, and that it is asked by (SNI); None: the URL's."""


@dataclass(frozen=True, slots=True)
class Validation:
    """How fresh an answer must be, and how long it may take."""

    max_revocation_delay: float = 5.0
    timeout: float = 2.0
    retries: int = 1
    serve_stale: float = 0.0
    """Seconds that a known-good answer may be used beyond `max_revocation_delay` where nobody can be asked."""
    webhook_secret_file: str | None = None
    """What whoever tells of revoked tokens must send (revocation_webhook.py); None: nobody may."""


class ClientAuthentication(StrEnum):
    """How this server says at the introspection endpoint who it is (RFC 7591 section 2, token_endpoint_auth_method)."""

    BASIC = "client_secret_basic"
    POST = "client_secret_post"
    NONE = "none"
    """Not at all: the endpoint answers anybody, and only the network keeps strangers from it."""


@dataclass(frozen=True, slots=True)
class AuthorizationServer:
    """Who answers for tokens."""

    introspection_endpoint: str
    issuer: str | None = None
    client_authentication: ClientAuthentication = ClientAuthentication.BASIC
    ca_file: str | None = None
    """Certificates in PEM; None: those of the system."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One checked policy file."""

    requirement: Requirement
    authorization_server: AuthorizationServer
    validation: Validation = Validation()
    upstream: Upstream | None = None
    demo: bool = False

    rules: Rules = Rules()
    resource: str | None = None
    """This service's identifier as a protected resource (RFC 9728): an https URL. None: no metadata is told."""

    def requirement_for(self, method: str, path: str) -> Need:
        """What a request must bring. `path` is what `request_target.matched_path` gives.

        No rule opens the path of the operator's proof: it shows that `requirement` holds. Where no rule fits, only
        demonstration routes are open: in front of an upstream nothing is public unless a rule says so.

        Raises:
            RefusedTarget: there are rules, and servers differ in what such a path means.
        """
        if path == CHECK_PATH:
            return self.requirement
        found = self.rules.need(method, path)
        if found is not None:
            return found
        if self.demo and path != DEMO_PROTECTED_PATH:
            return Access.PUBLIC
        return self.requirement

    def scopes(self) -> tuple[str, ...]:
        """Every scope that some request needs, each once, those of `requirement` first."""
        needs = (self.requirement, *(rule.need for rule in self.rules.rules))
        return tuple(dict.fromkeys(scope for need in needs if isinstance(need, Requirement) for scope in need.scopes))


def refused_host(host: str, *, allow_loopback: bool) -> str | None:
    """Why a host must not be an upstream; None: it may be, and its addresses are checked at each connect."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        name = host.rstrip(".").lower()
        if (name == "localhost" or name.endswith(".localhost")) and not allow_loopback:
            return _LOOPBACK
        return None
    return refused_address(address, allow_loopback=allow_loopback)


def refused_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address, *, allow_loopback: bool) -> str | None:
    """Why no connection may be made to this address of an upstream; None: it may be made."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_link_local:
        return "is a link-local address: these are never an upstream"
    if address.is_multicast:
        return "is a multicast address: these are never an upstream"
    # The unspecified address reaches this machine too.
    if (address.is_loopback or address.is_unspecified) and not allow_loopback:
        return _LOOPBACK
    return None


_LOOPBACK: Final = "is this machine itself: name another host, or set upstream.allowLoopback: true outside a cluster"
