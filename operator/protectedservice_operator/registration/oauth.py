"""What every OAuth endpoint has in common: how we say who we are, and how it says no."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote_plus

from ..errors import foreign_text

_BEARER: Final = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750 section 2.1, b64token
_CODE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,64}")  # RFC 6749 section 5.2, without blanks
_VISIBLE: Final = re.compile(r"[\x20-\x7e]+")  # RFC 6749 appendix A: what a client id and a secret consist of


def is_bearer_token(value: object) -> bool:
    """Whether this can stand in an Authorization header (RFC 6750 section 2.1)."""
    return isinstance(value, str) and _BEARER.fullmatch(value) is not None


def is_visible(value: object) -> bool:
    """Whether this is a non-empty string of RFC 6749's VSCHAR, as client ids and secrets are."""
    return isinstance(value, str) and _VISIBLE.fullmatch(value) is not None


def bearer(token: str) -> str:
    """The Authorization header's value. Raises ValueError, without the token in it, when it cannot stand there."""
    if not is_bearer_token(token):
        raise ValueError("the token has characters that no bearer token has (RFC 6750 section 2.1)")
    return f"Bearer {token}"


def basic(client_id: str, client_secret: str) -> str:
    """The Authorization header's value for a client.

    Both parts are form-urlencoded first (RFC 6749 section 2.3.1): some servers answer 401 to anything else once a
    secret holds a `+` or a `%`.
    """
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


@dataclass(frozen=True)
class OAuthError:
    """The error of an answer: RFC 6749 section 5.2, RFC 7591 section 3.2.2. Both parts are fit for a condition."""

    code: str | None
    description: str | None

    def __str__(self) -> str:
        code = self.code or "no OAuth error code"
        return f"{code} ({self.description})" if self.description else code


def oauth_error(body: Mapping[str, Any] | None, *secrets: str | None) -> OAuthError:
    """The error in a 4xx body. `secrets` are cut out: some servers repeat what they were sent."""
    if body is None:
        return OAuthError(None, None)
    code, description = body.get("error"), body.get("error_description")
    if not (isinstance(code, str) and _CODE.fullmatch(code)) or any(s in code for s in secrets if s):
        code = None
    if isinstance(description, str) and description:
        for secret in secrets:
            if secret:
                description = description.replace(secret, "[removed]")
                description = description.replace(quote_plus(secret), "[removed]")
        return OAuthError(code, foreign_text(description))
    return OAuthError(code, None)
