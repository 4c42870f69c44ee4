"""The program as a process: what it refuses to start with, what it tells, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from protectedservice_server.settings import Settings, SettingsError, load

from ..support.echo_upstream import EchoUpstream
from ..support.introspection_server import IntrospectionServer
from .running import behind, policy_text
from .server_process import credentials_folder, run, started
from .wire import ask, head, reply

GOOD_POLICY = {
    "scopes": ["read"],
    "demo": True,
    "authorizationServers": [{"endpoints": {"introspection": "https://as.example/introspect"}}],
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a good policy and good credentials."""
    credentials_folder(tmp_path / "credentials", "orders", "a-secret-in-this-test")
    (tmp_path / "policy.yaml").write_text(json.dumps(GOOD_POLICY))
    return tmp_path


def test_every_fault_of_policy_and_credentials_is_one_line_and_the_status_is_2(place: Path) -> None:
    policy = place / "policy.yaml"
    policy.write_text("{scopes: [read, 'a b'], demo: true, rules: [], authorizationServers: [{issuer: 'http://as'}]}")
    (place / "credentials" / "client_id").unlink()
    (place / "credentials" / "client_secret").write_text("a-secret-in-this-test\nand more")

    ended = run(["--policy", str(policy), "--credentials", str(place / "credentials")], {})

    told = [
        line.removeprefix(f"{policy}: ").removeprefix(f"{place}/credentials/") for line in ended.stderr.splitlines()
    ]
    assert ended.returncode == 2
    assert sorted(line.split(":")[0] for line in told) == sorted(
        [
            "scopes[1]",
            "authorizationServers[0].issuer",
            "authorizationServers[0].endpoints",
            "rules",
            "client_id",
            "client_secret",
        ]
    )
    assert "a-secret-in-this-test" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "starts"),
    [
        ([], {}, ["--policy: is required", "--credentials: is required"]),
        (["--policy", "p"], {"PROTECTEDSERVICE_CREDENTIALS": ""}, ["--credentials: is required"]),
        (
            ["--policy", "p", "--credentials", "c", "--port", "x", "--management-port", "65536"],
            {"PROTECTEDSERVICE_LOG_LEVEL": "loud"},
            ["--port: must be a port", "--management-port: must be a port", "--log-level: must be debug"],
        ),
        (
            ["--policy", "p", "--credentials", "c", "--port", "9090"],
            {},
            ["--management-port: is 9090 like --port"],
        ),
    ],
)
def test_faulty_settings_are_all_told(arguments: list[str], environment: dict[str, str], starts: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load(arguments, environment)

    assert len(caught.value.faults) == len(starts)
    assert all(fault.startswith(start) for fault, start in zip(caught.value.faults, starts, strict=True))


def test_the_command_line_wins_over_the_environment() -> None:
    environment = {
        "PROTECTEDSERVICE_POLICY": "env.yaml",
        "PROTECTEDSERVICE_CREDENTIALS": "env",
        "PROTECTEDSERVICE_PORT": "1000",
        "PROTECTEDSERVICE_MANAGEMENT_PORT": "2000",
    }

    assert load(["--policy", "here.yaml", "--port", "3000"], environment) == Settings(
        Path("here.yaml"), Path("env"), 3000, 2000, "info"
    )
    assert load([], {**environment, "PROTECTEDSERVICE_LOG_LEVEL": "debug"}).log_level == "debug"


def test_the_defaults_are_the_documented_ones() -> None:
    settings = load(["--policy", "p", "--credentials", "c"], {})

    assert (settings.port, settings.management_port, settings.log_level) == (8080, 9090, "info")


def test_a_policy_file_that_is_not_there_is_told_with_its_cause(place: Path) -> None:
    ended = run(["--policy", str(place / "none.yaml"), "--credentials", str(place / "credentials")], {})

    assert ended.returncode == 2
    assert ended.stderr == f"{place}/none.yaml: cannot be read: No such file or directory\n"


def test_certification_authorities_that_cannot_be_read_are_told_and_end_it(place: Path) -> None:
    server = {"endpoints": {"introspection": "https://as.example/i"}, "tls": {"caFile": f"{place}/none.crt"}}
    (place / "policy.yaml").write_text(json.dumps({**GOOD_POLICY, "authorizationServers": [server]}))

    ended = run(["--policy", str(place / "policy.yaml"), "--credentials", str(place / "credentials")], {})

    assert ended.returncode == 2
    assert ended.stderr == f"{place}/none.crt: cannot be read: No such file or directory\n"


def test_those_of_the_upstream_too(place: Path) -> None:
    upstream = {"url": "https://orders", "tls": {"caFile": f"{place}/none.crt"}}
    policy = {key: value for key, value in GOOD_POLICY.items() if key != "demo"}
    (place / "policy.yaml").write_text(json.dumps({**policy, "upstream": upstream}))

    ended = run(["--policy", str(place / "policy.yaml"), "--credentials", str(place / "credentials")], {})

    assert ended.returncode == 2
    assert ended.stderr == f"{place}/none.crt: cannot be read: No such file or directory\n"


def test_a_secret_of_the_webhook_that_cannot_be_read_is_told_and_ends_it(place: Path) -> None:
    validation = {"revocationWebhook": {"secretFile": f"{place}/none"}}
    (place / "policy.yaml").write_text(json.dumps({**GOOD_POLICY, "validation": validation}))

    ended = run(["--policy", str(place / "policy.yaml"), "--credentials", str(place / "credentials")], {})

    assert ended.returncode == 2
    assert ended.stderr == f"{place}/none: cannot be read: No such file or directory\n"


def test_an_option_that_does_not_exist_is_2_and_version_and_help_are_0() -> None:
    assert run(["--polcy", "x"], {}).returncode == 2
    assert run(["--version"], {}).stdout.strip()
    assert "PROTECTEDSERVICE_MANAGEMENT_PORT" in run(["--help"], {}).stdout


def test_a_port_that_is_taken_is_1_with_its_cause(place: Path) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as taken:
        port = str(taken.getsockname()[1])
        arguments = ["--policy", str(place / "policy.yaml"), "--credentials", str(place / "credentials")]
        ended = run([*arguments, "--port", port, "--management-port", "0"], {})

    assert ended.returncode == 1
    assert ended.stderr == f"port {port}: cannot listen: Address already in use\n"


async def test_management_tells_health_readiness_and_metrics_and_the_service_port_does_not(place: Path) -> None:
    with started(place / "policy.yaml", place / "credentials") as process:
        answers = {
            path: await ask(process.management_port, path) for path in ("/healthz", "/readyz", "/metrics", "/protected")
        }
        not_here = [(await ask(process.port, path)).status for path in ("/healthz", "/readyz", "/metrics")]

    assert {path: answer.status for path, answer in answers.items()} == {
        "/healthz": 200,
        "/readyz": 200,
        "/metrics": 200,
        "/protected": 404,
    }
    assert b'protectedservice_requests_total{reason="ok"} 0.0' in answers["/metrics"].body
    assert not_here == [404, 404, 404]


async def test_readiness_does_not_depend_on_the_authorization_server(server: IntrospectionServer, place: Path) -> None:
    (place / "policy.yaml").write_text(policy_text(server))
    server.open.clear()
    with started(place / "policy.yaml", place / "credentials") as process:
        readiness = await ask(process.management_port, "/readyz")

    assert readiness.status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_lets_requests_under_way_finish_and_takes_no_new_ones(
    server: IntrospectionServer, place: Path, number: signal.Signals
) -> None:
    async with EchoUpstream() as upstream:
        (place / "policy.yaml").write_text(policy_text(server, **behind(upstream.url)))
        credentials_folder(place / "credentials", server.client_id, server.client_secret)
        with started(place / "policy.yaml", place / "credentials") as process:
            reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
            writer.write(head("GET", "/wait", token=server.issue()))
            await upstream.arrived.wait()
            process.process.send_signal(number)
            await asyncio.to_thread(process.log_until, "Draining")
            readiness = await ask(process.management_port, "/readyz")
            await _refused(process.port)
            upstream.go.set()
            answer = await reply(reader)
            after = await reader.read()
            writer.close()
            status, _ = await asyncio.to_thread(process.ended)

    assert readiness.status == 503
    assert (answer.status, answer.body, answer.complete) == (200, b"waited", True)
    assert (answer.value("connection"), after) == ("close", b"")
    assert status == 0


async def _refused(port: int) -> None:
    """Return when nobody listens there any more: the server looks for its end ten times a second."""
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return
            except ConnectionResetError:
                continue  # it came into the queue just before that was closed
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def test_a_rotated_secret_in_the_folder_is_used_without_a_restart(
    server: IntrospectionServer, place: Path
) -> None:
    (place / "policy.yaml").write_text(policy_text(server))
    folder = credentials_folder(place / "credentials", server.client_id, "the-old-secret")
    token = server.issue()
    with started(place / "policy.yaml", folder) as process:
        before = await ask(process.port, "/protected", token=token)
        credentials_folder(folder, server.client_id, server.client_secret)
        after = await ask(process.port, "/protected", token=token)
        process.process.terminate()
        status, log = await asyncio.to_thread(process.ended)

    assert (before.status, after.status, status) == (503, 200, 0)
    assert "refuses this server's own credentials" in log
    assert not [secret for secret in (token, "the-old-secret", server.client_secret) if secret in log]


async def test_no_line_is_logged_for_a_request(server: IntrospectionServer, place: Path) -> None:
    (place / "policy.yaml").write_text(policy_text(server))
    folder = credentials_folder(place / "credentials", server.client_id, server.client_secret)
    with started(place / "policy.yaml", folder) as process:
        for token in (None, "unknown", server.issue()):
            await ask(process.port, "/protected", token=token)
        await ask(process.port, "/protected", headers=[("Connection", "Upgrade"), ("Upgrade", "websocket")])
        await ask(process.port, "/nonsense\\", headers=[("Bad Name", "x")])
        process.process.terminate()
        _, log = await asyncio.to_thread(process.ended)

    assert [json.loads(line)["message"].split(":")[0] for line in log.splitlines()] == [
        "Serving",
        "Draining",
        "Drained",
    ]


def test_it_needs_nothing_of_the_operator() -> None:
    """Neither kopf nor a Kubernetes client nor httpx is in the server's image."""
    blocked = "import sys\nfor name in ('kopf', 'kubernetes', 'httpx'): sys.modules[name] = None\n"
    program = blocked + "import protectedservice_server.main as m, sys\nsys.exit(m.main(['--version']))"

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert (ended.returncode, ended.stderr) == (0, "")
