"""What the kinds that own a client have in common, for the code that registers one whoever it is for. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from .cache import Cache
from .protected_service import ProtectedService
from .resource import PROTECTED_SERVICE, SERVICE_CLIENT, Key, Kind, Meta, Reference
from .service_client import ServiceClient


class Registrant(Protocol):
    """An object that has a client: a service that is called (ProtectedService) or one that calls (ServiceClient)."""

    @property
    def meta(self) -> Meta: ...

    @property
    def kind(self) -> Kind: ...

    @property
    def key(self) -> Key: ...

    @property
    def server(self) -> Reference | None:
        """The AuthorizationServer that spec names."""

    @property
    def recorded_server(self) -> Reference | None:
        """The AuthorizationServer that status says the object was given."""

    @property
    def client_display_name(self) -> str | None: ...

    @property
    def credentials_secret(self) -> str:
        """Name of the tenant's Secret."""

    @property
    def credentials_keys(self) -> Mapping[str, str]:
        """Keys of that Secret, and the name of the value that each holds."""

    @property
    def credentials_labels(self) -> Mapping[str, str]: ...

    @property
    def credentials_annotations(self) -> Mapping[str, str]: ...

    @property
    def brings_credentials(self) -> bool:
        """Whether somebody else writes that Secret, and it says which client this is."""

    @property
    def rotation_request(self) -> str | None:
        """What asks for a rotation; None: nothing does."""

    @property
    def rotation_interval(self) -> str | None:
        """Longest time that a client is in use, a duration; None: it is rotated on demand only."""

    @property
    def rotation_overlap(self) -> str:
        """How long the credentials of an old client are used beside those in the Secret, a duration.

        0s of a service: that is known there, from its pods.
        """

    @property
    def introspects(self) -> bool:
        """Whether its client introspects tokens, as that of a service does."""

    @property
    def at_rest(self) -> bool:
        """Whether nothing of it may be changed: suspended, and not being deleted."""

    @property
    def status(self) -> Mapping[str, Any]: ...


def registrants(cache: Cache) -> Iterator[Registrant]:
    """All objects that own a client, as the watches last showed them."""
    for entry in cache.all(PROTECTED_SERVICE):
        yield ProtectedService.parse(entry.body())
    for entry in cache.all(SERVICE_CLIENT):
        yield ServiceClient.parse(entry.body())
