"""Questions to an authorization server, awaited: what a test wants to say in one line."""

from __future__ import annotations

import asyncio

from protectedservice_server.introspection import Introspection
from protectedservice_server.question import Learnt, Outcome


class Awaited:
    """An `Asker` as a future."""

    def __init__(self) -> None:
        self.outcome: asyncio.Future[Learnt] = asyncio.get_running_loop().create_future()

    def told(self, outcome: Outcome) -> None:
        """Called once; a second time is an error."""
        if isinstance(outcome, Learnt):
            self.outcome.set_result(outcome)
        else:
            self.outcome.set_exception(outcome)


async def ask(introspection: Introspection, token: str) -> Learnt:
    """What the server says about `token`.

    Raises:
        Unavailable: nothing that can be trusted.
    """
    awaited = Awaited()
    introspection(token, awaited)
    return await awaited.outcome
