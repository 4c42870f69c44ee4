"""Policy files: a policy within its bounds, or a `PolicyError` of bounded length. Nothing else, whatever the text."""

from __future__ import annotations

from typing import Final

from protectedservice_server import policy_file
from protectedservice_server.faults import PolicyError
from protectedservice_server.policy import Access, Policy, Requirement

SEEDS: Final = (
    b"",
    b'{"scopes":["read"],"demo":true,"authorizationServers":[{"endpoints":{"introspection":"https://as/i"}}]}',
    b"""scopes: [read, "urn:write"]
scopeMatch: Any
audience: https://orders.example
resource: https://orders.example/a
rules:
- {paths: [/docs/*, /], methods: [GET], access: Public}
- {paths: [/orders/*], scopes: [write, admin], scopeMatch: Any}
upstream:
  url: https://orders.tenant.svc:8080
  timeout: 1m30s
  forwardToken: true
  identityHeaders: {enabled: false, names: {username: X-User, subject: X-Sub}}
  tls: {caFile: /etc/ca/up.crt, serverName: orders.example}
validation:
  maxRevocationDelay: 0s
  timeout: 500ms
  retries: 0
  serveStale: 10m
  revocationWebhook: {secretFile: /etc/secret}
authorizationServers:
- issuer: http://as.svc
  allowInsecureHTTP: true
  endpoints: {introspection: "http://as.svc/introspect", token: "http://as.svc/token", jwks: "http://as.svc/jwks"}
  introspection: {clientAuthentication: client_secret_basic}
""",
    b"a: &a [1, *a]\nb: *a\n<<: *a",
    b"scopes: [a]\nscopes: [b]",
    b"a: 2001-02-03T04:05:06Z\nb: 0x1f\nc: 1:20\nd: .inf",
    b"a: !!set {x}\nb: !!omap [x: 1]\nc: !!binary aGk=",
    b"- x\n--- y\n...",
    b"{[a]: b}",
)
WORDS: Final = (
    b"scopes:", b"rules:", b"paths:", b"access: Public", b"upstream:", b"url: ", b"timeout: ", b"retries: ", b"!!int ",
    b"!!bool ", b"!!float ", b"!!timestamp ", b"!!map ", b"!!seq ", b"!!str ", b"!!null ", b"!!set ", b"!!omap ",
    b"!!pairs ", b"!!binary ", b'""', b"&a ", b"*a", b"<<: ", b"? ", b"- ", b"[", b"]", b"{", b"}", b"\n", b": ", b"|",
    b">", b"%YAML 1.1\n", b"---\n", b"2001-01-01", b"http://[", b"https://a", b"1h", b"9999999999", b"\\x00", b"\x00",
)  # fmt: skip

MOST_FAULTS_A_BYTE: Final = 64
"""An alias may put one faulty thing into each of 64 rules; more would be a file that is larger inside than outside."""
LONGEST_FAULT: Final = 1024
"""Characters, beyond those that the text itself has: a repeated key is quoted."""


def check(data: bytes) -> None:
    """`data` is the file."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return  # whoever reads the file says so
    for embedded in (False, True):
        try:
            policy = policy_file.parse(text, embedded=embedded)
        except PolicyError as error:
            _check_faults(error, len(text))
        else:
            _check_policy(policy, embedded=embedded)
            assert policy_file.parse(text, embedded=embedded) == policy, "read twice, meant twice"


def _check_faults(error: PolicyError, length: int) -> None:
    assert 1 <= len(error.faults) <= MOST_FAULTS_A_BYTE * (length + 1), "more faults than the text can have"
    for fault in error.faults:
        assert isinstance(fault, str)
        assert fault
        assert len(fault) <= LONGEST_FAULT + 12 * length  # 12: a character outside the plane, escaped


def _check_policy(policy: Policy, *, embedded: bool) -> None:
    assert isinstance(policy, Policy)
    assert not (embedded and (policy.demo or policy.upstream))
    assert embedded or policy.demo == (policy.upstream is None)
    _check_requirement(policy.requirement)
    assert len(policy.rules.rules) <= policy_file.MOST_RULES
    for rule in policy.rules.rules:
        assert 1 <= len(rule.paths) <= policy_file.MOST_PATHS
        assert all(path.startswith("/") and ".." not in path.split("/") and "%" not in path for path in rule.paths)
        if not isinstance(rule.need, Access):
            _check_requirement(rule.need)
    validation = policy.validation
    assert 0.0 <= validation.max_revocation_delay <= policy_file.LONGEST_REVOCATION_DELAY
    assert 0.0 < validation.timeout <= policy_file.LONGEST_INTROSPECTION
    assert 0 <= validation.retries <= policy_file.MOST_RETRIES
    assert 0.0 <= validation.serve_stale <= policy_file.LONGEST_STALE
    endpoint = policy.authorization_server.introspection_endpoint
    assert endpoint.lower().startswith(("https://", "http://"))
    assert all("!" <= letter <= "~" for letter in endpoint), "a line end here would be a header of the question"
    upstream = policy.upstream
    if upstream is not None:
        assert upstream.url.lower().startswith(("https://", "http://"))
        assert upstream.url.count("/") == 2
        assert "@" not in upstream.url
        assert 0.0 < upstream.timeout <= policy_file.LONGEST_TIMEOUT


def _check_requirement(requirement: Requirement) -> None:
    assert 1 <= len(requirement.scopes) <= policy_file.MOST_SCOPES
    for scope in requirement.scopes:
        assert 1 <= len(scope) <= policy_file.LONGEST_SCOPE
        assert all("!" <= letter <= "~" and letter not in '"\\' for letter in scope)
