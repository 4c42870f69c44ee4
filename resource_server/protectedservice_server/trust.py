"""Whose certificates another server may show: those of the system, or those of one file, read as it changes.

There is no way to skip the verification.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

LARGEST_FILE: Final = 1024 * 1024
"""Bytes. No bundle of certificates in a ConfigMap is larger."""

_MARK: Final = "-----BEGIN CERTIFICATE-----"

_Version = tuple[int, int, int]  # when it was changed, which file it is, bytes


class TrustError(ValueError):
    """The file cannot be used; `faults` has one sentence a fault, each starting with the file."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class Trust:
    """The certification authorities in force.

    Args:
        file: certificates in PEM; only these are trusted then. None: those of the system.

    Raises:
        TrustError: the file cannot be used now.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._seen: _Version | None = None
        self._context: ssl.SSLContext | None = None
        if file is not None:
            self._seen = _version_or_none(file)
            self._context = _load(file)

    def context(self) -> ssl.SSLContext:
        """For the next connection. The same object as long as the same authorities are trusted.

        The file is looked at each time and read when it is another one. While it cannot be used, what was read before
        stays in force, and a warning says so once.
        """
        if self._context is None:
            self._context = ssl.create_default_context()  # the system's; not before it is needed, they are many
        if self._file is None:
            return self._context
        version = _version_or_none(self._file)
        if version != self._seen:
            self._seen = version
            try:
                self._context = _load(self._file)
            except TrustError as error:
                for fault in error.faults:
                    logger.warning("The certification authorities cannot be read again: %s", fault)
            else:
                logger.info("Read changed certification authorities", extra={"file": str(self._file)})
        return self._context


def _version_or_none(file: Path) -> _Version | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _load(file: Path) -> ssl.SSLContext:
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST_FILE + 1)
    except OSError as error:
        raise TrustError([f"{file}: cannot be read: {error.strerror or type(error).__name__}"]) from None
    if len(content) > LARGEST_FILE:
        raise TrustError([f"{file}: is larger than {LARGEST_FILE} bytes: is it the right file?"])
    text = content.decode("ascii", errors="replace")
    if _MARK not in text:  # an empty text would mean the system's authorities to the ssl module
        raise TrustError([f"{file}: holds no certificate in PEM ({_MARK})"])
    try:
        return ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError):
        raise TrustError([f"{file}: holds a certificate that cannot be read"]) from None
