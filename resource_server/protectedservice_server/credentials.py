"""The server's own client id and secret, out of the files `client_id` and `client_secret` of one folder."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote_plus

LARGEST_FILE: Final = 4096
"""Bytes. Anything longer is the wrong file."""

_VSCHAR: Final = re.compile(rb"[\x20-\x7e]+")  # RFC 6749 appendix A.1 and A.2


class CredentialsError(ValueError):
    """The folder cannot be used; `faults` has one sentence a fault, each starting with the file. Never a content."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Client id and secret. Neither is shown by repr."""

    client_id: str = field(repr=False)
    client_secret: str = field(repr=False)

    def basic(self) -> str:
        """The value of `Authorization`: each part form-urlencoded first (RFC 6749 section 2.3.1)."""
        pair = f"{quote_plus(self.client_id)}:{quote_plus(self.client_secret)}"
        return "Basic " + base64.b64encode(pair.encode("ascii")).decode("ascii")


def read(folder: Path) -> Credentials:
    """The credentials in `folder`; one line ending after each is ignored.

    Raises:
        CredentialsError: with every fault of both files.
    """
    # A mounted Secret changes by one swap of the link `..data`; following it once keeps id and secret of one version.
    data = folder / "..data"
    place = data.resolve() if data.is_symlink() else folder
    faults: list[str] = []
    values = [_read(folder / name, place / name, faults) for name in ("client_id", "client_secret")]
    if faults:
        raise CredentialsError(faults)
    return Credentials(*values)


def _read(name: Path, path: Path, faults: list[str]) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        faults.append(f"{name}: cannot be read: {error.strerror or type(error).__name__}")
        return ""
    value = content.removesuffix(b"\n").removesuffix(b"\r")
    if len(content) > LARGEST_FILE:
        faults.append(f"{name}: is larger than {LARGEST_FILE} bytes: is it the right file?")
    elif not value:
        faults.append(f"{name}: is empty")
    elif not _VSCHAR.fullmatch(value):
        faults.append(f"{name}: must be one line of printable ASCII characters (RFC 6749 appendix A)")
    else:
        return value.decode("ascii")
    return ""
