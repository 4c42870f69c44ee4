"""The administrator's credential for registering clients, out of the Secret that the AuthorizationServer names."""

from __future__ import annotations

import hashlib
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

from .oauth import basic, bearer


@dataclass(frozen=True)
class Credential:
    """What the Secret holds; blanks around a value, as a file's last newline, are cut off. `repr` shows nothing."""

    token: str | None = field(default=None, repr=False)
    client_id: str | None = field(default=None, repr=False)
    client_secret: str | None = field(default=None, repr=False)
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, secret: Mapping[str, Any] | None) -> Credential:
        """From a Secret as the Kubernetes API gives it; other keys are ignored."""
        data = (secret or {}).get("data") or {}
        values = {
            name: b64decode(data[name]).decode(errors="replace").strip() or None
            for name in cls.__dataclass_fields__
            if name in data
        }
        return cls(**values)

    @property
    def client(self) -> tuple[str, str] | None:
        """`client_id` and `client_secret`, if both are there."""
        return (self.client_id, self.client_secret) if self.client_id and self.client_secret else None

    @property
    def user(self) -> tuple[str, str] | None:
        """`username` and `password`, if both are there."""
        return (self.username, self.password) if self.username and self.password else None

    @property
    def is_complete(self) -> bool:
        """Whether there is anything to show."""
        return self.token is not None or self.client is not None or self.user is not None

    @property
    def authorization(self) -> str | None:
        """The Authorization header that shows it as it is; None when there is nothing to show.

        Raises ValueError, without the token in it, when the token cannot stand in a header.
        """
        if self.token is not None:
            return bearer(self.token)
        pair = self.client or self.user
        return basic(*pair) if pair is not None else None

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must stand in no message."""
        return tuple(value for value in (self.token, self.client_secret, self.password) if value)

    def digest(self) -> str:
        """Equal iff nothing changed; hexadecimal."""
        return hashlib.sha256(repr(astuple(self)).encode()).hexdigest()
