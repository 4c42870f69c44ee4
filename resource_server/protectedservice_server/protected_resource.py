"""What a caller who knows nothing yet can learn of this service: Protected Resource Metadata (RFC 9728). Pure.

It is told only where the policy names the resource. It is never made up from the request's Host: who chooses that
header would choose at which authorization server others ask for tokens.
"""

from __future__ import annotations

import json
from typing import Final
from urllib.parse import urlsplit

from .bearer import JSON_HEADERS, Answer, error
from .policy import Policy

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"


def metadata_path(resource: str) -> str:
    """The path of the metadata: well-known first, the resource's own path after it (RFC 9728 section 3.1)."""
    path = urlsplit(resource).path
    return WELL_KNOWN + ("" if path == "/" else path)


def metadata_url(resource: str) -> str:
    """Where callers find the metadata of `resource`, an https URL without query and fragment."""
    url = urlsplit(resource)
    return f"{url.scheme}://{url.netloc}{metadata_path(resource)}"


class ProtectedResource:
    """Answers everything at and below the well-known path; nothing of that is ever forwarded. Built once per policy."""

    def __init__(self, policy: Policy) -> None:
        self._path: str | None = None
        self._metadata = Answer(200, JSON_HEADERS, b"")
        if policy.resource is None:
            return
        self._path = metadata_path(policy.resource)
        issuer = policy.authorization_server.issuer
        document: dict[str, str | list[str]] = {"resource": policy.resource}
        if issuer is not None:
            document["authorization_servers"] = [issuer]
        document["scopes_supported"] = list(policy.scopes())
        document["bearer_methods_supported"] = ["header"]
        self._metadata = Answer(200, JSON_HEADERS, json.dumps(document).encode())

    def answer(self, method: str, path: str) -> Answer | None:
        """The whole answer to a request for this path; None: the path is another one."""
        if not path.startswith(WELL_KNOWN) or path[len(WELL_KNOWN) : len(WELL_KNOWN) + 1] not in ("", "/"):
            return None
        if path != self._path:
            return error(404, "not_found", "There is no metadata of a protected resource here")
        if method not in ("GET", "HEAD"):
            return error(405, "method_not_allowed", "Use GET", (b"allow", b"GET, HEAD"))
        return self._metadata
