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
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvloop
from pythonjsonlogger.json import JsonFormatter

from . import credentials as credential_files
from . import policy_file
from . import settings as process_settings
from .certificate import CertificateError, ServiceCertificate
from .credentials import CredentialsError
from .faults import PolicyError
from .http1.limits import Limits, most_connections
from .http1.server import HttpServer
from .http1.ticker import Ticker
from .introspection import Introspection
from .management import Management
from .metrics import Metrics
from .policy import Policy
from .revocation_webhook import RevocationWebhook, Secret, SecretError
from .service import Service
from .settings import Settings, SettingsError
from .trust import Trust, TrustError
from .upstream_check import UpstreamCheck

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
        runner.run(_serve(loaded, *sockets))
    return 0


def _refuse(faults: Sequence[str]) -> int:
    sys.stderr.writelines(f"{fault}\n" for fault in faults)
    return 2


@dataclass(frozen=True, slots=True)
class _Loaded:
    """All that is read from files before anything is served."""

    policy: Policy
    introspection: Introspection
    certificate: ServiceCertificate | None


def _load(settings: Settings) -> _Loaded | None:
    """What the settings name; None after every fault of it was told, one a line."""
    faults: list[str] = []
    policy: Policy | None = None
    certificate: ServiceCertificate | None = None
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
    if settings.tls is not None:
        try:
            certificate = ServiceCertificate(settings.tls)
        except CertificateError as error:
            faults += error.faults
    if policy is not None:
        faults += _faults_of_files(policy)
    if policy is not None and not faults:
        try:
            introspection = Introspection(policy, held, lambda: credential_files.read(settings.credentials))
        except TrustError as error:
            faults += error.faults
        else:
            return _Loaded(policy, introspection, certificate)
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


async def _serve(loaded: _Loaded, service_socket: socket.socket, management_socket: socket.socket) -> None:
    """Serve until a signal, then finish what is under way; the management port outlives the service."""
    metrics, ticker = Metrics(), Ticker()
    service = Service(loaded.policy, loaded.introspection, metrics, ticker)
    secret_file, webhook = loaded.policy.validation.webhook_secret_file, None
    if secret_file is not None:
        webhook = RevocationWebhook(Secret(Path(secret_file)), service.forget)
    upstream = UpstreamCheck(service.reach) if service.reach is not None else None
    management = Management(metrics, webhook, upstream)
    certificate = loaded.certificate
    service_server = HttpServer(
        service,
        ticker=ticker,
        limits=Limits(connections=most_connections()),
        refused=service.refused,
        tls=None if certificate is None else certificate.context,
    )
    management_server = HttpServer(management, ticker=ticker)
    metrics.watch_connections(lambda: service_server.open, lambda: service_server.busy)
    metrics.watch_load(lambda: service_server.overloads, lambda: service_server.backlog.bytes)
    if certificate is not None:
        ticker.add(certificate.sweep)

    asked_to_end, asked_twice = asyncio.Event(), asyncio.Event()

    def drain() -> None:
        if asked_to_end.is_set():
            asked_twice.set()
        asked_to_end.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, drain)

    ports = [place.getsockname()[1] for place in (service_socket, management_socket)]
    await service_server.start(service_socket)
    await management_server.start(management_socket)
    management.ready = True
    logger.info("Serving", extra={"port": ports[0], "management_port": ports[1]})
    # What lives from here on is requests; the rest need not be looked at by each collection.
    gc.collect()
    gc.freeze()
    try:
        await asked_to_end.wait()
        management.ready = False
        service_server.stop_accepting()
        logger.info("Draining: no new connections, requests under way are finished")
        await _first(service_server.drain(DRAIN_SECONDS), asked_twice.wait())
    finally:
        service_server.close()
        if upstream is not None:
            await upstream.close()
        await service.close()
        management_server.close()
    logger.info("Drained")


async def _first(*several: Coroutine[Any, Any, object]) -> None:
    """Wait for the first of them and give up the others."""
    tasks = [asyncio.create_task(one) for one in several]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    sys.exit(main())
