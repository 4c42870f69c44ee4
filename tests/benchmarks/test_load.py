from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks.load import Load, LoadError, parse

OUTPUT = """Running 1s test @ http://127.0.0.1:8001/protected
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   612.14us  301.02us  11.20ms   93.27%
    Req/Sec    98.02k     4.10k  104.20k    70.00%
  Latency Distribution
     50%  574.00us
     75%  640.00us
     90%    0.85ms
     99%    1.50s
  98123 requests in 1.01s, 24.60MB read
Requests/sec:  97151.48
Transfer/sec:     24.36MB
"""


def with_lines(*lines: str) -> str:
    return OUTPUT.replace("Requests/sec:", "\n".join([*lines, "Requests/sec:"]))


def test_a_clean_run_gives_requests_rate_and_percentiles_in_milliseconds() -> None:
    found = parse(OUTPUT)
    assert (found.requests, found.rate) == (98123, 97151.48)
    assert found.p50 == pytest.approx(0.574)
    assert found.p99 == pytest.approx(1500.0)
    assert found.faults() == ()


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        pytest.param("  Non-2xx or 3xx responses: 3", "3 of 98123 answers were not 2xx", id="one answer refused"),
        pytest.param(
            "  Socket errors: connect 0, read 2, write 1, timeout 0", "3 connections failed", id="connections broken"
        ),
    ],
)
def test_a_slice_with_wrong_answers_says_so(line: str, fault: str) -> None:
    assert parse(with_lines(line)).faults() == (fault,)


def test_late_answers_are_told_but_are_not_wrong_ones() -> None:
    found = parse(with_lines("  Socket errors: connect 0, read 0, write 0, timeout 7"))
    assert (found.timeouts, found.faults()) == (7, ())


def test_a_slice_without_answers_is_a_fault_and_has_no_percentiles() -> None:
    found = parse("  0 requests in 1.00s, 0.00B read\nRequests/sec:      0.00\n")
    assert math.isnan(found.p99)
    assert math.isnan(found.cpu_microseconds)
    assert found.faults() == ("nothing was answered",)


@pytest.mark.parametrize("missing", ["requests in", "Requests/sec", "50%", "99%"])
def test_output_without_a_figure_is_an_error_never_a_guess(missing: str) -> None:
    with pytest.raises(LoadError):
        parse("\n".join(line for line in OUTPUT.splitlines() if missing not in line))


def test_a_script_is_told_how_many_tokens_behind_the_url() -> None:
    command = Load({}, Path("tokens.lua"), 10_000).command("http://127.0.0.1:1/protected", 3)
    assert command[-5:] == ["-s", "tokens.lua", "http://127.0.0.1:1/protected", "--", "10000"]
    assert "-d3s" in command


def test_headers_are_sent_with_each_request() -> None:
    command = Load({"Accept": "*/*", "Cookie": "a=b"}).command("http://127.0.0.1:1/", 1)
    assert [command[place + 1] for place, word in enumerate(command) if word == "-H"] == ["Accept: */*", "Cookie: a=b"]
