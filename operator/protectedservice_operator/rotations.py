"""The effects of rotations and of looking at a client: asked of the authorization server through the ledger.

As `clients.py`, this file knows which connection a step takes and tells the AuthorizationServer what came of it.
"""

from __future__ import annotations

import logging
from functools import partial

from . import reasons, steps
from .authorization_server import AuthorizationServer
from .authorization_server_connection import Connection
from .authorization_servers import AuthorizationServers
from .client_checks import ClientChecks
from .errors import AdministratorMustAct, ServerUnavailable
from .events import Tell
from .metrics import Metrics
from .observed import ObservedClient, Settings, wanted_metadata
from .registration.driver import RegistrationRefused
from .registration.inspector import Inspector
from .registration.rotator import Rotator

logger = logging.getLogger(__name__)

RotationStep = (
    steps.CheckClient
    | steps.Rotate
    | steps.GiveUpRotation
    | steps.Hold
    | steps.TakeOver
    | steps.UpdateSecond
    | steps.RollBack
    | steps.EndSecond
)


class Rotations:
    """Does the steps that concern a second client, and the hourly look at the one in use."""

    def __init__(
        self,
        servers: AuthorizationServers,
        rotator: Rotator,
        inspector: Inspector,
        checks: ClientChecks,
        settings: Settings,
        *,
        metrics: Metrics | None = None,
    ) -> None:
        self._servers, self._rotator, self._inspector, self._checks = servers, rotator, inspector, checks
        self._settings, self._metrics = settings, metrics

    async def act(self, step: RotationStep, observed: ObservedClient, tell: Tell) -> None:
        """One effect. Raises errors.Outcome where it could not be had."""
        meta = observed.service.meta
        match step:
            case steps.GiveUpRotation():
                await self._rotator.give_up(meta, tell, request=step.request)
            case steps.Hold():
                await self._rotator.hold(meta, step.least, step.overlap)
            case steps.RollBack():
                await self._rotator.roll_back(meta)
            case steps.Rotate() | steps.TakeOver() | steps.UpdateSecond() | steps.EndSecond() | steps.CheckClient():
                if observed.server is None:
                    raise AdministratorMustAct(reasons.SERVER_NOT_FOUND, "the AuthorizationServer does not exist")
                try:
                    await self._ask(step, observed, observed.server, tell)
                except ServerUnavailable:
                    self._servers.suspected(observed.server)
                    raise

    async def _ask(
        self,
        step: steps.Rotate | steps.TakeOver | steps.UpdateSecond | steps.EndSecond | steps.CheckClient,
        observed: ObservedClient,
        server: AuthorizationServer,
        tell: Tell,
    ) -> None:
        service = observed.service
        connection = await self._servers.connection(server)
        connection.remote.breaker.check()  # before anything is written down
        match step:
            case steps.Rotate():
                await self._rotate(step, observed, server, connection, tell)
            case steps.TakeOver():
                await self._rotator.take_over(service.meta, step.metadata, connection, tell)
                logger.info("Another client comes into use for %s", service.key)
            case steps.UpdateSecond():
                await self._rotator.update_second(service.meta, step.metadata, connection, tell)
                self._count("update")
                logger.info("Updated the second client of %s", service.key)
            case steps.EndSecond():
                await self._rotator.end_second(service.meta.uid, connection, tell)
                self._count("delete")
                logger.info("Ended the second client of %s", service.key)
            case steps.CheckClient():
                try:
                    await self._inspector.inspect(service.meta, step.metadata, connection, tell)
                except AdministratorMustAct as failure:  # looked at again at the next turn, whoever mends it and when
                    logger.warning("The client of %s could not be looked at: %s", service.key, failure.message)
                self._checks.done(service.meta.uid)

    async def _rotate(
        self,
        step: steps.Rotate,
        observed: ObservedClient,
        server: AuthorizationServer,
        connection: Connection,
        tell: Tell,
    ) -> None:
        meta, metadata = observed.service.meta, partial(wanted_metadata, observed, self._settings)
        self._servers.claim_trial(server)
        try:
            if step.attempt is None:
                with self._servers.registering(server):
                    await self._rotator.begin(meta, metadata, connection, tell, request=step.request)
            else:
                await self._rotator.resume(meta, metadata, connection, tell, attempt=step.attempt, request=step.request)
        except RegistrationRefused as refused:
            self._servers.registration_refused(server, refused)
            if step.attempt is not None:
                raise  # the attempt is open still
            return  # given up: the client in use serves on
        self._servers.registration_accepted(server)
        self._count("register")
        logger.info("Registered a second client for %s at %s", observed.service.key, server.reference)

    def _count(self, operation: str) -> None:
        if self._metrics:
            self._metrics.registrations.labels(op=operation).inc()
