"""The proof that a ProtectedService protects: 401 without a token, 200 with one, 401 in time once it is revoked.

    python3 scripts/proof.py --namespace demo orders

Runs from the host with the standard library alone. It reaches the services through `kubectl port-forward`, and so uses
KUBECONFIG. The client's credentials and the token stay in memory: never printed, never an argument of a process.
Exit code 0: PASS; 1: FAIL, with the step that failed; 2: the proof could not be carried out.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

TIMEOUT = 30.0  # seconds for any one answer
SETTLING = 30.0  # seconds; kube-proxy and a fresh port-forward may need some after a Service was made
PAUSE = 0.05  # seconds between two requests with the revoked token: the resolution of the measured delay
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class Failed(Exception):
    """A step gave another answer than the promise. The message says which."""


class Unproved(Exception):
    """The proof could not be carried out: something beside the protected service did not work."""


@dataclass(frozen=True)
class Credentials:
    """What authenticates the client. Shown nowhere."""

    client_id: str
    client_secret: str = field(repr=False)

    def header(self) -> str:
        """RFC 6749 section 2.3.1: form-urlencoded first, then HTTP Basic."""
        pair = f"{quote(self.client_id, safe='')}:{quote(self.client_secret, safe='')}"
        return "Basic " + base64.b64encode(pair.encode()).decode()


@dataclass(frozen=True)
class Answer:
    """Status, headers (lower case) and body of one HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)

    def json(self) -> dict[str, Any]:
        """The body as a JSON object, or Unproved."""
        try:
            value = json.loads(self.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise Unproved(f"an answer {self.status} was expected to be a JSON object and is not")
        return value


@dataclass(frozen=True)
class Door:
    """A service of the cluster, reached through a local port."""

    port: int
    host: str

    def call(
        self, method: str, path: str, headers: dict[str, str] | None = None, form: dict[str, str] | None = None
    ) -> Answer:
        """One request on a fresh connection. Raises OSError or HTTPException when there is no answer."""
        sent = {"Host": self.host, "Connection": "close", **(headers or {})}
        body = None
        if form is not None:
            body = urlencode(form).encode()
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            connection.request(method, path, body=body, headers=sent)
            response = connection.getresponse()
            return Answer(
                response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
            )
        finally:
            connection.close()


def seconds(duration: str) -> float:
    """Seconds of a duration like 500ms, 5s, 1m or 1h."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", duration)
    if match is None:
        raise Unproved(f"cannot read the duration {duration!r}")
    return float(match[1]) * UNITS[match[2]]


def kubectl(*arguments: str) -> dict[str, Any]:
    """The object that `kubectl get ...` answers, or Unproved."""
    command = ["kubectl", *arguments, "-o", "json"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)  # noqa: S603 (no shell, names of ours)
    if result.returncode != 0:
        raise Unproved(f"{' '.join(command)}: {result.stderr.strip()}")
    found = json.loads(result.stdout)
    assert isinstance(found, dict)  # noqa: S101 (narrows the type)
    return found


@contextlib.contextmanager
def forwarded(namespace: str, service: str, port: int) -> Iterator[Door]:
    """A local port (any free one) that leads to the Service while the block runs."""
    command = ["kubectl", "-n", namespace, "port-forward", "--address=127.0.0.1", f"service/{service}", f":{port}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # noqa: S603 (no shell)
    try:
        assert process.stdout is not None  # noqa: S101 (narrows the type)
        match = re.search(r"127\.0\.0\.1:(\d+) ->", process.stdout.readline())
        if match is None:
            raise Unproved(
                f"kubectl port-forward to service/{service} in {namespace} ended at once: has it ready pods?"
            )
        yield Door(int(match[1]), f"{service}.{namespace}.svc")
    finally:
        process.terminate()
        process.wait(timeout=TIMEOUT)


def say(text: str) -> None:
    """One line of the proof."""
    sys.stdout.write(f"  {text}\n")
    sys.stdout.flush()


def first_answer(door: Door, path: str) -> Answer:
    """The first answer that comes at all: connections are retried for a while after the Service was made."""
    deadline = time.monotonic() + SETTLING
    while True:
        try:
            return door.call("GET", path)
        except (OSError, http.client.HTTPException) as error:
            if time.monotonic() > deadline:
                raise Unproved(f"{door.host} gives no answer: {error}") from error
            time.sleep(PAUSE)


def prove(service: dict[str, Any], credentials: Credentials, door: Door, authority: Door) -> None:
    """The three steps. Raises Failed or Unproved."""
    spec = service["spec"]
    answer = first_answer(door, "/")
    challenge = answer.headers.get("www-authenticate", "")
    say(f"GET / without a token            {answer.status}  WWW-Authenticate: {challenge}")
    if answer.status != 401 or not challenge.startswith("Bearer"):
        raise Failed("without a token the answer must be 401 with a Bearer challenge")

    metadata = authority.call("GET", "/.well-known/oauth-authorization-server").json()
    token_path, revocation_path = (
        urlsplit(str(metadata[name])).path for name in ("token_endpoint", "revocation_endpoint")
    )
    form = {"grant_type": "client_credentials", "scope": " ".join(spec["scopes"])}
    if "audience" in spec:
        form["resource"] = spec["audience"]
    minted = authority.call("POST", token_path, {"Authorization": credentials.header()}, form)
    if minted.status != 200:
        raise Unproved(f"the authorization server answered {minted.status} to the request for a token")
    token = str(minted.json()["access_token"])
    say(f"a token for client {credentials.client_id}, scope {form['scope']!r}")

    bearer = {"Authorization": f"Bearer {token}"}
    answer = door.call("GET", "/", bearer)
    say(f"GET / with the token             {answer.status}")
    if answer.status != 200:
        raise Failed("with a good token the answer must be 200")
    if token.encode() in answer.body:
        raise Failed("the upstream was shown the token")

    revoked = authority.call("POST", revocation_path, {"Authorization": credentials.header()}, {"token": token})
    if revoked.status != 200:
        raise Unproved(f"the authorization server answered {revoked.status} to the revocation")
    bound = str(spec["validation"]["maxRevocationDelay"])
    delay = revocation_delay(door, bearer, seconds(bound))
    say(f"GET / with the revoked token     401  {delay:.2f} s after the revocation (bound: {bound})")


def revocation_delay(door: Door, bearer: dict[str, str], bound: float) -> float:
    """Seconds from the answer to the revocation to the first refused request, counted by when requests were sent.

    Raises Failed when a request that was sent later than the bound is answered 200.
    """
    start = time.monotonic()
    while True:
        sent = time.monotonic() - start
        answer = door.call("GET", "/", bearer)
        if answer.status == 401 and 'error="invalid_token"' in answer.headers.get("www-authenticate", ""):
            return sent
        if answer.status != 200:
            raise Failed(f"a revoked token must be answered 401 invalid_token, not {answer.status}")
        if sent > bound:
            raise Failed(f"a request sent {sent:.2f} s after the revocation was answered 200; the bound is {bound:g} s")
        time.sleep(PAUSE)


def main() -> int:
    """Gather what is needed, prove, say the verdict."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", help="name of the ProtectedService")
    parser.add_argument("--namespace", default="default")
    parser.add_argument(
        "--authorization-server", default="authorization-server/authorization-server", metavar="NAMESPACE/SERVICE"
    )
    options = parser.parse_args()
    authority_namespace, authority_service = options.authorization_server.split("/", 1)
    try:
        service = kubectl("-n", options.namespace, "get", "protectedservice", options.name)
        secret_name = service.get("status", {}).get("credentialsSecret") or f"{options.name}-oauth2-client"
        data = kubectl("-n", options.namespace, "get", "secret", secret_name)["data"]
        credentials = Credentials(*(base64.b64decode(data[key]).decode() for key in ("client_id", "client_secret")))
        port = int(service["spec"].get("service", {}).get("port", 80))
        with (
            forwarded(options.namespace, f"{options.name}-protected", port) as door,
            forwarded(authority_namespace, authority_service, 80) as authority,
        ):
            prove(service, credentials, door, authority)
    except Failed as failure:
        sys.stderr.write(f"proof: FAIL: {failure}\n")
        return 1
    except (Unproved, OSError, http.client.HTTPException, subprocess.SubprocessError, KeyError) as reason:
        sys.stderr.write(f"proof: could not be carried out: {reason!r}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
