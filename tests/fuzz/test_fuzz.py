"""The oracles of the fuzzer: nothing known breaks them, and a planted fault in a reader does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
import pytest

from protectedservice_server import bearer, introspection_response, policy_file, request_target
from protectedservice_server.decision import Facts, Reason
from protectedservice_server.http1 import framing, reader
from protectedservice_server.question import Unavailable
from protectedservice_server.request_target import RefusedTarget

from . import campaign, reference
from .mutation import mutations
from .targets import TARGETS, Target

EACH = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


@EACH
def test_every_seed_keeps_the_promises(target: Target) -> None:
    for seed in target.seeds:
        target.check(seed)


@EACH
def test_what_chance_makes_of_the_seeds_keeps_the_promises(target: Target) -> None:
    for data in mutations(target, 400, seed=20261127):
        target.check(data)


def _any_word(values: Sequence[bytes]) -> Any:
    return values[0].partition(b" ")[2].decode("latin-1") if len(values) == 1 else Reason.MISSING


def _truthy(body: bytes) -> Facts:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Unavailable("not_json") from None
    return Facts(active=bool(document))


def _trusting(text: str, *, embedded: bool = False) -> Any:
    return {"text": text, "embedded": embedded}


def _decoding_twice(raw: bytes) -> str:
    once = unquote_to_bytes(raw)
    try:
        return unquote_to_bytes(once).decode()
    except UnicodeDecodeError:
        raise RefusedTarget("not UTF-8") from None


def _lenient_framing(version: str, hosts: Sequence[bytes], lengths: Sequence[bytes], codings: Sequence[bytes]) -> Any:
    return None if codings else int(lengths[0]) if lengths else 0


def _extensions(self: framing.Cutter, data: bytes, start: int) -> int:
    """Chunk extensions pass, which another reader may take for something else."""
    end = data.find(b"\n", start) + 1
    line = data[start:end].split(b";")[0].strip()
    size = int(line or b"0", 16)
    if not size:
        self._at, self._tail = framing._At.TRAILERS, b"\r\n"
        return end
    self._at, self._left = framing._At.CHUNK_DATA, size + 2
    return self._counted(data, end)


@pytest.mark.parametrize(
    ("target", "place", "name", "fault"),
    [
        ("bearer_header", bearer, "token_of", _any_word),
        ("introspection_answer", introspection_response, "facts_of", _truthy),
        ("policy_text", policy_file, "parse", _trusting),
        ("request_path", request_target, "matched_path", _decoding_twice),
        ("connection", reader, "check_framing", _lenient_framing),
        ("connection", framing.Cutter, "_chunk_line", _extensions),
    ],
)
def test_a_fault_planted_in_a_reader_is_found(
    monkeypatch: pytest.MonkeyPatch, target: str, place: Any, name: str, fault: Callable[..., Any]
) -> None:
    monkeypatch.setattr(place, name, fault)

    with pytest.raises(AssertionError):
        _check_many(TARGETS[target])


def _check_many(target: Target) -> None:
    for data in (*target.seeds, *mutations(target, 400, seed=1)):
        target.check(data)


def test_the_same_seed_makes_the_same_inputs() -> None:
    target = TARGETS["connection"]

    assert list(mutations(target, 20, seed=1)) == list(mutations(target, 20, seed=1))
    assert list(mutations(target, 20, seed=1)) != list(mutations(target, 20, seed=2))


def test_the_reference_reads_requests_one_behind_another() -> None:
    first = b"POST /a HTTP/1.1\r\nHost: svc\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"
    second = b"PUT /b HTTP/1.1\r\nHost: svc\r\nContent-Length: 2\r\nConnection: close\r\n\r\nde"

    found = reference.read(first + second + first)

    assert [(request.target, request.body, request.complete, request.last) for request in found] == [
        (b"/a", b"abc", True, False),
        (b"/b", b"de", True, True),
    ]


@pytest.mark.parametrize(
    ("code", "output", "executions", "fault", "failed"),
    [
        (0, "Done 7\nstat::number_of_executed_units: 7\n", 7, None, False),
        (77, "x\nTest unit written to /f/crash-1\nstat::number_of_executed_units: 9\n", 9, Path("/f/crash-1"), True),
        (1, "No module named 'atheris'", 0, None, True),
        (0, "", 0, None, True),
    ],
)
def test_a_run_counts_only_if_something_was_executed_and_nothing_failed(
    code: int, output: str, executions: int, fault: Path | None, failed: bool
) -> None:
    found = campaign.outcome(code, output)

    assert (found.executions, found.fault, found.failed) == (executions, fault, failed)
