"""Reading a document field by field, remembering every fault instead of stopping at the first. Pure.

A `Node` is one place in the document. Its readers return a value that fits, or a harmless stand-in after noting the
fault; whoever reads must ask for `faults` at the end and use nothing if there are any.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from typing import Any, Final

import yaml

DURATION: Final = re.compile(r"(?:[0-9]{1,9}(?:ms|s|m|h))+")
DURATION_PART: Final = re.compile(r"([0-9]+)(ms|s|m|h)")
SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

_ABSENT: Final = object()


class PolicyError(ValueError):
    """A policy that cannot be used; `faults` has one sentence a fault, each starting with its field."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class _Loader(yaml.SafeLoader):
    """YAML that refuses a repeated key: the reader of the file would see one value and the server the other."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError):
            # PyYAML trusts an explicit tag (`!!int ""`) and the look of a date, and fails in its own code.
            what = "a value is not of its YAML type (quote it)"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark) from None

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Hashable, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.constructor.ConstructorError(None, None, "expected a mapping", node.start_mark)
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, "a key is not a string", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is repeated", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_yaml(text: str) -> Node:
    """The root of the document in `text`.

    Raises:
        PolicyError: the text is no YAML mapping.
    """
    try:
        # _Loader is a SafeLoader: it makes nothing but plain data.
        document = yaml.load(text, Loader=_Loader)  # noqa: S506
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "(unknown place)"
        raise PolicyError([f"{where}: not YAML: {error.problem or error.context}"]) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise PolicyError([f"not YAML: {str(error).splitlines()[0] if str(error) else 'nested too deeply'}"]) from None
    if not isinstance(document, dict):
        raise PolicyError(["the file must hold a mapping, such as `scopes: [read]`"])
    return Node("", document, [])


class Node:
    """One place in a document."""

    def __init__(self, path: str, value: Any, faults: list[str]) -> None:
        self._path = path
        self._value = value
        self._faults = faults
        self._taken: set[str] = set()

    @property
    def present(self) -> bool:
        """Whether the document has something here. A null counts: `audience:` and no value is a fault, no absence."""
        return self._value is not _ABSENT

    @property
    def faults(self) -> list[str]:
        """Every fault noted so far in the whole document, in the order of reading."""
        return self._faults

    def fault(self, what: str, *, at: str | None = None) -> None:
        """Note a fault of this place, or of its field `at`."""
        path = self._path if at is None else self._child(at)
        self._faults.append(f"{path}: {what}")

    def _child(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def take(self, name: str, *, required: bool = False) -> Node:
        """The field `name` of this mapping; a place with nothing in it where there is none."""
        self._taken.add(name)
        value: Any = _ABSENT
        if isinstance(self._value, dict):
            value = self._value.get(name, _ABSENT)
            if value is _ABSENT and required:
                self.fault("is required", at=name)
        return Node(self._child(name), value, self._faults)

    def finish(self) -> None:
        """Note every key that nobody took, or that this is no mapping at all."""
        if not self.present:
            return
        if not isinstance(self._value, dict):
            self.fault(f"must be a mapping, not {_kind(self._value)}")
            return
        for key in self._value:
            if key not in self._taken:
                known = ", ".join(sorted(self._taken))
                self.fault(f"unknown key (known here: {known})", at=key[:64])

    def items(self, *, least: int, most: int) -> list[Node]:
        """The items of a list of `least`..`most`."""
        if not self.present:
            return []
        if not isinstance(self._value, list):
            self.fault(f"must be a list, not {_kind(self._value)}")
            return []
        if not least <= len(self._value) <= most:
            amount = f"{least}" if least == most else f"{least}..{most}"
            self.fault(f"must have {amount} items, has {len(self._value)}")
        return [Node(f"{self._path}[{index}]", value, self._faults) for index, value in enumerate(self._value[:most])]

    def text(self) -> str | None:
        """A string that is not empty; None where there is none."""
        if not self.present:
            return None
        if not isinstance(self._value, str):
            self.fault(f"must be a string, not {_kind(self._value)}")
            return None
        if not self._value:
            self.fault("must not be empty")
            return None
        return self._value

    def flag(self, *, default: bool) -> bool:
        """A boolean."""
        if not self.present:
            return default
        if not isinstance(self._value, bool):
            self.fault(f"must be true or false, not {_kind(self._value)}")
            return default
        return self._value

    def choice(self, choices: Sequence[str], default: str) -> str:
        """One of `choices`."""
        if not self.present:
            return default
        if self._value not in choices:
            self.fault(f"must be {' or '.join(choices)}")
            return default
        return str(self._value)

    def whole(self, *, default: int, least: int, most: int) -> int:
        """A whole number."""
        if not self.present:
            return default
        if isinstance(self._value, bool) or not isinstance(self._value, int) or not least <= self._value <= most:
            self.fault(f"must be a whole number from {least} to {most}")
            return default
        return self._value

    def seconds(self, *, default: float, least: float, most: float) -> float:
        """A duration such as `0s`, `500ms`, `5s`, `1m30s`, `1h`, in seconds."""
        if not self.present:
            return default
        if not isinstance(self._value, str) or not DURATION.fullmatch(self._value):
            self.fault("must be a duration such as 500ms, 5s, 1m or 1h")
            return default
        found = sum(int(amount) * SECONDS[unit] for amount, unit in DURATION_PART.findall(self._value))
        if not least <= found <= most:
            self.fault(f"must be from {least:g}s to {most:g}s")
            return default
        return found


def _kind(value: Any) -> str:
    """What a value is, in the reader's words; never the value itself, which might be a misplaced secret."""
    if value is None:
        return "nothing (give a value or leave the key out)"
    names = {
        bool: "true or false (quote it)",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "a list",
        dict: "a mapping",
    }
    return names.get(type(value), f"a YAML {type(value).__name__} (quote it)")
