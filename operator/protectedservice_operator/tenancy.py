"""Which namespaces an object's owner lets in. Pure.

What is not known is not allowed: a selector's operator that nobody knows matches nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Namespaces:
    """Some namespaces, as Gateway API's `from` and `selector` have it."""

    source: str  # Same, All or Selector
    selector: Mapping[str, Any]

    @classmethod
    def parse(cls, spec: Mapping[str, Any]) -> Namespaces:
        return cls(spec["from"], spec.get("selector") or {})

    def admit(self, namespace: str, labels: Mapping[str, str], home: str) -> bool:
        """Whether this namespace, of these labels, is one of them; `home` is where the object stands that says so."""
        match self.source:
            case "All":
                return True
            case "Same":
                return namespace == home
            case "Selector":
                return matches(self.selector, labels)
        return False


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """A metav1.LabelSelector against labels. An operator that is not known matches nothing."""
    if any(labels.get(name) != value for name, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_expression_matches(expression, labels) for expression in selector.get("matchExpressions") or ())


def _expression_matches(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
    return False
