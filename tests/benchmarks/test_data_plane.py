from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import data_plane, packages
from benchmarks.data_plane import REGIMES
from benchmarks.packages import MissingError, Need


def test_an_unknown_regime_is_named_with_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        data_plane._options(["--only", "hot,cold"])
    assert end.value.code == 2
    told = capsys.readouterr().err
    assert "no such regime: cold" in told
    assert all(name in told for name in REGIMES)


def test_regimes_run_in_the_order_asked_for_and_once() -> None:
    assert data_plane._options(["--only", "memory,hot,memory"]).only == ["memory", "hot"]


def test_what_is_missing_and_cannot_be_installed_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "NEEDS", (Need("sh", "dash"), Need("no-such-program", "some-package")))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(MissingError, match=r"some-package; remedy: as root, apt-get install .* some-package"):
        packages.install_packages()


def test_nothing_is_installed_where_all_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "module.so").touch()
    monkeypatch.setattr(packages, "NEEDS", (Need("sh", "dash"), Need(f"{tmp_path}/*.so", "some-package")))
    monkeypatch.setattr(packages, "_run", lambda command: pytest.fail(f"ran {command}"))
    packages.install_packages()
