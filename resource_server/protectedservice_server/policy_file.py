"""The policy: what a request must bring, where it then goes, and who says whether a token is good. Pure.

The file is written by the operator into a ConfigMap, and by hand by those who run the server on its own; the words are
those of the ProtectedService manifest. Every fault of a file is collected, so that it can be mended in one go; an
unknown key is a fault, because a misspelt rule that is silently ignored is an open door.

The whole file, with what holds where a line is left out::

    scopes: [read]              # required: 1..32 scope-tokens of RFC 6749, each at most 128 characters
    scopeMatch: All             # All: the token needs each of them; Any: one is enough
    audience: https://orders    # none: the token's `aud` does not matter
    resource: https://orders    # RFC 9728: the URL by which callers know this service; its metadata is served and named
                                # in challenges. Its issuer is that of authorizationServers. None: neither
    rules:                      # at most 64; the first that fits decides, and where none fits, the lines above
    - paths: [/health, /docs/*] # 1..16: the very path, or /p/* for /p and everything below it; case counts, no query
      methods: [GET]            # none: all. GET is HEAD too; OPTIONS only where it is written
      access: Public            # or Deny: nobody. Exactly one of access and scopes
    - paths: [/orders/*]
      scopes: [write]           # instead of the scopes above; audience and the rest hold as ever
      scopeMatch: Any           # All unless given
    demo: true                  # exactly one of demo and upstream
    upstream:
      url: http://orders:8080   # scheme, host and port only: requests keep their own path
      timeout: 30s              # to connect, and the longest silence of the upstream while an answer is awaited
      allowLoopback: false      # true: the upstream may be on this machine (127.0.0.0/8, ::1, localhost)
      forwardToken: false       # true: a token that was found good goes on to the upstream
      identityHeaders:
        enabled: true           # false: the upstream is not told who calls. Callers' own such headers never pass
        names: {clientId: X-Auth-Client-Id, subject: X-Auth-Subject, scope: X-Auth-Scope}  # also: username, issuer
      tls:                      # of an https url
        caFile: /etc/ca/up.crt  # only these certificates (PEM) are trusted; none: the system's. Re-read on change
        serverName: orders      # the name in the upstream's certificate; none: the host of the url
    validation:
      maxRevocationDelay: 5s    # 0s..1h: a request that arrives later than this after a revocation is refused
      timeout: 2s               # whole budget of one introspection, its retries included
      retries: 1                # 0..5: how often a failure to connect is tried again within it
      serveStale: 0s            # 0s..1h: how much longer a good answer is used while the authorization server is down
      revocationWebhook:        # none: nobody may. POST /revoked on the management port drops what is known of a token
        secretFile: /etc/secret # what its caller must send as a bearer token; re-read on change
    authorizationServers:       # exactly one
    - issuer: https://as        # none: an answer's `iss` does not matter
      allowInsecureHTTP: false  # true: plain http endpoints are accepted
      endpoints: {introspection: "https://as/introspect"}  # required; token, revocation, registration, jwks are allowed
      introspection: {clientAuthentication: client_secret_basic}  # or client_secret_post, or none: the endpoint is open
      tls: {caFile: /etc/ca/ca.crt}  # only these certificates (PEM) are trusted; none: the system's. Re-read on change

Where there are rules, a path with an empty segment (`//`) or a semicolon is answered 400: upstreams differ in whether
they take `//admin` and `/admin;x` for `/admin`, and a rule must not be got round in that way.

`upstream.allowLoopback` is for a server that runs beside its upstream on one machine. In a cluster it stays off: there
a loopback address is the resource server itself, and a name that resolves to one is an attempt to reach it from inside.
Link-local addresses (169.254.0.0/16, fe80::/10: a cloud's metadata service) are never an upstream, whatever it says.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final
from urllib.parse import SplitResult, urlsplit

from .faults import Node, PolicyError, load_yaml
from .policy import (
    IDENTITY_HEADERS,
    Access,
    AuthorizationServer,
    Claim,
    ClientAuthentication,
    Need,
    Policy,
    Requirement,
    Rule,
    Rules,
    ScopeMatch,
    Upstream,
    Validation,
    refused_host,
)
from .protected_resource import metadata_url
from .request_target import RefusedTarget, matched_path

MOST_SCOPES: Final = 32
LONGEST_SCOPE: Final = 128
MOST_RULES: Final = 64
MOST_PATHS: Final = 16
LONGEST_PATH: Final = 256
MOST_METHODS: Final = 16
LONGEST_REVOCATION_DELAY: Final = 3600.0  # seconds
LONGEST_STALE: Final = 3600.0  # seconds
LONGEST_TIMEOUT: Final = 3600.0  # seconds
LONGEST_INTROSPECTION: Final = 60.0  # seconds; callers have given up by then
MOST_RETRIES: Final = 5

SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 section 3.3
METHOD: Final = re.compile(r"[A-Z][A-Z-]{0,31}")  # case-sensitive (RFC 9110 section 9.1), and all in use are so
# As `request_target.matched_path` leaves a path, decoded: what that refuses no rule may name.
_SEGMENT: Final = r"[^\x00-\x1f\x7f\\%?#*;/]+"
RULE_PATH: Final = re.compile(rf"/({_SEGMENT}(/{_SEGMENT})*(/|/\*)?|\*)?")
DOT_SEGMENT: Final = re.compile(r"/\.\.?(/|$)")
HOST: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?\.?")
SERVER_NAME: Final = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*"
)
IDENTITY_HEADER: Final = re.compile(r"X-[A-Za-z0-9-]{1,60}")
# Names with a meaning of their own to upstreams, and to this server.
RESERVED_HEADER: Final = re.compile(
    r"X-(Forwarded-.*|Real-IP|HTTP-.*|Method-Override|Original-.*|Rewrite-URL)", re.IGNORECASE
)
URL_CHARACTERS: Final = re.compile(r"[\x21-\x7e]+")  # a URL is printable ASCII without spaces (RFC 3986)


def parse(text: str, *, embedded: bool = False) -> Policy:
    """The policy in `text` (YAML 1.1 or JSON).

    `embedded` is for the middleware in front of an application of one's own: such a policy has neither `demo` nor
    `upstream`, and no `revocationWebhook`, because there is no management port.

    Raises:
        PolicyError: with every fault of the text, each naming its field.
    """
    root = load_yaml(text)
    resource = _resource(root.take("resource"))
    requirement = Requirement(
        scopes=_scopes(root.take("scopes", required=True)),
        match=_scope_match(root.take("scopeMatch")),
        audience=_audience(root.take("audience")),
        resource_metadata=None if resource is None else metadata_url(resource),
    )
    rules = _rules(root.take("rules"), requirement)
    demo, upstream = False, None
    if not embedded:
        demo, upstream = _backend(root)
    validation = _validation(root.take("validation"), embedded=embedded)
    server = _authorization_server(root.take("authorizationServers", required=True))
    root.finish()
    faults = root.faults
    if faults:
        raise PolicyError(faults)
    if server is None:  # cannot be: its absence is a fault
        raise PolicyError(["authorizationServers: nothing usable"])
    return Policy(requirement, server, validation, upstream, demo, rules, resource)


def _scopes(node: Node) -> tuple[str, ...]:
    return tuple(_words(node, MOST_SCOPES, _scope_fault))


def _scope_fault(scope: str) -> str | None:
    if SCOPE_TOKEN.fullmatch(scope) and len(scope) <= LONGEST_SCOPE:
        return None
    return f"must be a scope-token (RFC 6749): 1..{LONGEST_SCOPE} printable characters, no space, quote, backslash"


def _scope_match(node: Node) -> ScopeMatch:
    return ScopeMatch(node.choice([match.value for match in ScopeMatch], ScopeMatch.ALL))


def _rules(node: Node, otherwise: Requirement) -> Rules:
    return Rules(tuple(_rule(item, otherwise) for item in node.items(least=1, most=MOST_RULES)))


def _rule(node: Node, otherwise: Requirement) -> Rule:
    paths = _words(node.take("paths", required=True), MOST_PATHS, _path_fault)
    methods_node = node.take("methods")
    methods = frozenset(_words(methods_node, MOST_METHODS, _method_fault)) if methods_node.present else None
    access_node, scopes_node, match_node = node.take("access"), node.take("scopes"), node.take("scopeMatch")
    node.finish()
    if access_node.present == scopes_node.present:
        node.fault("exactly one of access and scopes must be given", at="access")
    if match_node.present and not scopes_node.present:
        match_node.fault("must be left out where there are no scopes")
    scopes, match = _scopes(scopes_node), _scope_match(match_node)
    need: Need = replace(otherwise, scopes=scopes, match=match)
    if access_node.present:
        need = Access(access_node.choice([access.value for access in Access], Access.DENY))
    return Rule(tuple(paths), need, methods)


def _words(node: Node, most: int, fault_of: Callable[[str], str | None]) -> list[str]:
    """The strings of a list of 1..`most` in which none is twice."""
    words: list[str] = []
    for item in node.items(least=1, most=most):
        word = item.text()
        if word is None:
            continue
        fault = fault_of(word)
        if fault is not None:
            item.fault(fault)
        elif word in words:
            item.fault(f"repeats {word!r}: name it once")
        else:
            words.append(word)
    return words


def _path_fault(path: str) -> str | None:
    if len(path) > LONGEST_PATH or not RULE_PATH.fullmatch(path) or DOT_SEGMENT.search(path):
        return (
            f"must be a path such as /orders, or /orders/* for it and everything below: decoded, at most {LONGEST_PATH}"
            " characters, no query, no empty or dot segment, none of % ; \\ ? #, and * only as the whole last segment"
        )
    return None


def _method_fault(method: str) -> str | None:
    return None if METHOD.fullmatch(method) else "must be a method in capitals, such as GET"


def _audience(node: Node) -> str | None:
    audience = node.text()
    if audience is not None and (not URL_CHARACTERS.fullmatch(audience) or ":" not in audience):
        node.fault("must be an absolute URI such as https://orders.example")
    return audience


def _resource(node: Node) -> str | None:
    url, text = _url(node), node.text() if node.present else None
    if url is None or text is None:
        return None
    if url.scheme != "https" or "?" in text or "#" in text:
        node.fault("must be an https URL without query and fragment (RFC 9728 section 1.2)")
        return None
    try:
        if matched_path((url.path or "/").encode()) != (url.path or "/"):
            raise RefusedTarget("the path is percent-encoded")
    except RefusedTarget as refusal:
        node.fault(f"cannot have its metadata asked for: {refusal}")
        return None
    return text


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
    forward_token = node.take("forwardToken").flag(default=False)
    tell_identity, names = _identity_headers(node.take("identityHeaders"))
    tls_node = node.take("tls")
    ca_file, server_name = _upstream_tls(tls_node)
    node.finish()
    url = _url(url_node)
    if url is None:
        return None
    if url.path not in ("", "/") or url.query or url.fragment:
        url_node.fault("must end after the host and port: requests keep their own path")
    refusal = refused_host(url.hostname or "", allow_loopback=allow_loopback)
    if refusal is not None:
        url_node.fault(refusal)
    if tls_node.present and url.scheme != "https":
        tls_node.fault("must be left out where the url is plain http")
    return Upstream(
        f"{url.scheme}://{url.netloc}",
        timeout,
        allow_loopback,
        forward_token,
        tell_identity,
        names,
        ca_file,
        server_name,
    )


def _identity_headers(node: Node) -> tuple[bool, Mapping[Claim, str]]:
    tell = node.take("enabled").flag(default=True)
    names_node = node.take("names")
    node.finish()
    names = dict(IDENTITY_HEADERS)
    taken: dict[str, Claim] = {}
    for claim in Claim:
        name_node = names_node.take(claim)
        name = name_node.text() or names.get(claim)
        if name is None:
            continue
        if not IDENTITY_HEADER.fullmatch(name) or RESERVED_HEADER.fullmatch(name):
            name_node.fault(
                "must be X- and 1..60 letters, digits and dashes, and not X-Forwarded-..., X-Real-IP, X-HTTP-..."
            )
        elif name.lower() in taken:
            name_node.fault(f"is the header of {taken[name.lower()]} already: names compare without regard to case")
        taken[name.lower()] = claim
        names[claim] = name
    names_node.finish()
    return tell, MappingProxyType(names)


def _upstream_tls(node: Node) -> tuple[str | None, str | None]:
    ca_file = node.take("caFile").text()
    name_node = node.take("serverName")
    server_name = name_node.text()
    if server_name is not None and not SERVER_NAME.fullmatch(server_name):
        name_node.fault("must be a DNS name such as orders.example")
    node.finish()
    return ca_file, server_name


def _validation(node: Node, *, embedded: bool) -> Validation:
    found = Validation(
        max_revocation_delay=node.take("maxRevocationDelay").seconds(
            default=5.0, least=0.0, most=LONGEST_REVOCATION_DELAY
        ),
        timeout=node.take("timeout").seconds(default=2.0, least=0.001, most=LONGEST_INTROSPECTION),
        retries=node.take("retries").whole(default=1, least=0, most=MOST_RETRIES),
        serve_stale=node.take("serveStale").seconds(default=0.0, least=0.0, most=LONGEST_STALE),
        webhook_secret_file=None if embedded else _webhook(node.take("revocationWebhook")),
    )
    node.finish()
    return found


def _webhook(node: Node) -> str | None:
    secret_file = node.take("secretFile", required=node.present).text()
    node.finish()
    return secret_file


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
