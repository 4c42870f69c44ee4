"""Somebody inside the cluster who calls services: a pod, and one `kubectl exec` that stays open."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from ..support.kubectl import Kubectl

AGENT: Final = Path(__file__).with_name("agent.py")
PYTHON: Final = "/opt/venv/bin/python"


@dataclass(frozen=True)
class Answer:
    """What came back. `status` is None where nothing did; `error` says why."""

    status: int | None
    headers: tuple[tuple[str, str], ...]
    body: str
    seconds: float = 0.0
    error: str = ""
    certificate: str = ""
    """That the service showed, by https: its DER in hexadecimal."""

    def header(self, name: str) -> str | None:
        """The header's value; None when absent, an AssertionError when there are several."""
        values = [value for key, value in self.headers if key == name.lower()]
        assert len(values) < 2, (name, values)
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """The pod and the way into it."""

    def __init__(self, kubectl: Kubectl, namespace: str) -> None:
        self._kubectl, self._namespace = kubectl, namespace
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._kubectl.create(pod(self._namespace))
        self._kubectl.wait("pod", "caller", "condition=Ready", namespace=self._namespace, timeout=90)
        self._process = subprocess.Popen(
            [
                "kubectl", f"--kubeconfig={self._kubectl.kubeconfig}", "exec", "-i", f"--namespace={self._namespace}",
                "caller", "--", PYTHON, "-u", "-c", AGENT.read_text(encoding="utf-8"),
            ],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()

    def ask(
        self,
        method: str,
        url: str,
        *,
        token: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
        body: str = "",
        until: int | None = None,
        patience: float = 30.0,
        timeout: float = 10.0,
        authority: str = "",
    ) -> Answer:
        """One request from inside the cluster, or with `until` one after the other, see agent.py.

        `authority`: whose certificates are believed (PEM), for https.
        """
        sent = [*headers, *([("Authorization", f"Bearer {token}")] if token else [])]
        question: dict[str, Any] = {
            "method": method, "url": url, "headers": sent, "body": body, "timeout": timeout, "authority": authority,
        }  # fmt: skip
        if until is not None:
            question |= {"until": until, "patience": patience}
        return self._answer(question)

    def ask_lasting(self, url: str, *, token: str, seconds: float) -> dict[str, int]:
        """GET again and again for so long: how often each status, or each fault of the connection, came."""
        sent = [("Authorization", f"Bearer {token}")]
        question = {"method": "GET", "url": url, "headers": sent, "timeout": 10.0, "lasting": seconds}
        counts: dict[str, int] = self._answer(question).json()
        return counts

    def _answer(self, question: dict[str, Any]) -> Answer:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the caller's pod is gone"
        answer = json.loads(line)
        pairs = tuple((name, value) for name, value in answer["headers"])
        return Answer(
            answer["status"],
            pairs,
            answer["body"],
            answer.get("seconds", 0.0),
            answer.get("error", ""),
            answer.get("certificate", ""),
        )


def pod(namespace: str) -> dict[str, Any]:
    """A restricted pod that waits."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "caller", "namespace": namespace},
        "spec": {
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "caller",
                    "image": "protectedservice/resource-server:0.1.0",
                    "command": [PYTHON, "-c", "import signal; signal.pause()"],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    }
