"""What the operator may ask of the Kubernetes API, as an interface: `cluster.Cluster` and the tests' fake implement it.

Objects are plain dicts, in and out. Whatever goes wrong is one of the classes in `errors.py`:

- 404: None from `get`; `NotFound` from writes, and from `list` where the kind itself is not served
- 409: `AlreadyExists` from `create`; `Conflict` otherwise (stale resourceVersion, another uid)
- 429, 5xx, 401 and no answer within the deadline: `ClusterUnavailable`, with the server's `Retry-After` in seconds
- 400, 403, 422: `Rejected`, with the API server's own words
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from .resource import FIELD_MANAGER, Kind

Object = dict[str, Any]
JSONPatch = Sequence[dict[str, Any]]


class Listing(Protocol):
    """The objects of one list request, page after page.

    Attributes:
        resource_version: that of the list, known once the first page is read (empty before): whatever was written
            later is not in it. Should the list have to begin anew (an expired page token), it moves on, and objects
            come twice.
    """

    @property
    def resource_version(self) -> str: ...

    def __aiter__(self) -> AsyncIterator[Object]: ...


class ClusterApi(Protocol):
    """The Kubernetes API, as far as this operator needs it."""

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """The object as it is now, or None."""

    def list(self, kind: Kind, *, namespace: str | None = None, label_selector: str | None = None) -> Listing:
        """All objects, in pages of 500; without a namespace, those of all namespaces."""

    async def create(self, kind: Kind, body: Object) -> Object:
        """POST; `AlreadyExists` when the name is taken."""

    async def apply(self, kind: Kind, body: Object, *, manager: str = FIELD_MANAGER) -> Object:
        """Server-side apply as our field manager (or another), by force: makes the object where there is none.

        With `metadata.uid` in the body it only ever changes that object: `Conflict` otherwise.
        """

    async def replace(self, kind: Kind, body: Object) -> Object:
        """PUT; `metadata.resourceVersion` in the body is the precondition."""

    async def patch(
        self, kind: Kind, namespace: str | None, name: str, patch: Object | JSONPatch, *, subresource: str | None = None
    ) -> Object:
        """A dict is a merge patch (RFC 7396), a list a JSON patch (RFC 6902; a failed `test`: `Rejected`, 422)."""

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> None:
        """Deletes in the background, only that uid and version where given (`Conflict`); already gone is done."""
