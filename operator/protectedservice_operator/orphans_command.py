"""`protectedservice-operator orphans list|delete`: what the ledger knows of clients whose object is gone, for a person.

Asks the Kubernetes API and nothing else: `delete` writes down that the clients are to be deleted, and the operator that
runs in the cluster deletes them, with its limits and its retries.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from . import reasons
from .authorization_server import AuthorizationServer
from .cache import Cache
from .cluster_api import ClusterApi
from .errors import Conflict, NotFound, Outcome, Rejected
from .events import EventType
from .gather import ledger_record
from .observed import is_repeatable
from .orphans import Fate, Orphan, orphans
from .registration.deregistrar import Deregistrar
from .registration.ledger import SECRET_PREFIX, Record
from .registration.ledger_entries import LABELS, LedgerEntries
from .resource import AUTHORIZATION_SERVER, LABEL_COMPONENT, LEDGER_OWNERS, SECRET, Reference

COLUMNS = ("ENTRY", "CLIENT", "AUTHORIZATION SERVER", "BELONGED TO", "STATE")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of the command."""
    actions = parser.add_subparsers(dest="action", required=True)
    listing = actions.add_parser("list", help="show the clients whose object is gone; changes nothing")
    listing.add_argument("--output", choices=("table", "json"), default="table")
    deletion = actions.add_parser(
        "delete",
        help="have the running operator delete such clients; without --yes only says which",
    )
    deletion.add_argument("entries", nargs="*", metavar="ENTRY", help="names from `orphans list`")
    deletion.add_argument("--all", action="store_true", help="every deletable one instead of named ones")
    deletion.add_argument("--yes", action="store_true", help="do it; otherwise nothing is changed")


@dataclass(frozen=True)
class Command:
    """One run. `namespace` is the operator's; `wall` gives seconds since the epoch."""

    cluster: ClusterApi
    namespace: str
    wall: float

    async def run(self, arguments: argparse.Namespace) -> int:
        """Exit code: 0 done, 1 the cluster did not answer or an entry was not to be deleted, 2 wrong words."""
        try:
            found = await self.find()
            if arguments.action == "list":
                _show(found, arguments.output)
                return 0
            return await self._delete(found, arguments)
        except (Outcome, Rejected, NotFound) as failure:
            _complain(f"the cluster did not do it: {failure}")
            return 1

    async def find(self) -> list[Orphan]:
        """All orphans, by live reads."""
        records: list[tuple[str, Record]] = []
        selector = f"{LABEL_COMPONENT}={LABELS[LABEL_COMPONENT]}"
        async for body in self.cluster.list(SECRET, namespace=self.namespace, label_selector=selector):
            name = body["metadata"]["name"]
            if name.startswith(SECRET_PREFIX):
                try:
                    records.append((name, ledger_record(body)))
                except (ValueError, KeyError):
                    _complain(f"Secret {self.namespace}/{name} poses as a ledger entry and is none: left out")
        owners: set[str] = set()
        for _, record in records:
            kind = LEDGER_OWNERS.get(record.owner_kind)
            # Of a kind that this version does not know: unknown is no reason to delete.
            owner = await self.cluster.get(kind, record.owner_namespace, record.owner_name) if kind else None
            if kind is None or (owner is not None and owner["metadata"]["uid"] == record.owner_uid):
                owners.add(record.owner_uid)
        places = {record.server for _, record in records}
        servers = {place for place in places if await self._server(place) is not None}
        return orphans(records, lambda record: record.owner_uid in owners, lambda record: record.server in servers)

    async def _server(self, place: str) -> AuthorizationServer | None:
        reference = Reference.parse(place)
        body = await self.cluster.get(AUTHORIZATION_SERVER, reference.namespace, reference.name)
        return AuthorizationServer.parse(body) if body is not None else None

    async def _delete(self, found: list[Orphan], arguments: argparse.Namespace) -> int:
        if bool(arguments.entries) == arguments.all:
            _complain("name the entries to delete (see `orphans list`), or say --all")
            return 2
        by_name = {orphan.entry: orphan for orphan in found}
        unknown = [name for name in arguments.entries if name not in by_name]
        for name in unknown:
            _complain(f"{name}: no such orphan; its object may live, or its client be gone")
        chosen = found if arguments.all else [by_name[name] for name in arguments.entries if name in by_name]
        refused = len(unknown)
        for orphan in chosen:
            if orphan.fate is not Fate.DELETABLE:
                _say(f"{orphan.entry}: {_ADVICE[orphan.fate]}")
            elif not arguments.yes:
                _say(f"{orphan.entry}: would delete client {orphan.client} at {orphan.record.server}; --yes does it")
            else:
                refused += not await self._start(orphan)
        return 1 if refused else 0

    async def _start(self, orphan: Orphan) -> bool:
        server = await self._server(orphan.record.server)
        entries = LedgerEntries(self.cluster, Cache(), self.namespace, wall=lambda: self.wall)

        def repeatable(record: Record) -> bool:
            return is_repeatable(server, self.wall - record.attempt_started)

        try:
            await Deregistrar(entries).start_orphans_deletion(
                orphan.record.owner_uid, repeatable=repeatable, tell=_warn
            )
        except Conflict:
            _complain(f"{orphan.entry}: changed meanwhile; look again with `orphans list`")
            return False
        missing = "" if server else f"; AuthorizationServer {orphan.record.server} does not exist: it waits for that"
        _say(f"{orphan.entry}: the operator deletes client {orphan.client} at {orphan.record.server}{missing}")
        return True


_ADVICE = {
    Fate.DELETING: "is being deleted already, and tried again until it is done",
    Fate.ADOPTED: "the client was there before its object and stays: delete this Secret, and it can be adopted again",
    Fate.SERVER_DELETED: "its AuthorizationServer was deleted before it: create one of that name and issuer anew, and "
    "the operator deletes the client; or delete the client at the server by hand, then this Secret",
    Fate.BY_HAND: "its server gives the operator no way to delete it: delete the client by hand, then this Secret",
}


def _show(found: Sequence[Orphan], output: str) -> None:
    rows = [(o.entry, o.client, o.record.server, o.owner, o.fate.value) for o in found]
    if output == "json":
        keys = ("entry", "client", "authorizationServer", "owner", "state")
        _say(json.dumps([dict(zip(keys, row, strict=True)) for row in rows], indent=2))
        return
    if not rows:
        _say("no client in the ledger is without its object")
        return
    widths = [max(len(row[column]) for row in (COLUMNS, *rows)) for column in range(len(COLUMNS))]
    for row in (COLUMNS, *rows):
        _say("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


async def _warn(_: EventType, reason: str, message: str, /) -> None:
    _complain(message if reason != reasons.REGISTRATION_UNCERTAIN else f"{message} (counted as uncertain)")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _complain(text: str) -> None:
    sys.stderr.write(f"{text}\n")
