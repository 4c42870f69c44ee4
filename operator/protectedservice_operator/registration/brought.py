"""A client's id and secret that somebody else brings, out of the Secret that a service names."""

from __future__ import annotations

import hashlib
import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Any, Final

from ..tenancy import OWN_PREFIX
from .driver import Registration
from .ledger import CHOSEN_CLIENT_ID, SECOND_PREFIX

# What can stand in a URL's path, a header and a tag of any server; never `.` or `..`.
_CLIENT_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~:@-]{0,127}")
_CLIENT_SECRET: Final = re.compile(r"[\x21-\x7E]{1,512}")


class UnusableCredentials(Exception):
    """They cannot be used: why, and what to do, without a value in it."""


def registration_of(
    secret: Mapping[str, Any] | None, place: str, id_key: str, secret_key: str, *, ours: bool = False
) -> Registration:
    """The client in a Secret as the Kubernetes API gives it. Raises UnusableCredentials.

    Args:
        place: how messages call the Secret.
        ours: whether the id may be one that the operator chose once.
    """
    if secret is None:
        raise UnusableCredentials(f"{place} does not exist; create it with keys {id_key} and {secret_key}")
    data = secret.get("data") or {}
    if missing := [key for key in (id_key, secret_key) if key not in data]:
        raise UnusableCredentials(f"{place} has no key {', nor '.join(missing)}; add the client's id and secret")
    client_id, client_secret = (b64decode(data[key]).decode(errors="replace") for key in (id_key, secret_key))
    if not _CLIENT_ID.fullmatch(client_id):
        raise UnusableCredentials(
            f"{place}: key {id_key} must be 1 to 128 letters, digits, or . _ ~ : @ -, the first a letter or a digit, "
            "without a line break at its end; correct it"
        )
    if client_id.startswith(OWN_PREFIX) and not ours:
        raise UnusableCredentials(
            f"{place}: key {id_key} begins with {OWN_PREFIX}, as ids that the operator chooses do; bring another one"
        )
    if not _CLIENT_SECRET.fullmatch(client_secret):
        raise UnusableCredentials(
            f"{place}: key {secret_key} must be 1 to 512 printable ASCII characters without blanks, and without a line "
            "break at its end; correct it"
        )
    return Registration(client_id, client_secret)


def digests(registration: Registration) -> dict[str, str]:
    """Of its id and secret, as the cache keeps those of the ledger."""
    values = {"client_id": registration.client_id, "client_secret": registration.client_secret}
    return {name: hashlib.sha256(value.encode()).hexdigest() for name, value in values.items()}


def id_digest(registration: Registration) -> str:
    """Of its id alone."""
    return digests(registration)["client_id"]


def names(ledger_digests: Mapping[str, str], digest: str) -> bool:
    """Whether a ledger entry of these digests holds a client of this id, or is about to make it."""
    held = ("client_id", f"{SECOND_PREFIX}client_id", CHOSEN_CLIENT_ID)
    return digest in [ledger_digests.get(name) for name in held]
