"""The policy: what a request must bring, where it then goes, and who says whether a token is good. Pure.

The file is written by the operator into a ConfigMap, and by hand by those who run the server on its own; the words are
those of the ProtectedService manifest. Every fault of a file is collected, so that it can be mended in one go; an
unknown key is a fault, because a misspelt rule that is silently ignored is an open door.

The whole file, with what holds where a line is left out::

    scopes: [read]              # required: 1..32 scope-tokens of RFC 6749, each at most 128 characters
    scopeMatch: All             # All: the token needs each of them; Any: one is enough
    audience: https://orders    # none: the token's `aud` does not matter
    demo: true                  # exactly one of demo and upstream
    upstream:
      url: http://orders:8080   # scheme, host and port only: requests keep their own path
      timeout: 30s              # to connect, and the longest silence of the upstream while an answer is awaited
      allowLoopback: false      # true: the upstream may be on this machine (127.0.0.0/8, ::1, localhost)
    validation:
      maxRevocationDelay: 5s    # 0s..1h: a request that arrives later than this after a revocation is refused
      timeout: 2s               # whole budget of one introspection, its retries included
      retries: 1                # 0..5: how often a failure to connect is tried again within it
    authorizationServers:       # exactly one
    - issuer: https://as        # none: an answer's `iss` does not matter
      allowInsecureHTTP: false  # true: plain http endpoints are accepted
      endpoints: {introspection: "https://as/introspect"}  # required; token, revocation, registration, jwks are allowed
      introspection: {clientAuthentication: client_secret_basic}  # or client_secret_post, or none: the endpoint is open
      tls: {caFile: /etc/ca/ca.crt}  # only these certificates (PEM) are trusted; none: the system's. Re-read on change

`upstream.allowLoopback` is for a server that runs beside its upstream on one machine. In a cluster it stays off: there
a loopback address is the resource server itself, and a name that resolves to one is an attempt to reach it from inside.
Link-local addresses (169.254.0.0/16, fe80::/10: a cloud's metadata service) are never an upstream, whatever it says.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import SplitResult, urlsplit

from .faults import Node, PolicyError, load_yaml

CHECK_PATH: Final = "/.well-known/protectedservice/check"
DEMO_PROTECTED_PATH: Final = "/protected"

MOST_SCOPES: Final = 32
LONGEST_SCOPE: Final = 128
LONGEST_REVOCATION_DELAY: Final = 3600.0  # seconds
LONGEST_TIMEOUT: Final = 3600.0  # seconds
LONGEST_INTROSPECTION: Final = 60.0  # seconds; callers have given up by then
MOST_RETRIES: Final = 5

SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 section 3.3
HOST: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?\.?")
URL_CHARACTERS: Final = re.compile(r"[\x21-\x7e]+")  # a URL is printable ASCII without spaces (RFC 3986)


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


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where admitted requests go."""

    url: str
    """Scheme and authority, without a path: `http://orders:8080`."""
    timeout: float = 30.0
    """Seconds to connect, and the longest silence while an answer is awaited."""
    allow_loopback: bool = False


@dataclass(frozen=True, slots=True)
class Validation:
    """How fresh an answer must be, and how long it may take."""

    max_revocation_delay: float = 5.0
    timeout: float = 2.0
    retries: int = 1


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

    def requirement_for(self, method: str, path: str) -> Requirement | None:
        """What a request must bring; None: nothing, the path is open.

        Only demonstration routes are ever open: in front of an upstream nothing is public. The method is taken because
        callers ask by method and path, and need not know that today's policies differ by path only.
        """
        del method
        if self.demo and path not in (DEMO_PROTECTED_PATH, CHECK_PATH):
            return None
        return self.requirement


def parse(text: str, *, embedded: bool = False) -> Policy:
    """The policy in `text` (YAML 1.1 or JSON).

    `embedded` is for the middleware in front of an application of one's own: such a policy has neither `demo` nor
    `upstream`.

    Raises:
        PolicyError: with every fault of the text, each naming its field.
    """
    root = load_yaml(text)
    requirement = Requirement(
        scopes=_scopes(root.take("scopes", required=True)),
        match=ScopeMatch(root.take("scopeMatch").choice([match.value for match in ScopeMatch], ScopeMatch.ALL)),
        audience=_audience(root.take("audience")),
    )
    demo, upstream = False, None
    if not embedded:
        demo, upstream = _backend(root)
    validation = _validation(root.take("validation"))
    server = _authorization_server(root.take("authorizationServers", required=True))
    root.finish()
    faults = root.faults
    if faults:
        raise PolicyError(faults)
    if server is None:  # cannot be: its absence is a fault
        raise PolicyError(["authorizationServers: nothing usable"])
    return Policy(requirement, server, validation, upstream, demo)


