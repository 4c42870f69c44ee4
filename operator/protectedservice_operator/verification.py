"""The live proof: 401 without a token, 204 with a fresh one, 401 after its revocation, on each ready pod.

It asks the pods themselves, at pod IP and service port, on the reserved path, with a token that the service's own
client mints. It is scheduled work of its own: a proof may wait up to a minute for the revocation to show, and no
worker of the queue waits with it. Its calls to the authorization server go through the same limits and the same breaker
as registration.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from typing import Final

import httpx

from .appointment import Appointment, cancel_all
from .errors import Outcome, foreign_text
from .pod_certificate import Unusable
from .proof import Check, Pod, Proof, Verdict, duration
from .registration.driver import Registration
from .registration.remote import USER_AGENT
from .registration.token import Token, TokenEndpoint, TokenRefused
from .resource import Key

logger = logging.getLogger(__name__)

CHECK_PATH: Final = "/.well-known/protectedservice/check"
INTERVAL: Final = 6 * 3600.0  # seconds between proofs of an unchanged service (design: every 6 h, jittered)
PATIENCE: Final = 60.0  # seconds: the third step is given no longer (design: at most 60 s)
MARGIN: Final = 2.0  # seconds added to the bound for the calls themselves
POLL: Final = 0.25  # seconds between two questions whether a revocation has arrived
POD_TIMEOUT: Final = 5.0  # seconds for one answer of a pod: its own introspection has 2 s by default
CONCURRENCY: Final = 8  # proofs at once in their first two steps; the rest wait their turn
MOST_PODS: Final = 60  # asked in one proof, and told in status
LONGEST_TURN: Final = 60.0  # seconds for the first two steps, so that nobody keeps the others from theirs
FIRST_RETRY: Final = 5.0  # seconds after a proof that did not succeed; doubles
LONGEST_RETRY: Final = 300.0


@dataclass(frozen=True)
class Subject:
    """What is to be proved."""

    key: Key
    uid: str
    template: str
    pods: Callable[[], tuple[Pod, ...]]  # those that are ready at the moment of asking
    port: int
    scopes: tuple[str, ...]
    audience: str | None
    max_revocation_delay: float  # seconds
    tokens: Callable[[], Awaitable[TokenEndpoint]]
    registration: Callable[[], Awaitable[Registration | None]]  # read when needed, not kept
    tls: Callable[[], Awaitable[ssl.SSLContext]] | None = None  # whom to believe, where pods speak TLS; read likewise


@dataclass
class _Record(Appointment):
    """What is known about one service."""

    proof: Proof | None = None
    proved_pods: frozenset[str] = frozenset()


class Verifier:
    """Runs proofs and remembers them. `clock` is monotonic seconds, `wall` seconds since the epoch."""

    def __init__(
        self,
        wake: Callable[[Key], None],
        *,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._wake, self._interval, self._clock, self._wall = wake, interval, clock, wall
        self._sleep, self._jitter = sleep, jitter
        self._turns = asyncio.Semaphore(CONCURRENCY)
        self._records: dict[str, _Record] = {}
        # No proxy from the environment, no redirects, no cookies: the pods themselves are asked, and nobody else.
        self._transport = transport
        self._client = self._connect(True)
        self._secure: dict[str, httpx.AsyncClient] = {}  # uid of a service whose pods speak TLS, during its proof

    def _connect(self, tls: ssl.SSLContext | bool) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=self._transport,
            verify=tls,
            trust_env=False,
            follow_redirects=False,
            timeout=POD_TIMEOUT,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def aclose(self) -> None:
        """Cancel what runs and close the connections."""
        await cancel_all(self._records.values())
        await self._client.aclose()

    def recognise(self, uid: str, pods: Collection[str]) -> None:
        """Believe what status says was proved before this process; the next proof falls due within one interval."""
        if uid not in self._records:
            due = self._clock() + self._interval * self._jitter()
            self._records[uid] = _Record(proved_pods=frozenset(pods), due=due)

    def forget(self, uid: str) -> None:
        """The service is gone."""
        record = self._records.pop(uid, None)
        if record is not None:
            record.cancel()

    def proof(self, uid: str) -> Proof | None:
        """The last proof of this process."""
        record = self._records.get(uid)
        return record.proof if record else None

    def running(self, uid: str) -> bool:
        """Whether a proof is under way."""
        record = self._records.get(uid)
        return record is not None and record.task is not None

    def due(self, uid: str, pods: Collection[Pod]) -> bool:
        """Whether it is time for another proof, or a pod has come that was never proved."""
        record = self._records.get(uid)
        if record is None:
            return True
        if self._clock() >= record.due:
            return True
        return record.failures == 0 and any(pod.ready and pod.name not in record.proved_pods for pod in pods)

    def next_due(self, uid: str) -> float | None:
        """Seconds until the next proof falls due; None where no clock is waited for."""
        record = self._records.get(uid)
        return record.next_due(self._clock()) if record is not None else None

    def start(self, subject: Subject) -> None:
        """Begin a proof, unless one is under way; the service's key is woken when it ends."""
        record = self._records.setdefault(subject.uid, _Record())
        if record.task is None:
            record.task = asyncio.create_task(self._run(subject, record), name=f"verify {subject.key}")

    async def _run(self, subject: Subject, record: _Record) -> None:
        pods: tuple[Pod, ...] = ()
        try:
            async with self._turns:
                # Read now and not when the proof was asked for: a pod that has gone may have left its address to
                # somebody else, who must not be shown a token.
                pods = subject.pods()[:MOST_PODS]
                async with asyncio.timeout(LONGEST_TURN):
                    proof, third = await self._first_steps(subject, pods)
            if third is not None:  # waiting for a revocation to arrive holds up nobody else's proof
                proof = await self._third(subject, pods, *third)
        except TimeoutError:
            text = f"the first steps of the proof did not end within {LONGEST_TURN:.0f} s"
            proof = self._ended(subject, Verdict.INCONCLUSIVE, (), text)
        except Exception:  # a bug must not end the service's proofs for good
            logger.exception("Verification of %s failed by a fault of the operator", subject.key)
            proof = self._ended(subject, Verdict.INCONCLUSIVE, (), "the operator failed to verify; see its log")
        finally:
            record.task = None
            client = self._secure.pop(subject.uid, None)
            if client is not None:
                await client.aclose()
        record.proof = proof
        if proof.verdict in (Verdict.PROVED, Verdict.REVOCATION_NOT_PROVED):
            record.proved_pods = frozenset(pod.name for pod in pods)
            record.succeeded(self._clock(), self._interval, self._jitter())
        else:
            record.failed(self._clock(), FIRST_RETRY, LONGEST_RETRY, self._jitter())
        logger.info("Verified %s: %s: %s", subject.key, proof.verdict.value, proof.message)
        self._wake(subject.key)

    async def _first_steps(
        self, subject: Subject, pods: tuple[Pod, ...]
    ) -> tuple[Proof, tuple[Token, tuple[Check, ...]] | None]:
        """Mint, ask without and with the token, revoke. The proof as it ended, or what the third step needs."""
        if not pods:
            return self._ended(subject, Verdict.INCONCLUSIVE, (), "no pod is ready"), None
        try:
            if subject.tls is not None:
                self._secure[subject.uid] = self._connect(await subject.tls())
            endpoint, registration = await subject.tokens(), await subject.registration()
            if registration is None:
                return self._ended(subject, Verdict.INCONCLUSIVE, (), "the client is being replaced"), None
            token = await endpoint.mint(
                registration.client_id, registration.client_secret, subject.scopes, subject.audience
            )
        except Unusable as unusable:
            text = f"pods cannot be asked by TLS: the Secret of spec.workload.tls.secretName {unusable}; correct it"
            return self._ended(subject, Verdict.UNREACHABLE, (), text), None
        except TokenRefused as refused:
            text = f"the service's own client got no token for the scopes of spec: {refused}"
            return self._ended(subject, Verdict.FAILED, (), text), None
        except Outcome as outcome:
            return self._ended(subject, Verdict.INCONCLUSIVE, (), outcome.message), None
        revoked = False
        checks: tuple[Check, ...] = ()
        try:
            checks, fault = await self._first_two(subject, pods, token)
            if fault is not None:
                return self._ended(subject, fault[0], checks, fault[1]), None
            revoked = await endpoint.revoke(registration.client_id, registration.client_secret, token.value)
            if not revoked:
                text = "pods refuse without a token and accept a fresh one; the server has no revocation endpoint"
                return self._ended(subject, Verdict.REVOCATION_NOT_PROVED, checks, text), None
            return self._ended(subject, Verdict.INCONCLUSIVE, checks, ""), (token, checks)
        except TokenRefused as refused:
            text = f"pods refuse without a token and accept a fresh one; its revocation was refused: {refused}"
            return self._ended(subject, Verdict.REVOCATION_NOT_PROVED, checks, text), None
        except Outcome as outcome:
            return self._ended(subject, Verdict.INCONCLUSIVE, (), outcome.message), None
        finally:
            if not revoked and endpoint.can_revoke:
                await self._revoke_at_best(endpoint, registration, token)

    async def _revoke_at_best(self, endpoint: TokenEndpoint, registration: Registration, token: Token) -> None:
        """A proof that stopped early leaves no token behind, if that can be helped."""
        try:
            await endpoint.revoke(registration.client_id, registration.client_secret, token.value)
        except (Outcome, TokenRefused) as failure:
            logger.warning("A verification token could not be revoked and lives until it expires: %s", failure)

    async def _first_two(
        self, subject: Subject, pods: tuple[Pod, ...], token: Token
    ) -> tuple[tuple[Check, ...], tuple[Verdict, str] | None]:
        """Ask each pod without and with the token; (answers, what was wrong)."""
        results = await asyncio.gather(*(self._ask_twice(subject, pod, token) for pod in pods))
        checks = tuple(check for check, _ in results)
        faults = [fault for _, fault in results if fault is not None]
        worst = next((fault for fault in faults if fault[0] is Verdict.FAILED), faults[0] if faults else None)
        return checks, worst

    async def _ask_twice(self, subject: Subject, pod: Pod, token: Token) -> tuple[Check, tuple[Verdict, str] | None]:
        check = Check(pod.name)
        try:
            without, challenge = await self._ask(subject, pod, None)
            check = replace(check, without_token=without)
            if without != 401 or not challenge.lower().startswith("bearer"):
                return check, _wrong(pod, "without a token", without, "401 with a Bearer challenge")
            with_token, _ = await self._ask(subject, pod, token)
            check = replace(check, with_token=with_token)
        except (httpx.HTTPError, TimeoutError) as error:
            text = (
                f"pod {pod.name} cannot be called at {pod.ip}:{subject.port} ({type(error).__name__}); let the "
                "operator's pods reach that port: add a NetworkPolicy ingress rule from namespace "
                "protectedservice-system, or exempt the port from the mesh"
            )
            return check, (Verdict.UNREACHABLE, text)
        if with_token == 503:
            return check, (Verdict.INCONCLUSIVE, f"pod {pod.name} gets no answer from the authorization server")
        if with_token != 204:
            return check, _wrong(pod, "with a fresh token", with_token, "204")
        return check, None

    async def _third(self, subject: Subject, pods: tuple[Pod, ...], token: Token, checks: tuple[Check, ...]) -> Proof:
        """Wait until each pod refuses the revoked token, as long as the bound promises and at most a minute."""
        revoked_at = self._clock()
        bound = min(subject.max_revocation_delay + MARGIN, PATIENCE)
        done = await asyncio.gather(
            *(
                self._until_refused(subject, pod, token, check, revoked_at, bound)
                for pod, check in zip(pods, checks, strict=True)
            )
        )
        checks = tuple(check for check, _ in done)
        faults = [fault for _, fault in done if fault is not None]
        if faults:
            verdict, text = faults[0]
            return self._ended(subject, verdict, checks, text)
        text = "401 without a token, 204 with a fresh one, 401 after its revocation, on every ready pod"
        return self._ended(subject, Verdict.PROVED, checks, text)

    async def _until_refused(
        self, subject: Subject, pod: Pod, token: Token, check: Check, revoked_at: float, bound: float
    ) -> tuple[Check, tuple[Verdict, str] | None]:
        while True:
            asked_at = self._clock()
            try:
                code, _ = await self._ask(subject, pod, token)
            except (httpx.HTTPError, TimeoutError) as error:
                text = f"pod {pod.name} did not answer after the revocation ({foreign_text(type(error).__name__)})"
                return check, (Verdict.UNREACHABLE, text)
            check = replace(check, after_revocation=code)
            if code == 401:
                return replace(check, revocation_delay=max(0.0, asked_at - revoked_at)), None
            if code == 503:
                return check, (Verdict.INCONCLUSIVE, f"pod {pod.name} gets no answer from the authorization server")
            if self._clock() - revoked_at >= bound:
                if subject.max_revocation_delay + MARGIN > PATIENCE:
                    text = (
                        f"pods refuse without a token and accept a fresh one; spec.validation.maxRevocationDelay is "
                        f"longer than the {PATIENCE:.0f} s that a proof waits"
                    )
                    return check, (Verdict.REVOCATION_NOT_PROVED, text)
                return check, _wrong(pod, f"{duration(bound)} after the token's revocation", code, "401")
            await self._sleep(POLL)

    async def _ask(self, subject: Subject, pod: Pod, token: Token | None) -> tuple[int, str]:
        """(status, WWW-Authenticate) of one pod."""
        host = f"[{pod.ip}]" if pod.ip and ":" in pod.ip else pod.ip
        headers = {"Authorization": f"Bearer {token.value}"} if token else {}
        client = self._secure.get(subject.uid, self._client)
        url = f"{'http' if subject.tls is None else 'https'}://{host}:{subject.port}{CHECK_PATH}"
        # The head of the answer says it all; the body is anybody's, as long as he likes, and is not read.
        async with asyncio.timeout(POD_TIMEOUT), client.stream("GET", url, headers=headers) as response:
            return response.status_code, response.headers.get("www-authenticate", "")

    def _ended(self, subject: Subject, verdict: Verdict, checks: tuple[Check, ...], message: str) -> Proof:
        return Proof(subject.template, verdict, checks, self._wall(), message)


def _wrong(pod: Pod, asked: str, got: int, wanted: str) -> tuple[Verdict, str]:
    text = f"pod {pod.name} answered {got} {asked}, not {wanted}; read the pod's log and status.verification.checks"
    return Verdict.FAILED, text
