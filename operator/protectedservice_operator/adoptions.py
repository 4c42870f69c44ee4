"""The effects of adoption: the proofs, in their order, and who must not be asked again so soon.

1. The AuthorizationServer allows it: the plan has looked.
2. The Secret's credentials are those of the client. Before anything else, so that nobody learns anything of a client
   whose secret it does not have.
3. Nobody else has the client: no other ledger entry names it, and no tag of anybody else stands on it.

What is refused is refused for a minute without asking the server again: nobody guesses secrets by way of the operator.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from . import steps
from .authorization_servers import AuthorizationServers
from .brought_credentials import BroughtCredentials, client_taken, lives
from .cache import Cache
from .errors import AdministratorMustAct, Outcome, ServerUnavailable, UserMustEdit
from .events import Tell
from .observed import ObservedClient, Settings
from .registrant import Registrant
from .registration.adopter import Adopter, check_use
from .registration.connection import Connection
from .registration.driver import Finder, Registration, RegistrationRefused
from .registration.ledger import Record
from .registration.names import Owner, owner_of

logger = logging.getLogger(__name__)

REFUSAL_HOLDS: Final = 60.0  # seconds


class Adoptions:
    """Does the steps that take a client over. `clock` is monotonic seconds."""

    def __init__(
        self,
        cache: Cache,
        servers: AuthorizationServers,
        adopter: Adopter,
        brought: BroughtCredentials,
        settings: Settings,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._cache, self._servers, self._adopter, self._brought = cache, servers, adopter, brought
        self._settings, self._clock = settings, clock
        self._refused: dict[str, tuple[float, Outcome]] = {}  # by the object's uid: until when, and what was said

    def forget(self, uid: str) -> None:
        """The object is gone."""
        self._refused.pop(uid, None)

    async def act(
        self, step: steps.Adopt | steps.RenewAdopted, observed: ObservedClient, connection: Connection, tell: Tell
    ) -> None:
        """One effect. Raises errors.Outcome where it could not be had."""
        service, server = observed.service, observed.server
        if server is None:
            raise TypeError("a connection without an AuthorizationServer")
        until, said = self._refused.get(service.meta.uid, (0.0, None))
        if said is not None and self._clock() < until:
            raise said
        self.forget(service.meta.uid)
        client = await self._brought.read(service)
        try:
            await self._adopter.prove(client, connection, _place(service))
            if isinstance(step, steps.RenewAdopted):
                await self._adopter.renew(service.meta, client, tell)
                logger.info("Took over another secret of the client of %s", service.key)
                return
            if isinstance(connection.driver, Finder):
                self._servers.claim_trial(server)
            with self._brought.claim(service, client.client_id):
                await self._check_server(service, client, connection, str(server.reference))
                await self._adopter.adopt(
                    service.meta,
                    service.kind.kind,
                    str(server.reference),
                    client,
                    connection,
                    tell,
                    rotation_request=service.rotation_request,
                )
        except RegistrationRefused as refused:
            self._servers.registration_refused(server, refused)
            raise
        except ServerUnavailable:
            self._servers.suspected(server)
            raise
        except (UserMustEdit, AdministratorMustAct) as refused:
            self._refused[service.meta.uid] = (self._clock() + REFUSAL_HOLDS, refused)
            if isinstance(step, steps.RenewAdopted):
                await tell("Warning", refused.reason, f"The secret in use stays: {refused.message}")
            raise
        if isinstance(connection.driver, Finder):
            self._servers.registration_accepted(server)
        logger.info("Adopted client %s for %s at %s", client.client_id, service.key, server.reference)

    async def check(self, service: Registrant, record: Record, connection: Connection) -> None:
        """Before the adopted client is changed: make sure that it is still the one that was proved.

        Our own tag says so; where it is not there yet, or not any more, the secret in the ledger must.

        Raises UserMustEdit when somebody else's tag stands on it; else as `Adopter.prove`.
        """
        if not isinstance(connection.driver, Finder) or record.client_id is None:
            return
        found = await connection.driver.find(record.client_id)
        if found is None:
            return  # what comes next says that it is gone
        owner = owner_of(found.tag)
        if owner is not None and owner.uid == service.meta.uid:
            return
        if not self._is_free(found.tag, owner, service):
            raise client_taken(service, record.client_id)
        await self._adopter.still_proved(service.meta, connection)

    async def _check_server(
        self, service: Registrant, client: Registration, connection: Connection, server: str
    ) -> None:
        if not isinstance(connection.driver, Finder):
            return  # what cannot be asked stands in the ledger alone
        found = await connection.driver.find(client.client_id)
        if found is not None and not self._is_free(found.tag, owner_of(found.tag), service):
            raise client_taken(service, client.client_id)
        check_use(client.client_id, found, server)

    def _is_free(self, tag: str | None, owner: Owner | None, service: Registrant) -> bool:
        """Whether a tag says nothing against this service. What cannot be read is somebody's.

        An object of the same namespace of this cluster that is gone has left its client, tag and all.
        """
        if not tag or (owner is not None and owner.uid == service.meta.uid):
            return True
        if owner is None or (owner.cluster, owner.namespace) != (self._settings.cluster_id, service.meta.namespace):
            return False
        return not lives(self._cache, owner.uid)


def _place(service: Registrant) -> str:
    name = service.adoption.credentials_secret if service.adoption is not None else service.credentials_secret
    return f"Secret {service.meta.namespace}/{name}"
