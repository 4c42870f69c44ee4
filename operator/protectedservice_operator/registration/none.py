"""A server at which nobody registers: its clients are made by other hands, and used here as they are."""

from __future__ import annotations

from .driver import Capabilities, ClientMetadata, Reading, Registration


class NoRegistration:
    """A `Driver` that asks nobody for anything: the client is what was brought."""

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities()

    async def register(
        self, metadata: ClientMetadata, attempt: str, chosen: Registration | None = None
    ) -> Registration:
        """What was brought. Raises ValueError where nothing was: the plan asks for it first."""
        if chosen is None:
            raise ValueError("a client of a server at which nobody registers is brought")
        return chosen

    async def read(self, registration: Registration, metadata: ClientMetadata) -> Reading:
        """What was brought: nobody can be asked."""
        return Reading(registration)

    async def update(self, registration: Registration, metadata: ClientMetadata, attempt: str) -> Registration:
        """Nothing is told to the server."""
        return registration

    async def delete(self, registration: Registration) -> None:
        """Nothing is told to the server: the client is not ours."""
