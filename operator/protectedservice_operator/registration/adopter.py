"""A client that was there before its owner becomes the owner's: proved at the server, then written into the ledger.

Nothing is changed at the server here, so that there is no intent to write down first: `kill -9` before the entry is
written leaves nothing, and after it the ordinary update sets name, scopes and tag where the server lets us.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .. import reasons
from ..errors import AdministratorMustAct, UserMustEdit, Wait
from ..events import Tell
from ..resource import Meta
from .connection import Connection
from .driver import ClientState, FoundClient, Registration
from .ledger import Entry, Record, State
from .ledger_entries import LedgerEntries, is_manageable, moved
from .registrar import new_attempt, new_secret


class Adopter:
    """Takes clients over. `attempt` makes ids, `wrong_secret` a secret that no client has."""

    def __init__(
        self,
        entries: LedgerEntries,
        *,
        attempt: Callable[[], str] = new_attempt,
        wrong_secret: Callable[[], str] = new_secret,
    ) -> None:
        self._entries, self._attempt, self._wrong_secret = entries, attempt, wrong_secret

    async def prove(self, client: Registration, connection: Connection, place: str) -> None:
        """Have the server say that the secret is the client's. What it does not say plainly is no.

        A server may answer `invalid_scope` before it looks at the secret, or give tokens to anybody: so a secret that
        is surely wrong must be refused.

        Args:
            place: what brings the secret, for messages.

        Raises:
            UserMustEdit: the server refuses the secret, or knows no such client.
            Wait: it said neither yes nor no.
            AdministratorMustAct: it does not tell a right secret from a wrong one.
            ServerUnavailable: as everywhere.
        """
        match await connection.tokens.probe(client.client_id, client.client_secret):
            case ClientState.REFUSED:
                raise UserMustEdit(
                    reasons.ADOPTION_NOT_PROVED,
                    f"the authorization server does not know client {client.client_id} by the secret that {place} "
                    "brings: correct the Secret, or have the client made there",
                )
            case ClientState.UNKNOWN:
                raise _undecided(client)
        match await connection.tokens.probe(client.client_id, self._wrong_secret()):
            case ClientState.ALIVE:
                raise AdministratorMustAct(
                    reasons.ADOPTION_NOT_PROVED,
                    f"the authorization server takes any secret for that of client {client.client_id}, so that none "
                    "proves anything: nothing can be adopted there",
                )
            case ClientState.UNKNOWN:
                raise _undecided(client)

    async def adopt(
        self,
        owner: Meta,
        kind: str,
        server: str,
        client: Registration,
        connection: Connection,
        tell: Tell,
        *,
        rotation_request: str | None,
    ) -> None:
        """Write down that the proved client is the owner's. The caller has made sure that nobody else has it.

        Args:
            rotation_request: what is not to be taken for a request for a rotation.

        Raises:
            Conflict: the ledger is not as the plan saw it.
        """
        found = await self._entries.read(owner.uid)
        attempt = self._attempt()
        adopted = {
            "state": State.REGISTERED,
            "server": server,
            "registration_endpoint": connection.endpoints.registration,
            "attempt": attempt,
            "attempt_started": self._entries.wall(),
            "tag_attempt": attempt[:8],
            "client_id": client.client_id,
            "manageable": is_manageable(client, connection.driver),
            "registered": self._entries.wall(),
            "adopted": True,
        }
        if found is None:
            record = Record(
                owner_kind=kind,
                owner_namespace=owner.namespace,
                owner_name=owner.name,
                owner_uid=owner.uid,
                rotation_request=rotation_request,
                **adopted,
            )
            await self._entries.write(Entry(record, registration=client), None)
        else:
            entry, version = found
            if entry.record.state not in (State.IDLE, State.ORPHANED) or entry.record.intent is not None:
                raise moved(owner)
            forgotten = dict.fromkeys(("intent", "metadata_digest", "refusal", "fault", "withdrawn"))
            entry = entry.with_record(
                **adopted, **forgotten, brought=False, drifted=(), left_behind=_left_behind(entry.record, client)
            )
            await self._entries.write(replace(entry, registration=client, chosen=None), version)
        await tell("Normal", reasons.CLIENT_ADOPTED, f"Adopted client {client.client_id} at {server}")

    async def renew(self, owner: Meta, client: Registration, tell: Tell) -> None:
        """Write down another secret of the adopted client's, which was proved. Raises Conflict as `adopt` does."""
        found = await self._entries.read(owner.uid)
        if found is None or found[0].record.state is not State.REGISTERED or not found[0].record.adopted:
            raise moved(owner)
        entry, version = found
        if entry.registration is None or entry.registration.client_id != client.client_id:
            raise moved(owner)
        renewed = replace(entry.registration, client_secret=client.client_secret)
        await self._entries.write(replace(entry, registration=renewed), version)
        text = f"Client {client.client_id} has another secret, which spec.client.adopt.credentialsSecret brought"
        await tell("Normal", reasons.CLIENT_ADOPTED, text)

    async def still_proved(self, owner: Meta, connection: Connection) -> None:
        """Prove it once more, by the secret in the ledger. Raises as `prove`, and Conflict."""
        found = await self._entries.read(owner.uid)
        if found is None or found[0].registration is None:
            raise moved(owner)
        await self.prove(found[0].registration, connection, "the ledger")


def check_use(client_id: str, found: FoundClient | None, server: str) -> None:
    """Raise where a client that its server shows cannot be adopted, whoever's it is."""
    if found is None:
        raise AdministratorMustAct(
            reasons.ADOPTION_NOT_PROVED,
            f"client {client_id} authenticates at the token endpoint of AuthorizationServer {server}, whose admin API "
            "has no such client: both must be of one server",
        )
    if found.other_uses:
        raise UserMustEdit(
            reasons.CLIENT_IN_OTHER_USE,
            f"client {client_id} is used in other ways as well ({', '.join(found.other_uses)}), which would end with "
            "its adoption: adopt a client that is for client_credentials alone",
        )


def _undecided(client: Registration) -> Wait:
    return Wait(
        reasons.ADOPTION_NOT_PROVED,
        f"the authorization server says neither that client {client.client_id} has the secret nor that it has not; it "
        "is asked again by itself: see that the client may use the grant client_credentials",
    )


def _left_behind(record: Record, client: Registration) -> tuple[str, ...]:
    """An earlier client of the owner's that its server could not delete stays on record."""
    if record.state is State.ORPHANED and record.client_id is not None and record.client_id != client.client_id:
        return (*record.left_behind, record.client_id)
    return record.left_behind
