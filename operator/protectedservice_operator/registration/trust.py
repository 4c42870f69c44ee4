"""Certification authorities that an AuthorizationServer names: what is taken, and the TLS that follows. No I/O.

There is no way to skip the verification.
"""

from __future__ import annotations

import re
import ssl
from typing import Final

LARGEST: Final = 512 * 1024  # characters: it is copied into a ConfigMap of each service, which holds 1 MiB
_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


def certificates(text: str) -> str:
    """The certificates in `text` and nothing else of it, one after another, in PEM.

    What is taken goes to every tenant, so that a text with a private key is refused as a whole.

    Raises:
        ValueError: says what is wrong with the text, without quoting it.
    """
    if "PRIVATE KEY-----" in text:
        raise ValueError("holds a private key: give the certificates alone")
    if len(text) > LARGEST:
        raise ValueError(f"is larger than {LARGEST // 1024} KiB")
    found = [re.sub(r"\s*\n\s*", "\n", block) for block in _CERTIFICATE.findall(text)]
    if not found:
        raise ValueError("holds no certificate in PEM (-----BEGIN CERTIFICATE-----)")
    bundle = "\n".join(found) + "\n"
    try:
        context(bundle)
    except (ssl.SSLError, ValueError):
        raise ValueError("holds a certificate that cannot be read") from None
    return bundle


def context(bundle: str) -> ssl.SSLContext:
    """TLS that believes these certificates alone, and checks host names."""
    return ssl.create_default_context(cadata=bundle)
