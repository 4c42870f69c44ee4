"""The metadata a client may register (RFC 7591 section 2), checked before anything is stored."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from oauth2_provider.oauth2_validators import is_valid_resource_uri

from .errors import invalid_metadata

LONGEST_NAME: Final = 255  # characters, as the toolkit's column
MOST_AUDIENCES: Final = 32
LONGEST_AUDIENCE: Final = 2048  # characters
METHODS: Final = ("client_secret_basic", "client_secret_post")


@dataclass(frozen=True)
class ClientMetadata:
    """What a client asks to be. `audience` as Ory Hydra has it."""

    name: str
    scope: str
    audience: list[str]
    token_endpoint_auth_method: str

    @classmethod
    def parse(cls, document: dict[str, Any], offered: Collection[str]) -> ClientMetadata:
        """Check one document. Raises Refused(400, invalid_client_metadata) naming the member.

        `scope` absent means no scope at all: a client gets what it names, never what somebody forgot.
        """
        name = document.get("client_name", "")
        if not isinstance(name, str) or len(name) > LONGEST_NAME or not name.isprintable():
            raise invalid_metadata(f"client_name must be a string of at most {LONGEST_NAME} printable characters")
        if document.get("grant_types") != ["client_credentials"]:  # absent means authorization_code, RFC 7591
            raise invalid_metadata('grant_types must be ["client_credentials"]: this server offers nothing else')
        for member in ("response_types", "redirect_uris"):
            if document.get(member, []) != []:
                raise invalid_metadata(f"{member} must be empty: client_credentials has none")
        method = document.get("token_endpoint_auth_method", METHODS[0])
        if method not in METHODS:
            raise invalid_metadata(f"token_endpoint_auth_method must be one of {', '.join(METHODS)}")
        return cls(name, _scope(document.get("scope", ""), offered), _audience(document.get("audience", [])), method)


def parse_document(body: bytes) -> dict[str, Any]:
    """The request's JSON object. Raises Refused(400, invalid_client_metadata)."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise invalid_metadata("the request's body must be JSON") from None
    if not isinstance(document, dict):
        raise invalid_metadata("the request's body must be a JSON object")
    return document


def _scope(value: object, offered: Collection[str]) -> str:
    if not isinstance(value, str):
        raise invalid_metadata("scope must be a string of names separated by blanks")
    names = list(dict.fromkeys(value.split()))
    unknown = [name for name in names if name not in offered]
    if unknown:
        raise invalid_metadata(f"scope is not offered by this server: {' '.join(unknown)}")
    return " ".join(names)


def _audience(value: object) -> list[str]:
    if not isinstance(value, list) or len(value) > MOST_AUDIENCES:
        raise invalid_metadata(f"audience must be a list of at most {MOST_AUDIENCES} absolute URIs")
    for uri in value:
        if (
            not isinstance(uri, str)
            or not uri.isascii()
            or len(uri) > LONGEST_AUDIENCE
            or not is_valid_resource_uri(uri)
        ):
            raise invalid_metadata("audience must hold absolute URIs with scheme and host, without fragment (RFC 8707)")
    return list(dict.fromkeys(value))
