"""What is needed of a connection to an authorization server."""

from __future__ import annotations

from typing import Protocol

from ..authorization_server import Endpoints
from .driver import Driver
from .token import TokenEndpoint


class Connection(Protocol):
    """What is needed of a connection to an authorization server."""

    @property
    def driver(self) -> Driver: ...

    @property
    def tokens(self) -> TokenEndpoint: ...

    @property
    def endpoints(self) -> Endpoints: ...
