"""The operator's process: settings, logging, the parts and how they are joined, kopf. No decisions."""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import kopf
import uvloop
from pythonjsonlogger.json import JsonFormatter

from . import observed, orphans_command, settings
from .authorization_server_connection import connect
from .authorization_servers import AuthorizationServers
from .cache import Cache
from .client_checks import ClientChecks
from .cluster import Cluster, NoCluster
from .events import Recorder
from .handlers import kopf_settings, make_registry
from .management import Management
from .metrics import Metrics
from .reconcile import Reconcile
from .registration.deregistrar import Deregistrar
from .registration.ledger_entries import LedgerEntries
from .resource import Key, Reference
from .runtime import Runtime, StartFailed, identify_cluster
from .settings import BadSettings, Settings
from .sweep import OrphanSweep
from .trials import Trials
from .triggers import Triggers, related_by_content
from .verification import Verifier
from .work_queue import WorkQueue
from .workers import Workers

logger = logging.getLogger(__name__)

# They log every event and every request at INFO; at DEBUG kopf logs whole objects, Secrets included.
NEVER_BELOW_WARNING: Final = ("kopf", "httpx", "httpcore", "kubernetes", "aiohttp")


def main(arguments: Sequence[str] | None = None) -> None:
    """Console script. Exit codes: 0 asked to stop, 1 could not go on, 2 unusable settings."""
    words = _parse(arguments)
    try:
        config = settings.load()
    except BadSettings as bad:
        for fault in bad.faults:
            print(fault, file=sys.stderr)  # noqa: T201 (a program's refusal to start is for its reader, not for a log)
        sys.exit(2)
    set_up_logging(config.log_level if words.command is None else "warning")
    if words.command == "orphans":
        sys.exit(uvloop.run(orphans(config, words)))
    sys.exit(uvloop.run(run(config)))


async def run(config: Settings) -> int:
    """Everything, from the first connection to the last; returns the exit code."""
    try:
        async with AsyncExitStack() as closing:
            runtime = await assemble(config, closing)
            await kopf.operator(registry=make_registry(runtime), settings=kopf_settings(), clusterwide=True)
    except (NoCluster, StartFailed) as failure:
        logger.error("Cannot start: %s", failure)
        return 1
    except Exception as failure:  # whatever ended kopf's watches, its pod is restarted
        if (cause := _start_failure(failure)) is not None:
            logger.error("Cannot start: %s", cause)
        else:
            logger.exception("The operator ended")
        return 1
    logger.info("Stopped")
    return 0


async def orphans(config: Settings, words: argparse.Namespace) -> int:
    """The command of that name; returns the exit code."""
    try:
        cluster = await Cluster.connect(Metrics())
    except NoCluster as failure:
        logger.error("Cannot look: %s", failure)
        return 1
    try:
        return await orphans_command.Command(cluster, config.namespace, time.time()).run(words)
    finally:
        await cluster.close()


async def assemble(config: Settings, closing: AsyncExitStack) -> Runtime:
    """All parts, joined and serving their management port; `closing` takes what must be closed at the end.

    Raises NoCluster and StartFailed.
    """
    metrics, cache, clock = Metrics(), Cache(), time.monotonic
    queue = WorkQueue(clock, metrics=metrics)

    def wake(key: Key) -> None:
        queue.add(key)

    def observe(operation: str, code: str, seconds: float) -> None:
        metrics.as_requests.labels(op=operation, code=code).inc()

    cluster = await Cluster.connect(metrics)
    closing.push_async_callback(cluster.close)
    default_server = config.default_server_place
    facts = observed.Settings(
        cluster_id=config.cluster_id or await identify_cluster(cluster, clock),
        server_image=config.server_image,
        honoured_namespaces=config.honoured_namespaces,
        default_server=Reference(*default_server) if default_server else None,
        verification=config.verification,
        deletion_deadline=config.deletion_deadline,
        cross_client_check=config.cross_client_check,
    )
    events = Recorder(cluster, clock, lambda: dt.datetime.now(dt.UTC), metrics)
    servers = AuthorizationServers(
        cluster,
        cache,
        events,
        wake,
        connect=partial(connect, observe=observe),
        namespace=config.namespace,
        honoured_namespaces=facts.honoured_namespaces,
        probe_interval=config.probe_interval,
    )
    closing.push_async_callback(servers.aclose)
    verifier = Verifier(wake, interval=config.verification_interval)
    closing.push_async_callback(verifier.aclose)
    trials = Trials(wake, interval=config.verification_interval)
    closing.push_async_callback(trials.aclose)
    entries = LedgerEntries(cluster, cache, config.namespace, uncertain=metrics.registration_uncertain.inc)
    closing.push_async_callback(entries.drain)
    sweep = OrphanSweep(
        cluster,
        cache,
        Deregistrar(entries),
        events,
        wake,
        namespace=config.namespace,
        deletes=config.orphan_sweep == "delete",
        interval=config.orphan_sweep_interval,
        limit=config.orphan_sweep_limit,
        metrics=metrics,
    )
    reconcile = Reconcile(
        cluster,
        cache,
        servers,
        verifier,
        entries,
        events,
        facts,
        sweep,
        namespace=config.namespace,
        wake=wake,
        metrics=metrics,
        rollout_concurrency=config.rollout_concurrency,
        checks=ClientChecks(interval=config.drift_interval, clock=clock),
        trials=trials,
    )
    runtime = Runtime(
        cluster=cluster,
        cache=cache,
        queue=queue,
        triggers=Triggers(cache, config.namespace, related_by_content(cache)),
        workers=Workers(queue, reconcile, metrics, clock, count=config.workers),
        metrics=metrics,
        clock=clock,
        resync_interval=config.resync_interval,
        operator_namespace=config.namespace,
    )
    management = Management(metrics, not_alive=runtime.not_alive, not_ready=runtime.not_ready)
    port = await management.start(config.management_port)
    closing.push_async_callback(management.stop)
    logger.info("Version %s; health and metrics on port %d", importlib.metadata.version("protectedservice"), port)
    return runtime


def set_up_logging(level: str) -> None:
    """JSON lines on standard error."""
    formatter = JsonFormatter(
        "%(asctime)s %(levelname)s %(name)s %(message)s",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
    )
    formatter.converter = time.gmtime
    formatter.default_time_format, formatter.default_msec_format = "%Y-%m-%dT%H:%M:%S", "%s.%03dZ"
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in NEVER_BELOW_WARNING:
        logging.getLogger(name).setLevel(logging.WARNING)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    variables = [
        f"  {settings.PREFIX}{name.upper()}\n      {' '.join((field.description or '').split())}"
        for name, field in Settings.model_fields.items()
    ]
    parser = argparse.ArgumentParser(
        prog="protectedservice-operator",
        description="Turns ProtectedService objects of a Kubernetes cluster into services that only holders of a good"
        " OAuth 2.0 token can call. Needs a pod's service account or KUBECONFIG.",
        epilog="environment:\n" + "\n".join(variables),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=importlib.metadata.version("protectedservice"))
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", help="default: run the operator")
    orphans_command.add_arguments(commands.add_parser("orphans", help="clients whose object is gone"))
    return parser.parse_args(arguments)


def _start_failure(error: BaseException | None) -> StartFailed | None:
    """Ours among the causes: kopf wraps what its start-up handlers raise."""
    while error is not None and not isinstance(error, StartFailed):
        error = error.__cause__
    return error
