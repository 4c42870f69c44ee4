"""Trying whether an isolated upstream is: a connection from the operator, which is nobody to it.

Only addresses of pods that the upstream's Service selects are connected to, on its target port, by TCP alone: the
connection is ended at once and nothing is sent. That it is refused means something only where the same connection of
the resource server is not, which its pods say on their management port. A trial is made after each change of the policy
and with the proofs' interval; not again because a pod was replaced.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from .appointment import Appointment, cancel_all
from .isolation import Finding, Target, Trial
from .proof import Pod
from .registration.remote import USER_AGENT
from .resource import Key
from .verification import INTERVAL

logger = logging.getLogger(__name__)

UPSTREAM_PATH: Final = "/upstream"  # of the resource server's management port
PATIENCE: Final = 3.0  # seconds for one connection
MOST_TARGETS: Final = 5  # of the upstream's pods, and of the resource server's, in one trial
CONCURRENCY: Final = 4  # trials at once
FIRST_RETRY: Final = 5.0  # seconds after a trial that did not end as wished; doubles
LONGEST_RETRY: Final = 3600.0
GRACE: Final = 3  # accepted connections until it is said: a network needs a moment for a policy

# How a network keeps somebody out; whatever else goes wrong with a connection may be ours.
_REFUSALS: Final = frozenset({errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTUNREACH, errno.ETIMEDOUT})

Connect = Callable[[str, int], Awaitable[None]]


@dataclass(frozen=True)
class Subject:
    """What is to be tried."""

    key: Key
    uid: str
    policy: str
    targets: tuple[Target, ...]
    servers: Callable[[], Sequence[Pod]]  # the resource server's pods that are ready at the moment of asking
    management_port: int


@dataclass
class _Record(Appointment):
    trial: Trial | None = None


async def connect(ip: str, port: int) -> None:
    """Connect and part. Raises OSError."""
    _, writer = await asyncio.open_connection(ip, port)
    writer.transport.abort()


class Trials:
    """Makes them and remembers them. `clock` is monotonic seconds."""

    def __init__(
        self,
        wake: Callable[[Key], None],
        *,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        connect: Connect = connect,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._wake, self._interval, self._clock, self._jitter = wake, interval, clock, jitter
        self._connect = connect
        self._turns = asyncio.Semaphore(CONCURRENCY)
        self._records: dict[str, _Record] = {}
        self._client = httpx.AsyncClient(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            timeout=PATIENCE,
            headers={"User-Agent": USER_AGENT},
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def aclose(self) -> None:
        """Cancel what runs and close the connections."""
        await cancel_all(self._records.values())
        await self._client.aclose()

    def recognise(self, uid: str, trial: Trial) -> None:
        """Believe what status says of a trial before this process; the next falls due within one interval."""
        if uid not in self._records:
            self._records[uid] = _Record(trial, due=self._clock() + self._interval * self._jitter())

    def forget(self, uid: str) -> None:
        """The service is gone, or its upstream is not to be isolated any more."""
        record = self._records.pop(uid, None)
        if record is not None:
            record.cancel()

    def trial(self, uid: str) -> Trial | None:
        """The last one."""
        record = self._records.get(uid)
        return record.trial if record else None

    def due(self, uid: str, policy: str) -> bool:
        """Whether it is time to try this policy."""
        record = self._records.get(uid)
        if record is None or record.trial is None:
            return record is None or record.task is None
        changed = record.trial.policy != policy
        return record.task is None and (changed or self._clock() >= record.due)

    def next_due(self, uid: str) -> float | None:
        """Seconds until the next one falls due; None where no clock is waited for."""
        record = self._records.get(uid)
        return record.next_due(self._clock()) if record is not None else None

    def start(self, subject: Subject) -> None:
        """Begin a trial, unless one is under way; the service's key is woken when it ends."""
        record = self._records.setdefault(subject.uid, _Record())
        if record.trial is not None and record.trial.policy != subject.policy:
            record.trial, record.failures = None, 0
        if record.task is None:
            record.task = asyncio.create_task(self._run(subject, record), name=f"try {subject.key}")

    async def _run(self, subject: Subject, record: _Record) -> None:
        try:
            async with self._turns:
                finding, message = await self._try(subject)
        except Exception:  # a bug must not end the service's trials for good
            logger.exception("The trial of %s failed by a fault of the operator", subject.key)
            finding, message = Finding.NOTHING, "the operator failed to try; see its log"
        finally:
            record.task = None
        if finding is Finding.REFUSED:
            record.succeeded(self._clock(), self._interval, self._jitter())
        else:
            record.failed(self._clock(), FIRST_RETRY, LONGEST_RETRY, self._jitter())
            if finding is Finding.ACCEPTED and record.failures < GRACE:
                finding, message = Finding.NOTHING, f"{message}; tried again in a moment"
        record.trial = Trial(subject.policy, finding, message)
        logger.info("Tried the upstream of %s: %s: %s", subject.key, finding.value, message)
        self._wake(subject.key)

    async def _try(self, subject: Subject) -> tuple[Finding, str]:
        targets = subject.targets[:MOST_TARGETS]
        ends = await asyncio.gather(*(self._reaches(target) for target in targets))
        for target, end in zip(targets, ends, strict=True):
            if end is True:
                return (
                    Finding.ACCEPTED,
                    f"pod {target.pod} takes connections at {target.ip}:{target.port} from elsewhere",
                )
        if not targets or None in ends:
            return Finding.NOTHING, "the operator could not try a connection"
        through = await asyncio.gather(*(self._gets_through(subject, pod) for pod in subject.servers()[:MOST_TARGETS]))
        if not any(through):
            return Finding.NOTHING, "connections are refused, but the resource server's pods do not get through either"
        return Finding.REFUSED, "the upstream's pods refused connections from elsewhere, not the resource server's"

    async def _reaches(self, target: Target) -> bool | None:
        """Whether the pod takes a connection; None: nobody knows."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._connect(target.ip, target.port)
        except TimeoutError:
            return False
        except OSError as error:
            return False if error.errno in _REFUSALS else None
        return True

    async def _gets_through(self, subject: Subject, pod: Pod) -> bool:
        """Whether this pod of the resource server reaches the upstream."""
        host = f"[{pod.ip}]" if pod.ip and ":" in pod.ip else pod.ip
        url = f"http://{host}:{subject.management_port}{UPSTREAM_PATH}"
        try:
            async with asyncio.timeout(PATIENCE), self._client.stream("GET", url) as response:
                return response.status_code == 204
        except (httpx.HTTPError, TimeoutError):
            return False