def _scopes(node: Node) -> tuple[str, ...]:
    items = node.items(least=1, most=MOST_SCOPES)
    scopes: list[str] = []
    for item in items:
        scope = item.text()
        if scope is None:
            continue
        if not SCOPE_TOKEN.fullmatch(scope) or len(scope) > LONGEST_SCOPE:
            item.fault(
                f"must be a scope-token (RFC 6749): 1..{LONGEST_SCOPE} printable characters, no space, quote, backslash"
            )
        elif scope in scopes:
            item.fault(f"repeats {scope!r}: name each scope once")
        else:
            scopes.append(scope)
    return tuple(scopes)


def _audience(node: Node) -> str | None:
    audience = node.text()
    if audience is not None and (not URL_CHARACTERS.fullmatch(audience) or ":" not in audience):
        node.fault("must be an absolute URI such as https://orders.example")
    return audience


def _backend(root: Node) -> tuple[bool, Upstream | None]:
    demo_node, upstream_node = root.take("demo"), root.take("upstream")
    demo = demo_node.flag(default=False)
    if demo_node.present and not demo:
        demo_node.fault("must be true where it is given: name an upstream instead, or leave it out")
    if demo_node.present == upstream_node.present:
        root.fault("exactly one of demo and upstream must be given", at="upstream")
    return demo, _upstream(upstream_node) if upstream_node.present else None


def _upstream(node: Node) -> Upstream | None:
    url_node, timeout_node = node.take("url", required=True), node.take("timeout")
    allow_loopback = node.take("allowLoopback").flag(default=False)
    timeout = timeout_node.seconds(default=30.0, least=0.001, most=LONGEST_TIMEOUT)
    node.finish()
    url = _url(url_node)
    if url is None:
        return None
    if url.path not in ("", "/") or url.query or url.fragment:
        url_node.fault("must end after the host and port: requests keep their own path")
    host = url.hostname or ""
    refusal = refused_host(host, allow_loopback=allow_loopback)
    if refusal is not None:
        url_node.fault(refusal)
    return Upstream(f"{url.scheme}://{url.netloc}", timeout, allow_loopback)


def _validation(node: Node) -> Validation:
    found = Validation(
        max_revocation_delay=node.take("maxRevocationDelay").seconds(
            default=5.0, least=0.0, most=LONGEST_REVOCATION_DELAY
        ),
        timeout=node.take("timeout").seconds(default=2.0, least=0.001, most=LONGEST_INTROSPECTION),
        retries=node.take("retries").whole(default=1, least=0, most=MOST_RETRIES),
    )
    node.finish()
    return found


def _authorization_server(node: Node) -> AuthorizationServer | None:
    items = node.items(least=1, most=1)
    if not items:
        return None
    item = items[0]
    insecure = item.take("allowInsecureHTTP").flag(default=False)
    issuer_node = item.take("issuer")
    issuer_url = _url(issuer_node, insecure=insecure)
    if issuer_url is not None and (issuer_url.query or issuer_url.fragment):
        issuer_node.fault("must have no query and no fragment (RFC 8414 section 2)")
    endpoints = item.take("endpoints", required=True)
    introspection_node = endpoints.take("introspection", required=endpoints.present)
    _url(introspection_node, insecure=insecure)
    for name in ("token", "revocation", "registration", "jwks"):  # allowed, so that one description serves all readers
        _url(endpoints.take(name), insecure=insecure)
    endpoints.finish()
    introspection = item.take("introspection")
    authentication = introspection.take("clientAuthentication").choice(
        [method.value for method in ClientAuthentication], ClientAuthentication.BASIC
    )
    introspection.finish()
    tls = item.take("tls")
    ca_file = tls.take("caFile", required=tls.present).text()
    tls.finish()
    item.finish()
    return AuthorizationServer(
        introspection_node.text() or "", issuer_node.text(), ClientAuthentication(authentication), ca_file
    )


def _url(node: Node, *, insecure: bool = True) -> SplitResult | None:
    """The http(s) URL at `node`; None where it is absent or faulty (then the fault is noted)."""
    text = node.text()
    if text is None:
        return None
    fault = "must be a URL such as https://host.example:8443"
    if not URL_CHARACTERS.fullmatch(text):
        node.fault(fault)
        return None
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        node.fault(fault)
        return None
    if url.scheme not in ("http", "https") or not _is_host(url.hostname or "") or port == 0 or url.netloc.endswith(":"):
        node.fault(fault)
        return None
    if url.username is not None or url.password is not None:
        node.fault("must hold no user name and no password: credentials are read from their own folder")
        return None
    if url.scheme == "http" and not insecure:
        node.fault("is plain http: use https, or set allowInsecureHTTP: true on this authorization server")
    return url


def _is_host(host: str) -> bool:
    if ":" in host:
        try:
            return ipaddress.ip_address(host).version == 6
        except ValueError:
            return False
    return HOST.fullmatch(host) is not None


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
