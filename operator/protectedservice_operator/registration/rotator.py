"""The write order of a rotation: a second client beside the one in use, the two change places, the old one goes.

Every method is one step, taken up from the ledger as it is in the cluster; `kill -9` may fall between any two
statements. The client in use serves on whatever becomes of the second. Nothing here knows what kind of object the
client belongs to: who calls decides when the new client may take over and when the old one has served its time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from .. import reasons
from ..errors import AdministratorMustAct, ServerUnavailable, UserMustEdit
from ..events import Tell
from ..resource import Meta
from .connection import Connection
from .driver import AttemptSpent, ClientMetadata, RegisteredOtherwise, Registration, RegistrationRefused
from .ledger import ROTATE, Entry, Intent, Role, State
from .ledger_entries import LedgerEntries, moved, open_intent
from .names import client_id
from .registrar import new_attempt, new_secret
from .second import SecondClients, described, given_up, rotation_refusal
from .token import TokenRefused

# How long a token is taken to live where the server does not say (RFC 6749 section 5.1 lets it).
UNKNOWN_LIFETIME: Final = 3600.0


class Rotator:
    """Takes the steps of rotations. `attempt` makes ids."""

    def __init__(self, entries: LedgerEntries, *, attempt: Callable[[], str] = new_attempt) -> None:
        self._entries, self._attempt = entries, attempt
        self._seconds = SecondClients(entries)

    async def begin(
        self,
        owner: Meta,
        metadata: Callable[[str], ClientMetadata],
        connection: Connection,
        tell: Tell,
        *,
        request: str | None,
    ) -> None:
        """Make a second client, as one that is to take over.

        Where the server refuses it, the rotation is given up: that is told and remembered, and no error.

        Args:
            request: what asked for it, remembered as served; None: the schedule.

        Raises:
            RegistrationRefused: given up as well, but the server's object is to know it.
            ServerUnavailable: as everywhere.
        """
        entry, version = await self._read(owner, State.REGISTERED)
        if entry.record.second is not None or entry.registration is None:
            raise moved(owner)
        lifetime = await self._lifetime(entry, entry.registration, metadata(entry.record.tag_attempt), connection)
        attempt, chosen = self._attempt(), None
        if connection.driver.capabilities.caller_chosen_id:
            chosen = Registration(client_id(owner.uid, attempt[:8]), new_secret())
        opened = entry.with_record(
            state=State.ROTATING,
            attempt=attempt,
            attempt_started=self._entries.wall(),
            intent=Intent.of(ROTATE, metadata(attempt[:8])),
            rotation_refusal=None,
            token_lifetime=lifetime,
        )
        entry, version = await self._entries.write(replace(opened, chosen=chosen), version)
        await tell("Normal", reasons.ROTATION_STARTED, f"A client is made to replace {entry.record.client_id}")
        await self._entries.shield(self._make(entry, version, connection, tell, request=request, fresh=True))

    async def resume(
        self,
        owner: Meta,
        metadata: Callable[[str], ClientMetadata],
        connection: Connection,
        tell: Tell,
        *,
        attempt: str,
        request: str | None,
    ) -> None:
        """Take an interrupted attempt up, where repeating it makes nothing new. Raises as `begin`."""
        entry, version = await self._read(owner, State.ROTATING)
        if entry.record.attempt != attempt:
            raise moved(owner)
        if entry.chosen is not None:
            if not connection.driver.capabilities.caller_chosen_id:
                what = f"client {entry.chosen.client_id} was to be made before the kind of registration was changed"
                await self._entries.report_uncertain(tell, what)
                await self._give_up(entry, version, tell, reasons.INTENT_OPEN, what, request, uncertain=True)
                return
            # Whatever the interrupted request made is overwritten, so that it can be what spec says by now.
            entry = entry.with_record(intent=Intent.of(ROTATE, metadata(attempt[:8])))
        await self._entries.shield(self._make(entry, version, connection, tell, request=request, fresh=False))

    async def give_up(self, owner: Meta, tell: Tell, *, request: str | None) -> None:
        """Let an interrupted attempt go that cannot be repeated: a client may be left behind, and is counted."""
        entry, version = await self._read(owner, State.ROTATING)
        text = "it was interrupted, and this server does not tell whether a client was made"
        await self._entries.report_uncertain(tell, "a rotation was interrupted")
        await self._give_up(entry, version, tell, reasons.INTENT_OPEN, text, request, uncertain=True)

    async def hold(self, owner: Meta, least: float, overlap: float) -> None:
        """Begin the second client's wait: until no token can live that its credentials get within `overlap` seconds
        from its beginning, at least `least` seconds. A wait that has begun is reckoned anew from the same beginning.
        """
        entry, version = await self._read(owner, State.REGISTERED)
        second, lifetime = entry.record.second, entry.record.token_lifetime
        if second is None or (second.due is not None and second.overlap == overlap):
            raise moved(owner)
        began = self._entries.wall() if second.held is None else second.held
        wait = max(overlap + (UNKNOWN_LIFETIME if lifetime is None else lifetime), least)
        waiting = second.model_copy(update={"held": began, "due": began + wait, "overlap": overlap})
        await self._entries.write(entry.with_record(second=waiting), version)

    async def take_over(self, owner: Meta, metadata: ClientMetadata, connection: Connection, tell: Tell) -> None:
        """The next client comes into use, once the server has given it a token; one that gets none is made in vain."""
        entry, version = await self._read(owner, State.REGISTERED)
        second, registration = entry.record.second, entry.second
        if second is None or second.role is not Role.NEXT or registration is None:
            raise moved(owner)
        try:
            lifetime = await self._mint(registration, metadata, connection)
        except TokenRefused as refused:
            text = f"the new client gets no token: {refused}"
            await self._seconds.demote(entry, version, tell, reasons.INVALID_CLIENT_METADATA, text)
            return
        known = entry.record.token_lifetime
        if lifetime is not None:
            entry = entry.with_record(token_lifetime=max(lifetime, known or 0.0))
        await self._entries.write(exchanged(entry, Role.OLD), version)

    async def update_second(self, owner: Meta, metadata: ClientMetadata, connection: Connection, tell: Tell) -> None:
        """Bring the second client to what it is to hold by now, as the one in use. Raises as `SecondClients.update`."""
        entry, version = await self._read(owner, State.REGISTERED)
        if entry.record.second is None or entry.second is None:
            raise moved(owner)
        step = self._seconds.update(entry, version, metadata, connection, tell, attempt=self._attempt())
        await self._entries.shield(step)

    async def roll_back(self, owner: Meta) -> None:
        """The old client comes into use again; the new one was made in vain."""
        entry, version = await self._read(owner, State.REGISTERED)
        if entry.record.second is None or entry.record.second.role is not Role.OLD:
            raise moved(owner)
        await self._entries.write(exchanged(entry, Role.SURPLUS), version)

    async def end_second(self, owner_uid: str, connection: Connection, tell: Tell) -> None:
        """Delete the second client, whatever its role."""
        found = await self._entries.read(owner_uid)
        if found is not None:
            await self._entries.shield(self._seconds.end(*found, connection, tell))

    # --- what these share --------------------------------------------------------------------------------------------

    async def _read(self, owner: Meta, state: State) -> tuple[Entry, str]:
        found = await self._entries.read(owner.uid)
        if found is None or found[0].record.state is not state:
            raise moved(owner)
        return found

    async def _make(
        self, entry: Entry, version: str, connection: Connection, tell: Tell, *, request: str | None, fresh: bool
    ) -> None:
        """Send the open attempt and store its answer. `fresh`: it was not sent before."""
        try:
            registration = await connection.driver.register(open_intent(entry), entry.record.attempt, entry.chosen)
        except RegisteredOtherwise as otherwise:
            second = described(entry, otherwise.registration, Role.SURPLUS, connection, self._entries.wall())
            made = entry.with_record(second=second)
            await self._give_up(
                replace(made, second=otherwise.registration),
                version,
                tell,
                otherwise.reason,
                otherwise.message,
                request,
            )
            return
        except AttemptSpent as spent:
            await self._entries.report_uncertain(tell, str(spent))
            await self._give_up(entry, version, tell, reasons.INTENT_OPEN, str(spent), request, uncertain=True)
            return
        except ServerUnavailable as failure:
            if fresh and not failure.uncertain:
                closed = entry.with_record(state=State.REGISTERED, intent=None)
                await self._entries.store(replace(closed, chosen=None), version)
            raise
        except (UserMustEdit, AdministratorMustAct) as refused:
            if isinstance(refused, RegistrationRefused) and not fresh:
                raise  # an earlier request may have gone through before, say, the credential was changed
            if entry.chosen is not None and not isinstance(refused, RegistrationRefused):
                await connection.driver.delete(entry.chosen)  # a part of it may be there
            await self._give_up(entry, version, tell, refused.reason, refused.message, request)
            if isinstance(refused, RegistrationRefused):
                raise
            return
        stored = entry.with_record(
            state=State.REGISTERED,
            intent=None,
            second=described(entry, registration, Role.NEXT, connection, self._entries.wall()),
            rotation_request=request,
        )
        await self._entries.store(replace(stored, second=registration, chosen=None), version)

    async def _give_up(
        self,
        entry: Entry,
        version: str,
        tell: Tell,
        reason: str,
        message: str,
        request: str | None,
        *,
        uncertain: bool = False,
    ) -> None:
        """Back to the client in use, which served all the time; the next turn tries again."""
        await tell("Warning", reasons.ROTATION_GIVEN_UP, given_up(entry, message))
        closed = entry.with_record(
            state=State.REGISTERED,
            intent=None,
            rotation_refusal=rotation_refusal(reason, message, request, self._entries.wall()),
            uncertain=entry.record.uncertain + uncertain,
        )
        await self._entries.store(replace(closed, chosen=None), version)

    async def _lifetime(
        self, entry: Entry, registration: Registration, metadata: ClientMetadata, connection: Connection
    ) -> float | None:
        """How long the server's tokens live, as far as was ever seen; asked for once in each rotation."""
        known = entry.record.token_lifetime
        try:
            seen = await self._mint(registration, metadata, connection)
        except TokenRefused:
            return known  # the client in use has other troubles; a new one may end them
        return known if seen is None else max(seen, known or 0.0)

    async def _mint(self, registration: Registration, metadata: ClientMetadata, connection: Connection) -> float | None:
        """The lifetime of a token of this client's, which is revoked where it can be. Raises TokenRefused."""
        tokens = connection.tokens
        secret = registration.client_secret
        token = await tokens.mint(registration.client_id, secret, metadata.scopes, next(iter(metadata.audiences), None))
        await tokens.revoke_at_best(registration.client_id, secret, token)
        return token.expires_in


def exchanged(entry: Entry, role: Role) -> Entry:
    """The entry with its two clients in each other's place; `role` is what the one that leaves is from now on."""
    record, second = entry.record, entry.record.second
    if second is None or record.client_id is None:
        raise ValueError("there are no two clients to exchange")
    left = second.model_copy(
        update={
            "role": role,
            "client_id": record.client_id,
            "tag_attempt": record.tag_attempt,
            "manageable": record.manageable,
            "registered": record.registered,
            "metadata_digest": record.metadata_digest,
            "audiences": record.audiences,
            "scopes": record.scopes,
            "held": None,
            "due": None,
            "overlap": 0.0,
            "intent": None,
            "attempt": None,
            "refused": None,
        }
    )
    exchanged_record = entry.with_record(
        client_id=second.client_id,
        tag_attempt=second.tag_attempt,
        manageable=second.manageable,
        registered=second.registered,
        metadata_digest=second.metadata_digest,
        audiences=second.audiences,
        scopes=second.scopes,
        second=left,
    )
    return replace(exchanged_record, registration=entry.second, second=entry.registration)
