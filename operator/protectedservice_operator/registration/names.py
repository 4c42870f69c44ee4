"""The names by which our clients can be found at an authorization server. They help to find; only the ledger proves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CLIENT_NAME_LIMIT: Final = 255  # what django-oauth-toolkit stores; other servers take more


def tag(cluster_id: str, namespace: str, name: str, uid: str, attempt8: str) -> str:
    """`<cluster>/<namespace>/<name>/<uid>/<attempt>`: which object of which cluster, and which attempt, made a client.

    `attempt8`: the first eight digits of the attempt's id.
    """
    return "/".join((cluster_id, namespace, name, uid, attempt8))


@dataclass(frozen=True)
class Owner:
    """What a tag says about whose client it is."""

    cluster: str
    namespace: str
    name: str
    uid: str


def owner_of(client_tag: str | None) -> Owner | None:
    """The owner in a tag of this form; None where the text is none."""
    parts = (client_tag or "").rsplit("/", 4)
    return Owner(*parts[:4]) if len(parts) == 5 else None


def owner_uid(client_tag: str | None) -> str | None:
    """The uid in a tag of this form; None where the text is none."""
    owner = owner_of(client_tag)
    return owner.uid if owner is not None else None


def same_owner(client_tag: str | None, own_tag: str) -> bool:
    """Whether a client that carries `client_tag` is one of the object whose clients carry `own_tag`: unknown is no."""
    if not own_tag or client_tag is None:
        return False
    uid = owner_uid(own_tag)
    return client_tag == own_tag or (uid is not None and owner_uid(client_tag) == uid)


def client_id(uid: str, attempt8: str) -> str:
    """The id of a client where the server lets us choose it, from what the ledger alone knows."""
    return f"psvc-{uid}-{attempt8}"


def client_name(display: str | None, client_tag: str) -> str:
    """RFC 7591 `client_name`, at most 255 characters: the tag in full, after as much of the display name as fits.

    Raises ValueError when the tag alone is longer, which only an overlong cluster id can cause.
    """
    if len(client_tag) > CLIENT_NAME_LIMIT:
        raise ValueError(
            f"the client's tag has {len(client_tag)} characters, at most {CLIENT_NAME_LIMIT} are possible: "
            "choose a shorter PROTECTEDSERVICE_CLUSTER_ID"
        )
    suffix = f" [{client_tag}]"
    room = CLIENT_NAME_LIMIT - len(suffix)
    shown = (display or "").strip()[: max(room, 0)].rstrip()
    return shown + suffix if shown else client_tag
