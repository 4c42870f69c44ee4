"""Believing a pod that shows the certificate of spec.workload.tls.secretName, and nobody else. No I/O.

Pods are called by address, which stands in no certificate, and the operator knows no authority of the tenant's. But it
knows the certificate: whoever proves to hold its key is a pod that mounts the Secret.
"""

from __future__ import annotations

import base64
import binascii
import re
import ssl
from collections.abc import Mapping
from typing import Any, Final

KEY: Final = "tls.crt"  # of a Secret of type kubernetes.io/tls

_FIRST: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


class Unusable(ValueError):
    """The Secret has no certificate. The message says what is wrong, and holds nothing of its content."""


def pinned(secret: Mapping[str, Any] | None) -> ssl.SSLContext:
    """TLS that believes the first certificate under tls.crt: the server's own, not those that follow it.

    Raises:
        Unusable: there is none.
    """
    if secret is None:
        raise Unusable("does not exist")
    try:
        text = base64.b64decode((secret.get("data") or {}).get(KEY, "")).decode("ascii", errors="replace")
    except binascii.Error:
        text = ""
    found = _FIRST.search(text)
    if found is None:
        raise Unusable(f"holds no certificate in PEM under {KEY}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the certificate itself is what is known
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # it need not be an authority's
    try:
        context.load_verify_locations(cadata=found[0])
    except (ssl.SSLError, ValueError):
        raise Unusable(f"holds a certificate under {KEY} that cannot be read") from None
    return context
