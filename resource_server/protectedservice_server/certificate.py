"""The service's own certificate, out of the files `tls.crt` and `tls.key` of one folder, read again as they change."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

LOOK_SECONDS: Final = 5.0
"""How often the folder is looked at."""

_Version = tuple[tuple[int, int, int], ...]  # of both files: when it was changed, which one it is, bytes


class CertificateError(ValueError):
    """The folder cannot be used; `faults` has one sentence a fault, each starting with the file. Never a content."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


class ServiceCertificate:
    """The certificate in force. New handshakes see a changed one; connections that are open keep theirs.

    Raises:
        CertificateError: on construction, when the folder cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._looked_at = 0.0
        self._seen = _version(_files(folder))
        self.context = _loaded(folder)

    def sweep(self, now: float) -> None:
        """Read the files again if they are others; while those cannot be used, what was read before stays."""
        if now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        version = _version(_files(self._folder))
        if version == self._seen:
            return
        self._seen = version
        try:
            _loaded(self._folder)  # apart first: a context that has failed to load a pair is of no use any more
            _load(self.context, self._folder)
        except CertificateError as error:
            for fault in error.faults:
                logger.warning("The certificate cannot be read again: %s", fault)
        else:
            logger.info("Read a changed certificate", extra={"folder": str(self._folder)})


def _files(folder: Path) -> tuple[Path, Path]:
    # A mounted Secret changes by one swap of the link `..data`; following it once keeps both files of one version.
    data = folder / "..data"
    place = data.resolve() if data.is_symlink() else folder
    return place / "tls.crt", place / "tls.key"


def _version(files: tuple[Path, Path]) -> _Version:
    found = []
    for file in files:
        try:
            state = file.stat()
        except OSError:
            continue
        found.append((state.st_mtime_ns, state.st_ino, state.st_size))
    return tuple(found)


def _loaded(folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load(context, folder)
    return context


def _load(context: ssl.SSLContext, folder: Path) -> None:
    certificate, key = _files(folder)
    faults: list[str] = []
    for file in (certificate, key):
        try:
            with file.open("rb"):
                pass
        except OSError as error:
            faults.append(f"{folder / file.name}: cannot be read: {error.strerror or type(error).__name__}")
    if faults:
        raise CertificateError(faults)
    try:
        # A password would be asked for on the terminal; an empty one makes an encrypted key a fault instead.
        context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError, OSError):
        raise CertificateError(
            [f"{folder / 'tls.crt'}: is no certificate in PEM, or tls.key is not its unencrypted key"]
        ) from None
