"""kubectl as tests use it: one class, plain dicts, errors that carry what kubectl said, never what it was given.

Tests write only to a cluster that scripts/e2e_kind.sh made: `Kubectl.of_e2e_cluster` refuses every other.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

Object = dict[str, Any]

# Name of the KIND cluster, without the prefix `kind-` of its context. Set by scripts/e2e_kind.sh and by nobody else.
CLUSTER_VARIABLE: Final = "PROTECTEDSERVICE_E2E_CLUSTER"
NO_CLUSTER: Final = "run scripts/e2e_kind.sh"


class ForeignCluster(Exception):
    """The environment names a cluster that scripts/e2e_kind.sh did not make, or not clearly."""


class KubectlError(Exception):
    """kubectl ended with an error. Standard input is not shown: it may hold a Secret.

    Attributes:
        stdout: what it had written until then; not in the message.
        stderr: what it said.
    """

    def __init__(self, arguments: Sequence[str], code: int, stdout: str, stderr: str) -> None:
        super().__init__(f"kubectl {' '.join(arguments)}: exit code {code}: {stderr.strip()}")
        self.stdout = stdout
        self.stderr = stderr


@dataclass(frozen=True)
class Kubectl:
    """Runs kubectl with one kubeconfig, and with nothing else from the environment's.

    Attributes:
        kubeconfig: the only configuration that is read.
        user: impersonated (`--as`), or None for the kubeconfig's own user.
    """

    kubeconfig: Path
    user: str | None = None

    @classmethod
    def of_e2e_cluster(cls, environment: Mapping[str, str]) -> Kubectl:
        """The cluster that scripts/e2e_kind.sh made.

        Raises ForeignCluster unless KUBECONFIG names one file whose current context is `kind-<CLUSTER_VARIABLE>`.
        """
        cluster = environment.get(CLUSTER_VARIABLE, "")
        kubeconfig = environment.get("KUBECONFIG", "")
        if not cluster:
            raise ForeignCluster(f"{CLUSTER_VARIABLE} is not set: {NO_CLUSTER}")
        if not kubeconfig or not Path(kubeconfig).is_file():
            raise ForeignCluster(f"KUBECONFIG={kubeconfig!r} is not one existing file: {NO_CLUSTER}")
        context = yaml.safe_load(Path(kubeconfig).read_text(encoding="utf-8")).get("current-context")
        if context != f"kind-{cluster}":
            raise ForeignCluster(
                f"current context of {kubeconfig} is {context!r}, not 'kind-{cluster}': {NO_CLUSTER},"
                " which makes a cluster of its own"
            )
        return cls(Path(kubeconfig))

    def impersonating(self, user: str) -> Kubectl:
        """The same cluster as another user, such as `system:serviceaccount:NAMESPACE:NAME`."""
        return Kubectl(self.kubeconfig, user)

    def run(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> str:
        """Standard output. Raises KubectlError, and subprocess.TimeoutExpired after `timeout` seconds."""
        command = ["kubectl", f"--kubeconfig={self.kubeconfig}", *([f"--as={self.user}"] if self.user else [])]
        done = subprocess.run(
            [*command, *arguments], input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode != 0:
            raise KubectlError(arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def apply(
        self,
        manifest: str | Object,
        *,
        namespace: str | None = None,
        manager: str = "kubectl",
        dry_run: bool = False,
        force: bool = False,
    ) -> Object:
        """Server-side apply of one or more objects; the answer is the object, or a List of them.

        Never client-side apply, which would copy a Secret into an annotation. `dry_run` asks the API server for
        everything but the storing.
        """
        options = ["--server-side", f"--field-manager={manager}", "--output=json"]
        options += ["--dry-run=server"] if dry_run else []
        options += ["--force-conflicts"] if force else []
        return _one(self.run("apply", *_in(namespace), *options, "--filename=-", stdin=_text(manifest)))

    def create(self, manifest: str | Object, *, namespace: str | None = None, dry_run: bool = False) -> Object:
        """POST; refused when the object exists."""
        options = ["--output=json", *(["--dry-run=server"] if dry_run else [])]
        return _one(self.run("create", *_in(namespace), *options, "--filename=-", stdin=_text(manifest)))

    def patch(
        self,
        kind: str,
        name: str,
        patch: Object | list[Object],
        *,
        namespace: str | None = None,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Object:
        """A dict is a merge patch, a list a JSON patch. The answer is the object."""
        options = [f"--type={'merge' if isinstance(patch, dict) else 'json'}", f"--patch={json.dumps(patch)}"]
        options += [f"--subresource={subresource}"] if subresource else []
        options += ["--dry-run=server"] if dry_run else []
        return _one(self.run("patch", kind, name, *_in(namespace), *options, "--output=json"))

    def get(self, kind: str, name: str, *, namespace: str | None = None) -> Object | None:
        """The object, or None where there is none of this name."""
        output = self.run("get", kind, name, *_in(namespace), "--ignore-not-found", "--output=json")
        return _one(output) if output.strip() else None

    def list(self, kind: str, *, namespace: str | None = None, selector: str | None = None) -> list[Object]:
        """The objects of a kind, in one namespace or in all."""
        options = [*(_in(namespace) or ["--all-namespaces"]), *([f"--selector={selector}"] if selector else [])]
        items: list[Object] = _one(self.run("get", kind, *options, "--output=json"))["items"]
        return items

    def delete(
        self, kind: str, name: str, *, namespace: str | None = None, wait: bool = True, timeout: float = 60
    ) -> None:
        """Deletes, and waits until it is gone unless told otherwise. Already gone is done."""
        options = ["--ignore-not-found", f"--wait={str(wait).lower()}", f"--timeout={timeout:.0f}s"]
        self.run("delete", kind, name, *_in(namespace), *options, timeout=timeout + 10)

    def wait(self, kind: str, name: str, condition: str, *, namespace: str | None = None, timeout: float = 60) -> None:
        """`kubectl wait --for=<condition>`, such as `condition=Ready` or `jsonpath={.status.clientId}`."""
        options = [f"--for={condition}", f"--timeout={timeout:.0f}s"]
        self.run("wait", f"{kind}/{name}", *_in(namespace), *options, timeout=timeout + 10)

    def can(self, verb: str, resource: str, *, namespace: str | None = None) -> bool:
        """Whether the user may, in one namespace or in all; `resource` may be a subresource, such as `pods/log`.

        `kubectl auth can-i` exits with 1 for no, and says so; anything else is an error.
        """
        plural, _, subresource = resource.partition("/")
        options = [
            *(_in(namespace) or ["--all-namespaces"]),
            *([f"--subresource={subresource}"] if subresource else []),
        ]
        try:
            self.run("auth", "can-i", verb, plural, *options)
        except KubectlError as error:
            if error.stdout.split(" ")[0].strip() == "no":
                return False
            raise
        return True


def _in(namespace: str | None) -> list[str]:
    return [f"--namespace={namespace}"] if namespace else []


def _text(manifest: str | Object) -> str:
    return manifest if isinstance(manifest, str) else json.dumps(manifest)


def _one(output: str) -> Object:
    """The JSON that kubectl wrote; several objects in a row become a List."""
    decoder, objects, rest = json.JSONDecoder(), [], output.strip()
    while rest:
        found, end = decoder.raw_decode(rest)
        objects.append(found)
        rest = rest[end:].lstrip()
    return objects[0] if len(objects) == 1 else {"apiVersion": "v1", "kind": "List", "items": objects}
