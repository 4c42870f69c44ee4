"""Tags and client names."""

from __future__ import annotations

import uuid

import pytest

from protectedservice_operator.registration.names import CLIENT_NAME_LIMIT, client_name, tag

UID = str(uuid.UUID(int=1))


def test_the_tag_names_cluster_object_and_attempt() -> None:
    assert tag("c1", "shop", "orders", UID, "0a1b2c3d") == f"c1/shop/orders/{UID}/0a1b2c3d"


@pytest.mark.parametrize(
    ("display", "expected"),
    [
        pytest.param(None, "t/a/g", id="no display name: the tag alone"),
        pytest.param("  ", "t/a/g", id="a blank display name counts as none"),
        pytest.param("Orders", "Orders [t/a/g]", id="display name first"),
    ],
)
def test_client_name(display: str | None, expected: str) -> None:
    assert client_name(display, "t/a/g") == expected


@pytest.mark.parametrize("length", [1, 54, 55, 56, 300])
def test_a_client_name_fits_and_keeps_the_whole_tag(length: int) -> None:
    longest = tag(UID, "n" * 63, "m" * 52, UID, "0a1b2c3d")

    name = client_name("d" * length, longest)

    assert len(name) <= CLIENT_NAME_LIMIT
    assert longest in name


@pytest.mark.parametrize("size", [CLIENT_NAME_LIMIT - 3, CLIENT_NAME_LIMIT - 2, CLIENT_NAME_LIMIT])
def test_where_only_the_tag_fits_the_display_name_goes(size: int) -> None:
    assert client_name("Orders", "t" * size) == "t" * size


def test_a_tag_that_does_not_fit_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="PROTECTEDSERVICE_CLUSTER_ID"):
        client_name(None, "t" * (CLIENT_NAME_LIMIT + 1))
