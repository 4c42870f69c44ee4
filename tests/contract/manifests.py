"""The manifests under k8s/ as tests read them."""

from __future__ import annotations

import copy
import functools
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from .schema import ROOT

K8S: Final = ROOT / "k8s"
EXAMPLES: Final = sorted((K8S / "examples").glob("*.yaml"))
KUSTOMIZATIONS: Final = sorted([*K8S.rglob("kustomization.yaml"), ROOT / "crds/kustomization.yaml"])


def documents(file: Path) -> list[Any]:
    """What the file holds, one entry per YAML document."""
    return copy.deepcopy(_read(file))


@functools.cache
def _read(file: Path) -> list[Any]:
    return [document for document in yaml.safe_load_all(file.read_text(encoding="utf-8")) if document is not None]


def shipped(kind: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every whole object of a kind under k8s/, examples included; patches have no selector, rules or subjects."""
    for file in sorted(K8S.rglob("*.yaml")):
        for document in documents(file):
            if isinstance(document, dict) and document.get("kind") == kind and not is_patch(file):
                yield file, document


def is_patch(file: Path) -> bool:
    """Whether a kustomization beside the file uses it as a patch."""
    kustomization = file.parent / "kustomization.yaml"
    if not kustomization.exists():
        return False
    return any(patch.get("path") == file.name for patch in documents(kustomization)[0].get("patches", []))


def version() -> str:
    """The version in pyproject.toml, which is also the images' tag."""
    found: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    return found
