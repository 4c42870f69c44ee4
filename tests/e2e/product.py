"""The product in the cluster, as a platform team sees it: kubectl, callers, logs, and the node."""

from __future__ import annotations

import base64
import datetime as dt
import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from ..contract.manifests import K8S, documents
from ..support.kubectl import Kubectl, KubectlError, Object
from .caller import Answer, Caller

SYSTEM: Final = "protectedservice-system"
SERVER_NAMESPACE: Final = "authorization-server"
ISSUER: Final = "http://authorization-server.authorization-server.svc"
OPERATOR: Final = "protectedservice-operator"
OPERATOR_USER: Final = f"system:serviceaccount:{SYSTEM}:{OPERATOR}"
CHECK_PATH: Final = "/.well-known/protectedservice/check"
SERVER_SELECTOR: Final = "app.kubernetes.io/name=authorization-server"
SERVER_REPLICAS: Final[int] = documents(K8S / "authorization_server_postgresql/deployment.yaml")[0]["spec"]["replicas"]
UPSTREAM: Final = (K8S / "examples" / "upstream.yaml").read_text(encoding="utf-8")
SMALLEST: Final = (K8S / "examples" / "smallest.yaml").read_text(encoding="utf-8")

# What stands in Secrets beside the secrets: a ServiceClient's, and certificates.
PUBLIC_KEYS = (
    "client_id",
    "registration_client_uri",
    "token_url",
    "scope",
    "audience",
    "audience_parameter",
    "token_endpoint_auth_method",
    ".crt",
)


