"""Which namespaces may use an AuthorizationServer, and which of them may ask for which scope. Pure.

What is not known is not allowed: a selector's operator that nobody knows matches nothing, and where scopes are granted
at all, a scope that no grant names is nobody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

# Names of this beginning are the operator's own at an authorization server: its clients', and their client scopes'.
OWN_PREFIX: Final = "psvc-"


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


@dataclass(frozen=True, slots=True)
class ScopeGrant:
    """Scopes that services of some namespaces may ask for."""

    scopes: frozenset[str]
    namespaces: Namespaces

    @classmethod
    def parse(cls, spec: Mapping[str, Any]) -> ScopeGrant:
        return cls(frozenset(spec["scopes"]), Namespaces.parse(spec["namespaces"]))


def refused_scopes(
    grants: Iterable[ScopeGrant] | None, scopes: Iterable[str], namespace: str, labels: Mapping[str, str], home: str
) -> tuple[str, ...]:
    """Those of `scopes` that this namespace may not ask for, in their order. `grants` None: it may ask for all.

    A scope named as the operator names its own is refused always: at Keycloak, asking for another client's client scope
    would put that client's audience into one's own tokens.
    """
    granted: set[str] = set()
    for grant in grants or ():
        if grant.namespaces.admit(namespace, labels, home):
            granted |= grant.scopes
    return tuple(
        scope for scope in scopes if scope.startswith(OWN_PREFIX) or (grants is not None and scope not in granted)
    )


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
