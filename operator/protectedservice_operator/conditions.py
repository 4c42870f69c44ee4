"""Conditions (metav1.Condition), and the times and durations that objects hold. Pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

Condition = dict[str, Any]


def timestamp(now: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC, whole seconds (metav1.Time)."""
    return dt.datetime.fromtimestamp(int(now), dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(text: str) -> float:
    """metav1.Time as seconds since the epoch."""
    return dt.datetime.fromisoformat(text).timestamp()


_DURATION: Final = re.compile(r"([0-9.]+)(ms|s|m|h)")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration_seconds(text: str) -> float:
    """A duration of the CRDs (`1m30s`, `500ms`) in seconds."""
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))


def find_condition(conditions: Iterable[Condition], type_: str) -> Condition | None:
    """The condition of this type, if there is one."""
    return next((condition for condition in conditions if condition["type"] == type_), None)


def is_true(conditions: Iterable[Condition], type_: str) -> bool:
    """Whether there is a condition of this type and it says True."""
    condition = find_condition(conditions, type_)
    return condition is not None and condition["status"] == "True"


def merge_conditions(old: Sequence[Condition], new: Sequence[Condition], now: float) -> list[Condition]:
    """`new` with the transition times of `old` where the status did not flip (metav1.Condition's rule)."""
    merged = []
    for condition in new:
        before = find_condition(old, condition["type"])
        unchanged = before is not None and before["status"] == condition["status"]
        time = before["lastTransitionTime"] if before and unchanged else timestamp(now)
        merged.append({**condition, "lastTransitionTime": time})
    return merged