@dataclass
class Product:
    """One run's view of it. `seen` collects every secret and token, for the search at the end of the run."""

    kubectl: Kubectl
    caller: Caller
    cluster: str
    seen: dict[str, str] = field(default_factory=dict, repr=False)
    logs: dict[str, str] = field(default_factory=dict, repr=False)
    leaving: list[str] = field(default_factory=list)  # namespaces whose end the session waits for

    # --- ProtectedServices -------------------------------------------------------------------------------------------

    def protect(self, namespace: str, name: str = "orders", **spec: Any) -> Object:
        """Apply a ProtectedService; one replica unless it says otherwise, a demonstration unless it has an upstream."""
        content: dict[str, Any] = {"scopes": ["read"], "workload": {"replicas": 1}, **spec}
        if "upstream" not in content:
            content["demo"] = True
        return self.kubectl.apply(
            {
                "apiVersion": "protectedservice.dev/v1alpha1",
                "kind": "ProtectedService",
                "metadata": {"name": name, "namespace": namespace},
                "spec": content,
            }
        )

    def service(self, namespace: str, name: str = "orders") -> Object | None:
        return self.kubectl.get("protectedservice", name, namespace=namespace)

    def condition(self, namespace: str, name: str = "orders", type_: str = "Ready") -> Object:
        """The condition, or an empty dict while there is none."""
        return condition(self.service(namespace, name), type_)

    def ready(self, namespace: str, name: str = "orders", timeout: float = 90) -> float:
        """Wait for Ready=True of the present generation; returns how many seconds it took."""
        began = time.monotonic()

        def is_ready() -> bool:
            found = self.service(namespace, name)
            ready = condition(found, "Ready")
            generation = (found or {"metadata": {}})["metadata"].get("generation")
            return ready.get("status") == "True" and ready.get("observedGeneration") == generation

        self.until(is_ready, timeout, f"ProtectedService {namespace}/{name} is Ready")
        return time.monotonic() - began

    def url(self, namespace: str, name: str = "orders") -> str:
        return f"http://{name}-protected.{namespace}.svc"

    # --- callers -----------------------------------------------------------------------------------------------------

    def credentials(self, namespace: str, name: str = "orders") -> tuple[str, str]:
        """Client id and secret, from the Secret that the operator wrote."""
        secret = self.kubectl.get("secret", f"{name}-oauth2-client", namespace=namespace)
        assert secret is not None
        values = [base64.b64decode(secret["data"][key]).decode() for key in ("client_id", "client_secret")]
        self.seen[values[1]] = f"client secret of {namespace}/{name}"
        return values[0], values[1]

    def token(
        self, credentials: tuple[str, str], scope: str = "read", resource: str | None = None, patience: float = 30
    ) -> str:
        """A fresh token by client_credentials."""
        answer = self.oauth("token", credentials, _form(scope, resource), until=200, patience=patience)
        assert answer.status == 200, answer
        token: str = answer.json()["access_token"]
        self.seen[token] = f"token of {credentials[0]}"
        return token

    def revoke(self, credentials: tuple[str, str], token: str) -> None:
        answer = self.oauth("revoke", credentials, {"token": token})
        assert answer.status == 200, answer

    def oauth(
        self,
        endpoint: str,
        credentials: tuple[str, str],
        form: dict[str, str],
        *,
        until: int | None = None,
        patience: float = 30,
    ) -> Answer:
        """POST a form to the authorization server, authenticated by Basic."""
        basic = base64.b64encode(":".join(credentials).encode()).decode()
        headers = [("Authorization", f"Basic {basic}"), ("Content-Type", "application/x-www-form-urlencoded")]
        url = f"{ISSUER}/oauth/{endpoint}"
        return self.caller.ask("POST", url, headers=headers, body=urlencode(form), until=until, patience=patience)

    # --- the authorization server ------------------------------------------------------------------------------------

    def clients(self) -> dict[str, str]:
        """client_id -> client_name, from the authorization server's database. Works while the server is down."""
        rows = "SELECT coalesce(json_object_agg(client_id, name), '{}') FROM oauth2_provider_application"
        output = self.kubectl.run(
            "exec", f"--namespace={SERVER_NAMESPACE}", "statefulset/postgresql", "--",
            "psql", "--host=/tmp", "--username=postgres", "--dbname=authorization_server", "--no-psqlrc",
            "--tuples-only", "--no-align", "--command", rows,
        )  # fmt: skip
        found: dict[str, str] = json.loads(output)
        return found

    def clients_of(self, namespace: str) -> dict[str, str]:
        """Those that are tagged with services of this namespace."""
        return {id_: name for id_, name in self.clients().items() if f"/{namespace}/" in name}

    def server_requests(self) -> list[dict[str, Any]]:
        """The access logs: what the operator asked of the authorization server, pods of the past not included."""
        log = self.kubectl.run("logs", f"--namespace={SERVER_NAMESPACE}", f"--selector={SERVER_SELECTOR}", "--tail=-1")
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        asked = [line for line in lines if str(line.get("user_agent", "")).startswith("protectedservice-operator/")]
        return sorted(asked, key=lambda line: str(line["time"]))

    def stop_server(self) -> None:
        """Scale the authorization server to zero and wait until none of its pods is left; its database stays."""
        self._scale_server(0)
        self.until(
            lambda: not self.kubectl.list("pods", namespace=SERVER_NAMESPACE, selector=SERVER_SELECTOR),
            60,
            "no authorization server runs",
        )

    def start_server(self) -> None:
        """As many replicas as it is shipped with, and all of them ready."""
        self._scale_server(SERVER_REPLICAS)
        self.kubectl.run(
            "rollout", "status", "deployment/authorization-server", f"--namespace={SERVER_NAMESPACE}", "--timeout=90s",
            timeout=100,
        )  # fmt: skip

    def _scale_server(self, replicas: int) -> None:
        deployment = "deployment/authorization-server"
        self.kubectl.run("scale", deployment, f"--namespace={SERVER_NAMESPACE}", f"--replicas={replicas}")

    def set_initial_access_token(self, namespace: str, token: str) -> None:
        """Change it on one side: in SERVER_NAMESPACE what the server takes, in SYSTEM what the operator sends."""
        self.seen[token] = "initial access token"
        encoded = base64.b64encode(token.encode()).decode()
        name = "authorization-server-registration"
        patch = [{"op": "replace", "path": "/data/token", "value": encoded}]
        # Not as an argument: those stand in process lists and in test reports.
        self.kubectl.run(
            "patch", "secret", name, f"--namespace={namespace}", "--type=json", "--patch-file=/dev/stdin",
            stdin=json.dumps(patch),
        )  # fmt: skip

    def initial_access_token(self) -> str:
        secret = self.kubectl.get("secret", "authorization-server-registration", namespace=SYSTEM)
        assert secret is not None
        token = base64.b64decode(secret["data"]["token"]).decode()
        self.seen[token] = "initial access token"
        return token

    def server_condition(self, type_: str) -> Object:
        return condition(self.kubectl.get("authorizationserver", "default", namespace=SYSTEM), type_)

    # --- the operator and the node -----------------------------------------------------------------------------------

    def on_node(self, *command: str) -> str:
        """Run something in the node, as its administrator."""
        done = subprocess.run(
            ["docker", "exec", f"{self.cluster}-control-plane", *command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (command, done.stderr)
        return done.stdout

    def operator_process(self) -> str | None:
        """Its process id in the node, or None while it is down."""
        done = subprocess.run(
            ["docker", "exec", f"{self.cluster}-control-plane", "pgrep", "-f", "bin/protectedservice-operator"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout.split()[0] if done.stdout.split() else None

    def kill_operator(self) -> None:
        """SIGKILL, from the node."""
        process = self.operator_process()
        assert process is not None, "the operator does not run"
        self.on_node("kill", "-9", process)

    def operator_runs(self, timeout: float = 90) -> None:
        """Wait until the operator is up and its caches are full."""
        self.until(lambda: self.operator_process() is not None, timeout, "the operator's process runs")
        self.kubectl.run(
            "wait", "pods", f"--namespace={SYSTEM}", "--selector=app.kubernetes.io/name=operator",
            "--for=condition=Ready", f"--timeout={timeout:.0f}s", timeout=timeout + 10,
        )  # fmt: skip

    def set_operator_environment(self, name: str, value: str | None) -> None:
        """Run the operator with this variable, or None: without it; returns when it runs."""
        deployment = f"deployment/{OPERATOR}"
        assignment = f"{name}-" if value is None else f"{name}={value}"
        self.kubectl.run("set", "env", deployment, f"--namespace={SYSTEM}", assignment)
        self.kubectl.run("rollout", "status", deployment, f"--namespace={SYSTEM}", "--timeout=120s", timeout=130)
        self.operator_runs()

    def audited_writes(self, since: float) -> list[dict[str, Any]]:
        """What the operator wrote since then (seconds since the epoch), by the API server's audit log."""
        found = []
        for line in self.on_node("cat", "/var/log/kubernetes/audit.log").splitlines():
            entry = json.loads(line)
            if entry["user"]["username"] == OPERATOR_USER and _epoch(entry["stageTimestamp"]) >= since:
                found.append(entry)
        return found

    # --- waiting -----------------------------------------------------------------------------------------------------

    def until(self, holds: Callable[[], bool], timeout: float, what: str) -> float:
        """Wait until it holds; returns how many seconds that took."""
        began = time.monotonic()
        while not _holds(holds):
            assert time.monotonic() - began < timeout, f"after {timeout:.0f} s it still is not so: {what}"
            time.sleep(0.2)
        return time.monotonic() - began

    # --- for the search at the end -----------------------------------------------------------------------------------

    def remember(self, namespace: str) -> None:
        """Keep the logs and learn the secrets of a namespace that is about to go."""
        for pod in self.kubectl.list("pods", namespace=namespace):
            name = pod["metadata"]["name"]
            self.logs[f"{namespace}/{name}"] = self._log(namespace, name)
        for secret in self.kubectl.list("secrets", namespace=namespace):
            self._learn(secret)
        for secret in self.kubectl.list("secrets", namespace=SYSTEM):
            self._learn(secret)

    def _log(self, namespace: str, pod: str) -> str:
        parts = []
        for previous in ([], ["--previous"]):
            try:
                parts.append(
                    self.kubectl.run(
                        "logs", pod, f"--namespace={namespace}", "--all-containers", "--tail=-1", *previous
                    )
                )
            except KubectlError:
                continue  # it never ran, or never ran before
        return "\n".join(parts)

    def _learn(self, secret: Object) -> None:
        for key, value in (secret.get("data") or {}).items():
            if not key.endswith(PUBLIC_KEYS):
                text = base64.b64decode(value).decode(errors="replace")
                self.seen[text] = f"{secret['metadata']['namespace']}/{secret['metadata']['name']} {key}"


def condition(body: Object | None, type_: str) -> Object:
    """The condition of an object, or an empty dict."""
    conditions: list[Object] = ((body or {}).get("status") or {}).get("conditions") or []
    return next((item for item in conditions if item["type"] == type_), {})


def _holds(holds: Callable[[], bool]) -> bool:
    try:
        return holds()
    except (KubectlError, subprocess.TimeoutExpired):
        return False  # a moment without an answer is not the answer


def _form(scope: str, resource: str | None) -> dict[str, str]:
    form = {"grant_type": "client_credentials", "scope": scope}
    return form | ({"resource": resource} if resource else {})


def _epoch(timestamp: str) -> float:
    return dt.datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()
