"""The readers of hostile bytes that are fuzzed: each with its oracle, bytes to begin with, and words to mix in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from . import bearer_header, connection, introspection_answer, policy_text, request_path


@dataclass(frozen=True)
class Target:
    name: str
    check: Callable[[bytes], None]
    """Returns, or raises: then the bytes are a fault of the reader, or of the oracle."""
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]
    longest: int
    """Bytes of an input; what is longer is only slower."""


TARGETS: Final = {
    target.name: target
    for target in (
        Target("bearer_header", bearer_header.check, bearer_header.SEEDS, bearer_header.WORDS, 20_000),
        Target("connection", connection.check, connection.SEEDS, connection.WORDS, 4096),
        Target(
            "introspection_answer",
            introspection_answer.check,
            introspection_answer.SEEDS,
            introspection_answer.WORDS,
            4096,
        ),
        Target("policy_text", policy_text.check, policy_text.SEEDS, policy_text.WORDS, 4096),
        Target("request_path", request_path.check, request_path.SEEDS, request_path.WORDS, 512),
    )
}
