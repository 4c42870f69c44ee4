"""The environment becomes settings, or a complete list of what is wrong with it; and what the process does then."""

from __future__ import annotations

import json
import logging

import pytest

from protectedservice_operator import main, settings
from protectedservice_operator.settings import PREFIX, BadSettings, Settings


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)


def test_an_empty_environment_gives_the_documented_defaults() -> None:
    assert settings.load().model_dump() == {
        "namespace": "protectedservice-system",
        "default_authorization_server": None,
        "authorization_server_namespaces": (),
        "server_image": settings.default_server_image(),
        "cluster_id": None,
        "deletion_deadline": 86_400,
        "rollout_concurrency": 10,
        "verification": True,
        "cross_client_check": True,
        "workers": 16,
        "probe_interval": 30,
        "verification_interval": 21_600,
        "drift_interval": 3_600,
        "orphan_sweep": "report",
        "orphan_sweep_interval": 3_600,
        "orphan_sweep_limit": 10,
        "resync_interval": 1_200,
        "management_port": 8090,
        "log_level": "info",
    }
    assert settings.default_server_image().startswith("protectedservice/resource-server:0.")


def test_each_variable_has_the_prefix_and_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}NAMESPACE", "ops")
    monkeypatch.setenv(f"{PREFIX}DEFAULT_AUTHORIZATION_SERVER", "ops/default")
    monkeypatch.setenv(f"{PREFIX}VERIFICATION", "false")
    monkeypatch.setenv(f"{PREFIX}DELETION_DEADLINE", "90.5")
    monkeypatch.setenv(f"{PREFIX}LOG_LEVEL", "DEBUG")
    config = settings.load()

    assert config.default_server_place == ("ops", "default")
    assert (config.verification, config.deletion_deadline, config.log_level) == (False, 90.5, "debug")


def test_authorization_servers_count_in_the_operators_own_namespace_unless_others_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(f"{PREFIX}NAMESPACE", "ops")
    assert settings.load().honoured_namespaces == {"ops"}

    monkeypatch.setenv(f"{PREFIX}AUTHORIZATION_SERVER_NAMESPACES", "ops, identity,")
    assert settings.load().honoured_namespaces == {"ops", "identity"}


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}DEFAULT_AUTHORIZATION_SERVER", "")

    assert settings.load().default_authorization_server is None


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        pytest.param("WORKERS", "0", "greater than or equal to 1", id="too few workers"),
        pytest.param("WORKERS", "many", "valid integer", id="not a number"),
        pytest.param("NAMESPACE", "No_Good", "not the name of a namespace", id="not a namespace"),
        pytest.param("DEFAULT_AUTHORIZATION_SERVER", "default", "give namespace/name", id="no namespace"),
        pytest.param("DEFAULT_AUTHORIZATION_SERVER", "a/b/c", "give namespace/name", id="too much"),
        pytest.param("AUTHORIZATION_SERVER_NAMESPACES", "good,No", "not the name of a namespace", id="one of a list"),
        pytest.param("MANAGEMENT_PORT", "70000", "less than or equal to 65535", id="no such port"),
        pytest.param("MANAGEMENT_PORT", "tcp://10.0.0.1:8090", "valid integer", id="as Kubernetes injects it"),
        pytest.param("LOG_LEVEL", "loud", "'debug', 'info'", id="no such level"),
        pytest.param("VERIFICATION", "perhaps", "valid boolean", id="neither yes nor no"),
    ],
)
def test_a_bad_value_is_refused_by_name_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, complaint: str
) -> None:
    monkeypatch.setenv(PREFIX + name, value)

    with pytest.raises(BadSettings) as bad:
        settings.load()

    (fault,) = bad.value.faults
    assert fault.startswith(f"{PREFIX}{name}: ")
    assert complaint in fault


def test_every_fault_is_printed_at_once_and_the_exit_code_is_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"{PREFIX}WORKERS", "0")
    monkeypatch.setenv(f"{PREFIX}NAMESPACE", "No")
    monkeypatch.setenv(f"{PREFIX}LOG_LEVEL", "loud")

    with pytest.raises(SystemExit) as ended:
        main.main([])

    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert [line.partition(":")[0] for line in lines] == [
        f"{PREFIX}NAMESPACE", f"{PREFIX}WORKERS", f"{PREFIX}LOG_LEVEL"
    ]  # fmt: skip


def test_help_explains_every_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(["--help"])

    text = capsys.readouterr().out
    assert ended.value.code == 0
    for name, field in Settings.model_fields.items():
        assert PREFIX + name.upper() in text
        assert field.description


def test_settings_cannot_be_changed_afterwards() -> None:
    config = settings.load()

    with pytest.raises(ValueError, match="frozen"):
        config.workers = 3  # type: ignore[misc]


def test_logs_are_json_and_kopf_and_httpx_are_kept_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in main.NEVER_BELOW_WARNING}
    try:
        main.set_up_logging("debug")
        logging.getLogger("protectedservice_operator.x").info("Created %s", "it")
        logging.getLogger("kopf.objects").info("Handler succeeded")
        logging.getLogger("httpx").info("HTTP Request: POST http://server/oauth/register")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        for name, old in levels.items():
            logging.getLogger(name).setLevel(old)

    (line,) = capsys.readouterr().err.splitlines()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == ("INFO", "protectedservice_operator.x", "Created it")
    assert entry["time"].endswith("Z")
