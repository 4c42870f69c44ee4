"""Start, serve, drain. Exit status: 0 after SIGTERM, 1 if a port cannot be had, 2 for a faulty configuration."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import uvloop
from pythonjsonlogger.json import JsonFormatter

from . import credentials as credential_files
from . import policy_file
from . import settings as process_settings
from .application import Application
from .credentials import CredentialsError
from .faults import PolicyError
from .http_front import http_server
from .introspection import Introspection
from .management import Management
from .metrics import Metrics
from .policy import Policy
from .revocation_webhook import RevocationWebhook, Secret, SecretError
from .settings import Settings, SettingsError
from .trust import Trust, TrustError

logger = logging.getLogger(__name__)

DRAIN_SECONDS: Final = 25
"""How long requests under way may take after SIGTERM. Below the 30 s after which Kubernetes kills by default."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The console script."""
    try:
        settings = process_settings.load(sys.argv[1:] if arguments is None else arguments, os.environ)
    except SettingsError as error:
        return _refuse(error.faults)
    _log_to_stderr(settings.log_level)
    loaded = _load(settings)
    if loaded is None:
        return 2
    sockets: list[socket.socket] = []
    for port in (settings.port, settings.management_port):
        try:
            sockets.append(_bind(port))
        except OSError as error:
            cause = os.strerror(error.errno) if error.errno else "unknown cause"
            sys.stderr.write(f"port {port}: cannot listen: {cause}\n")
            return 1
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(*loaded, *sockets))
    return 0


def _refuse(faults: Sequence[str]) -> int:
    sys.stderr.writelines(f"{fault}\n" for fault in faults)
    return 2


def _load(settings: Settings) -> tuple[Policy, Introspection] | None:
    """Policy and introspection; None after every fault of both was told, one a line."""
    faults: list[str] = []
    policy: Policy | None = None
    try:
        policy = policy_file.parse(settings.policy.read_text("utf-8"))
    except PolicyError as error:
        faults += [f"{settings.policy}: {fault}" for fault in error.faults]
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        faults.append(f"{settings.policy}: cannot be read: {cause}")
    try:
        held = credential_files.read(settings.credentials)
    except CredentialsError as error:
        faults += error.faults
    if policy is not None:
        faults += _faults_of_files(policy)
    if policy is not None and not faults:
        try:
            return policy, Introspection(policy, held, lambda: credential_files.read(settings.credentials))
        except TrustError as error:
            faults += error.faults
    _refuse(faults)
    return None


def _faults_of_files(policy: Policy) -> list[str]:
    """What is wrong with the files that a policy names, and that are read when they are needed."""
    faults: list[str] = []
    try:
        if policy.upstream is not None and policy.upstream.ca_file:
            Trust(Path(policy.upstream.ca_file))
    except TrustError as error:
        faults += error.faults
    try:
        if policy.validation.webhook_secret_file is not None:
            Secret(Path(policy.validation.webhook_secret_file))
    except SecretError as error:
        faults += error.faults
    return faults


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        )
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # uvicorn logs what callers do (bad requests, refused upgrades) and repeats the failures that we log ourselves.
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)


def _bind(port: int) -> socket.socket:
    """A listening socket on all addresses of both families, or of IPv4 where the machine has no IPv6."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=2048)
        except OSError as error:
            # Anything else means that addresses of IPv6 are switched off.
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise
    return socket.create_server(("0.0.0.0", port), backlog=2048)  # noqa: S104 a server in a pod is called from outside


async def _serve(
    policy: Policy, introspection: Introspection, service_socket: socket.socket, management_socket: socket.socket
) -> None:
    """Serve until a signal, then finish what is under way; the management port outlives the service."""
    metrics = Metrics()
    application = Application(policy, introspection, metrics)
    secret_file, webhook = policy.validation.webhook_secret_file, None
    if secret_file is not None:
        webhook = RevocationWebhook(Secret(Path(secret_file)), application.forget)
    management = Management(metrics, webhook)
    service_server, management_server = http_server(application, DRAIN_SECONDS), http_server(management, 1)

    def drain() -> None:
        if service_server.should_exit:
            service_server.force_exit = True  # asked twice
        logger.info("Draining: no new connections, requests under way are finished")
        management.ready = False
        service_server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain)

    service = asyncio.create_task(service_server.serve([service_socket]))
    manage = asyncio.create_task(management_server.serve([management_socket]))
    ports = [place.getsockname()[1] for place in (service_socket, management_socket)]
    while not (service_server.started and management_server.started):
        if service.done() or manage.done():
            break
        await asyncio.sleep(0.001)
    management.ready = not service_server.should_exit
    logger.info("Serving", extra={"port": ports[0], "management_port": ports[1]})
    # What lives from here on is requests; the rest need not be looked at by each collection.
    gc.collect()
    gc.freeze()
    try:
        await service
    finally:
        await application.close()
        management_server.should_exit = True
        await manage
    logger.info("Drained")


if __name__ == "__main__":
    sys.exit(main())
