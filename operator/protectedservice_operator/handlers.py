"""kopf's part: login, watches, start and stop. Every decision is elsewhere.

Only `on.event` handlers: kopf's others keep their state by patching the objects (and would copy Secrets into
annotations). With these settings kopf itself writes nothing at all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import kopf

from .cluster import load_credentials
from .resource import GROUP, WATCHED, Kind
from .runtime import Runtime

# Seconds between kopf's tries on 5xx, 429, 403 and lost connections. Some 15 minutes in all, the length of a slow
# control-plane upgrade; then the process ends and its pod is restarted.
ERROR_BACKOFFS: Final = (1, 1, 2, 3, 5, 8, 13, 21, 34, *[60] * 14)
# kopf takes its own finalizer off wherever no handler of its needs one: it must never be told that ours is its own.
UNUSED_FINALIZER: Final = f"{GROUP}/unused-by-kopf"


class NoDiffBase(kopf.DiffBaseStorage):
    """Keeps and computes nothing: the diff of each event would be three quarters of its CPU time."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        return None


class NoProgress(kopf.ProgressStorage):
    """Keeps nothing: `on.event` handlers have no progress."""

    def fetch(self, *, key: Any, body: kopf.Body) -> None:
        return None

    def store(self, *, key: Any, record: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        return None

    def purge(self, *, key: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        return None

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        return None

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def kopf_settings(watched: Mapping[Kind, str | None] = WATCHED) -> kopf.OperatorSettings:
    """How kopf is to watch; reasons beside each line."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True  # or a stranger's KopfPeering named `default` could pause us
    settings.scanning.disabled = True  # or kopf would watch every CRD; ours are awaited at start
    settings.posting.enabled = False  # Events are ours (events.py)
    settings.queueing.idle_timeout = 0.2  # seconds a task per object keeps the last raw body alive
    settings.watching.chunk_size = 500  # whole lists cost memory here and there
    settings.watching.server_timeout = 300  # seconds; a belt beside kopf's own detection of dead streams
    settings.watching.connect_timeout = 5
    settings.networking.connect_timeout = 5
    settings.networking.request_timeout = 30  # the default is five minutes
    settings.networking.error_backoffs = ERROR_BACKOFFS
    settings.persistence.finalizer = UNUSED_FINALIZER
    settings.persistence.diffbase_storage = NoDiffBase()
    settings.persistence.progress_storage = NoProgress()
    for kind, selector in watched.items():
        if selector is not None:
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = selector
    return settings


def make_registry(runtime: Runtime, kinds: Collection[Kind] = tuple(WATCHED)) -> kopf.OperatorRegistry:
    """The handlers, around this runtime."""
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        credentials = await load_credentials()
        return kopf.ConnectionInfo(
            server=credentials.server,
            ca_path=credentials.ca_path,
            insecure=credentials.insecure,
            certificate_path=credentials.certificate_path,
            private_key_path=credentials.private_key_path,
            proxy_url=credentials.proxy,
            scheme=credentials.scheme,
            token=credentials.token,
        )

    @kopf.on.startup(registry=registry, errors=kopf.ErrorsMode.PERMANENT)
    async def start(**_: Any) -> None:
        await runtime.start()

    @kopf.on.cleanup(registry=registry, errors=kopf.ErrorsMode.PERMANENT)
    async def stop(**_: Any) -> None:
        await runtime.stop()

    for kind in kinds:
        _watch(registry, runtime, kind)
    return registry


def _watch(registry: kopf.OperatorRegistry, runtime: Runtime, kind: Kind) -> None:
    @kopf.on.event(kind.group, kind.version, kind.plural, registry=registry, id=f"watch-{kind.plural}")
    async def observe(event: kopf.RawEvent, **_: Any) -> None:
        runtime.observe(kind, event["type"], dict(event["object"]))
