"""Paths that everybody reads in the same way pass; all others are refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protectedservice_server.request_target import RefusedTarget, check_query, matched_path, split


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"/", "/"),
        (b"/a/b.c/", "/a/b.c/"),
        (b"/a%20b", "/a b"),
        (b"/%C3%A4", "/ä"),
        (b"/a//b", "/a//b"),
        (b"/...", "/..."),
        (b"/.well-known/x", "/.well-known/x"),
        (b"/a;v=1,2/b:c@d", "/a;v=1,2/b:c@d"),
        (b"/%41", "/A"),
        (b"/[x]|~", "/[x]|~"),
    ],
)
def test_a_plain_path_is_matched_decoded_once(raw: bytes, expected: str) -> None:
    assert matched_path(raw) == expected


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "absolute path"),
        (b"*", "absolute path"),
        (b"a", "absolute path"),
        (b"/a%2fb", "encoded slash"),
        (b"/a%2Fb", "encoded slash"),
        (b"/.", "dot segment"),
        (b"/a/../b", "dot segment"),
        (b"/a/..", "dot segment"),
        (b"/a/%2e%2E/b", "dot segment"),
        (b"/a/.%2e/b", "dot segment"),
        (b"/a/..;x/b", "dot segment"),
        (b"/a%00", "control character"),
        (b"/a%0a", "control character"),
        (b"/a%7f", "control character"),
        (b"/a\\b", "backslash"),
        (b"/a%5cb", "encoded backslash"),
        (b"/a%252fb", "encoded twice"),
        (b"/100%25", "encoded twice"),
        (b"/a%2", "incomplete"),
        (b"/a%zz", "incomplete"),
        (b"/a%ff", "not UTF-8"),
        (b"/%c0%af", "not UTF-8"),
        (b"/a b", "printable ASCII"),
        (b"/\xc3\xa4", "printable ASCII"),
        (b"/a?b", "printable ASCII"),
        (b"/a#b", "printable ASCII"),
        (b'/a"b', "printable ASCII"),
        (b"/<a>", "printable ASCII"),
    ],
)
def test_a_path_that_could_be_read_in_two_ways_is_refused(raw: bytes, why: str) -> None:
    with pytest.raises(RefusedTarget, match=why):
        matched_path(raw)


@given(st.binary(max_size=40).map(lambda tail: b"/" + tail))
def test_whatever_passes_has_no_dot_segments_and_as_many_slashes_as_were_sent(raw: bytes) -> None:
    try:
        path = matched_path(raw)
    except RefusedTarget:
        return

    assert path.count("/") == raw.count(b"/")
    assert not {".", ".."} & set(path.split("/"))
    assert "\\" not in path


def test_a_query_passes_as_it_is_unless_it_is_not_ascii() -> None:
    check_query(b"a=%2F..&b=[]|\\%00%252f")

    for bad in (b"a=\xc3", b"a=\x00", b"a b", b"a#b"):
        with pytest.raises(RefusedTarget):
            check_query(bad)


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (b"/a?b", (b"/a", b"?b")),
        (b"http://svc/a?b", (b"/a", b"?b")),
        (b"HTTPS://svc.example:8443", (b"/", b"")),
        (b"http://[::1]:80?b", (b"/", b"?b")),
        (b"http://127.0.0.1:/a", (b"/a", b"")),
    ],
)
def test_an_absolute_target_stands_for_its_path(target: bytes, parts: tuple[bytes, bytes]) -> None:
    assert split(target) == parts


@pytest.mark.parametrize(
    "target",
    [
        b"http://[",
        b"http://[::1/a",
        b"http://a]/b",
        b"http://a[::1]/b",
        b"http://svc:80a/b",
        b"http://a:1:2/b",
        b"http:///a",
    ],
)
def test_an_absolute_target_without_a_plain_authority_is_refused(target: bytes) -> None:
    with pytest.raises(RefusedTarget):
        split(target)
