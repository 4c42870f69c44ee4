"""Where an authorization server answers: what its metadata says, and what the administrator says instead.

RFC 8414 first, then OpenID Connect Discovery. The metadata is believed only as far as it speaks for the issuer:
its `issuer` must be the configured one, and endpoints elsewhere count only when the administrator lists them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from .. import reasons
from ..authorization_server import Endpoints
from ..errors import AdministratorMustAct, ServerUnavailable, foreign_text
from .remote import Answer, Remote, origin

# Field of spec.endpoints -> member of the metadata (RFC 8414 section 2)
MEMBERS: Final = {
    "token": "token_endpoint",
    "introspection": "introspection_endpoint",
    "revocation": "revocation_endpoint",
    "registration": "registration_endpoint",
    "jwks": "jwks_uri",
}
REQUIRED: Final = ("token", "introspection", "registration")


async def discover(
    remote: Remote,
    issuer: str | None,
    overrides: Endpoints,
    *,
    allow_insecure_http: bool,
    required: Sequence[str] = REQUIRED,
) -> Endpoints:
    """The endpoints to use. `overrides` win one by one; without an issuer they are all there is.

    `required`: those that the operator cannot do without at this kind of server.

    Raises:
        AdministratorMustAct: a URL is unusable (InvalidEndpoint), plain http (InsecureEndpoint), the metadata is
            somebody else's (IssuerMismatch), or an endpoint that the operator needs is known from neither side
            (EndpointMissing). The message names the field.
        ServerUnavailable: the metadata could not be fetched.
    """
    given = {name: value for name in MEMBERS if (value := getattr(overrides, name))}
    for field, url in [("spec.issuer", issuer), *((f"spec.endpoints.{name}", url) for name, url in given.items())]:
        if url is not None:
            check_url(remote, field, url, allow_insecure_http=allow_insecure_http)
    if issuer is not None and _has_query(issuer):
        raise AdministratorMustAct(
            reasons.INVALID_ENDPOINT, f"{remote.name}: spec.issuer must have no query (RFC 8414 section 2)"
        )

    found: dict[str, str] = {}
    remarks: dict[str, str] = {}
    if issuer is not None:
        found, remarks = await _metadata(remote, issuer)
    used = found | given
    missing = [name for name in required if name not in used]
    if missing:
        raise AdministratorMustAct(
            reasons.ENDPOINT_MISSING,
            f"{remote.name}: "
            + "; ".join(f"spec.endpoints.{name} must be set: {_why(name, issuer, remarks)}" for name in missing),
        )
    return Endpoints(issuer=issuer, **used)


def well_known(issuer: str) -> tuple[str, str]:
    """Where the metadata of an issuer stands.

    RFC 8414 section 3.1 (between host and path), then OpenID Connect Discovery section 4.1 (after the path).
    """
    parts = urlsplit(issuer)
    path = parts.path.rstrip("/")
    base = f"{parts.scheme}://{parts.netloc}"
    return f"{base}/.well-known/oauth-authorization-server{path}", f"{base}{path}/.well-known/openid-configuration"


async def _metadata(remote: Remote, issuer: str) -> tuple[dict[str, str], dict[str, str]]:
    """The endpoints that count, and for those that do not, why not."""
    urls = well_known(issuer)
    for url in urls:
        answer = await remote.request("discover", "GET", url, json_due=False)
        if answer.status != 200 or answer.json is None:
            _refuse_broken(remote, answer)
            continue
        named = answer.json.get("issuer")
        if named != issuer:
            shown = foreign_text(named) if isinstance(named, str) else "no issuer"
            raise AdministratorMustAct(
                reasons.ISSUER_MISMATCH,
                f"{remote.name}: the metadata at {url} is for {shown}, not for spec.issuer {issuer}: they must be "
                "equal to the last slash; correct spec.issuer, or leave it out and list all spec.endpoints",
            )
        found: dict[str, str] = {}
        remarks: dict[str, str] = {}
        for name, member in MEMBERS.items():
            value = answer.json.get(member)
            if not isinstance(value, str):
                remarks[name] = f"the metadata at {url} has no {member}"
            elif (fault := _fault(value)) is not None:
                remarks[name] = f"the {member} in the metadata is unusable: {fault}"
            elif origin(value) != origin(issuer):
                remarks[name] = (
                    f"the metadata names {foreign_text(origin(value))}, another origin than the issuer's: "
                    "that counts only when it is listed here"
                )
            else:
                found[name] = value
        return found, remarks
    return {}, dict.fromkeys(MEMBERS, f"no metadata at {urls[0]} nor at {urls[1]}")


def _refuse_broken(remote: Remote, answer: Answer) -> None:
    """A 200 that calls itself JSON and is none was cut off; a page for people only means "not here"."""
    if answer.status == 200 and "json" in answer.headers.get("content-type", ""):
        raise ServerUnavailable(
            reasons.UNREACHABLE, f"{remote.name}: its metadata is no JSON object; it is fetched again by itself"
        )


def check_url(remote: Remote, field: str, url: str, *, allow_insecure_http: bool) -> None:
    """Raise AdministratorMustAct when a URL of the AuthorizationServer's spec cannot be used."""
    if (fault := _fault(url)) is not None:
        raise AdministratorMustAct(reasons.INVALID_ENDPOINT, f"{remote.name}: {field} is unusable: {fault}")
    if urlsplit(url).scheme == "http" and not allow_insecure_http:
        raise AdministratorMustAct(
            reasons.INSECURE_ENDPOINT,
            f"{remote.name}: {field} is plain http, on which credentials can be read: use https, "
            "or set spec.allowInsecureHTTP: true for an evaluation",
        )


def _fault(url: str) -> str | None:
    """Why a URL cannot be an endpoint, or None. Never quotes the URL: it may hold a password."""
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
        return "it has characters that no URL has"
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises for a port that is none
    except ValueError:
        return "it is no URL"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "it must be an absolute http or https URL"
    if "@" in parts.netloc:
        return "it must not hold a user name or password"
    return "it must have no fragment" if parts.fragment or url.endswith("#") else None


def _has_query(url: str) -> bool:
    return "?" in url


def _why(name: str, issuer: str | None, remarks: dict[str, str]) -> str:
    return "there is no spec.issuer to discover it from" if issuer is None else remarks[name]
