from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from cascade.cli import doctor, main

if TYPE_CHECKING:
    import pytest

_PYPROJECT = tomllib.loads(Path(__file__).parents[2].joinpath("pyproject.toml").read_text("utf-8"))


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=\[;~! ]", each)[0] for each in requirements}


def test_the_packages_looked_for_are_those_declared() -> None:
    assert set(doctor.CORE) == _names(_PYPROJECT["project"]["dependencies"])
    declared = _PYPROJECT["project"]["optional-dependencies"]
    for extra in ("cli", "export", "plot"):
        assert set(doctor.EXTRAS[extra]) == _names(declared[extra])
    parts = {name for extra in ("cli", "export", "plot") for name in doctor.EXTRAS[extra]}
    assert set(doctor.EXTRAS["demo"]) - parts == _names(declared["demo"]) - {"cascade-router"}


def test_a_complete_installation_is_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is True
    assert said["clashes"] == []
    assert "CPUExecutionProvider" in said["providers"]
    assert said["cores"]["usable"] >= 1
    assert all(said["packages"].values())


def test_the_text_has_the_same_facts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "CPUExecutionProvider" in said
    assert "nobody else owns the import name 'cascade'" in said


def test_what_is_missing_comes_with_its_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def version(name: str, known: object = doctor._version) -> str | None:
        return None if name == "matplotlib" else known(name)

    monkeypatch.setattr(doctor, "_version", version)
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert 'pip install "cascade-router[plot]"' in said
    assert 'pip install "cascade-router[demo]"' in said
    assert "[export]" not in said


def test_a_missing_core_package_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "onnxruntime" else "1")
    assert main(["doctor", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["missing"]["core"] == "pip install cascade-router"
    assert said["providers"] == []


def test_a_clash_is_an_error_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clash = "cascade-ml 1.0 also ships an import package 'cascade'"
    monkeypatch.setattr(doctor, "find_clashes", lambda: [clash])
    assert main(["doctor"]) == 1
    said = capsys.readouterr()
    assert said.err == f"import name clash: {clash}\n"
    assert "uninstall" in said.out
