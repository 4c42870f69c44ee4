"""How the operator says who it is, and how it reads a refusal."""

from __future__ import annotations

import base64

import pytest

from protectedservice_operator.errors import FOREIGN_TEXT_LIMIT
from protectedservice_operator.registration.oauth import basic, bearer, oauth_error

from .told import assert_untold, told


@pytest.mark.parametrize(
    ("client_id", "secret", "pair"),
    [
        pytest.param("client", "secret", "client:secret", id="plain"),
        pytest.param("a:b", "c:d", "a%3Ab:c%3Ad", id="colons are not taken for the separator"),
        pytest.param("id", "a+b%2Fc d", "id:a%2Bb%252Fc+d", id="form-urlencoded first, RFC 6749 2.3.1"),
        pytest.param("id", "~._-", "id:~._-", id="unreserved signs stay, as Ory Hydra's secrets have them"),
    ],
)
def test_basic_credentials(client_id: str, secret: str, pair: str) -> None:
    assert basic(client_id, secret) == "Basic " + base64.b64encode(pair.encode()).decode()


@pytest.mark.parametrize("token", ["", "tok en", "token\n", "token\r\nX-Evil: 1", "tökén", '"token"'])
def test_a_token_that_no_header_can_hold_is_refused_unquoted(token: str) -> None:
    with pytest.raises(ValueError, match="RFC 6750") as caught:
        bearer(token)

    if token:
        assert_untold([token], told(caught.value))


def test_a_good_token_is_sent_as_it_is() -> None:
    assert bearer("abc-._~+/==") == "Bearer abc-._~+/=="


@pytest.mark.parametrize(
    ("body", "code", "description"),
    [
        pytest.param(None, None, None, id="no JSON"),
        pytest.param({}, None, None, id="no error in it"),
        pytest.param({"error": "invalid_scope"}, "invalid_scope", None, id="code alone"),
        pytest.param({"error": "e", "error_description": "why\nso"}, "e", "why so", id="made printable"),
        pytest.param({"error": 5, "error_description": {}}, None, None, id="other types"),
        pytest.param({"error": "x" * 65}, None, None, id="a code without end"),
        pytest.param({"error": "two words"}, None, None, id="no code"),
        pytest.param({"error": "saw-SECRET-a"}, None, None, id="the secret in the code"),
        pytest.param(
            {"error": "e", "error_description": "got SECRET-a, SECRET-a"}, "e", "got [removed], [removed]", id="echoed"
        ),
        pytest.param(
            {"error": "e", "error_description": "got S%2Fb"}, "e", "got [removed]", id="echoed as it was sent"
        ),
        pytest.param({"error": "e", "error_description": "got S/b"}, "e", "got [removed]", id="echoed as it is"),
    ],
)
def test_reading_a_refusal(body: dict[str, object] | None, code: str | None, description: str | None) -> None:
    error = oauth_error(body, "SECRET-a", "S/b", None, "")

    assert (error.code, error.description) == (code, description)


def test_a_long_description_is_cut() -> None:
    error = oauth_error({"error": "e", "error_description": "d" * 10_000})

    assert error.description is not None
    assert len(error.description) == FOREIGN_TEXT_LIMIT
