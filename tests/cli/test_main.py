from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import cascade
from cascade.cli import main

_HEAVY = ("sklearn", "scipy", "onnxruntime", "matplotlib", "pandas")


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: PLW1510  the status is what is tested
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("command", [[], ["check"], ["explain"], ["demo"]])
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    code = (
        "import sys; from cascade.cli import main\n"
        f"status = main({[*command, '--help']!r})\n"
        f"print(status, [name for name in {_HEAVY!r} if name in sys.modules])"
    )
    assert _python(code).stdout.splitlines()[-1] == "0 []"


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for command in ("demo", "check", "explain", "schema", "pin", "doctor"):
        assert f"\n│ {command} " in said


@pytest.mark.parametrize("package", ["cyclopts", "rich"])
def test_without_the_extra_the_line_that_installs_it(package: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from cascade.cli import main; sys.exit(main(['--help']))"
    )
    done = _python(code)
    assert done.returncode == 2
    assert done.stderr == (f'{package} is not installed; run: pip install "cascade-router[cli]"\n')


@pytest.mark.parametrize("package", ["cyclopts", "rich"])
def test_without_the_extra_it_still_says_what_is_missing(package: str) -> None:
    def told(*arguments: str) -> subprocess.CompletedProcess[str]:
        return _python(
            f"import sys; sys.modules[{package!r}] = None\n"
            f"from cascade.cli import main; sys.exit(main({[*arguments]!r}))"
        )

    version = told("--version")
    assert (version.returncode, version.stdout) == (0, f"{cascade.__version__}\n")
    assert "cyclopts" in told("doctor").stdout
    as_json = told("doctor", "--json")
    assert "cli" in json.loads(as_json.stdout)["extras"]
    assert "not installed" not in as_json.stderr


def test_a_missing_module_that_is_no_extra_of_ours_is_not_explained_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "cascade.cli.app", None)
    with pytest.raises(ModuleNotFoundError, match=r"cascade\.cli\.app"):
        main(["--help"])


def test_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cascade", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == cascade.__version__


_POLICY = str(Path(__file__).parents[2] / "examples" / "downstream_app" / "policy.yaml")
_LONG = ("schema", "--json"), ("schema",)  # longer than what Python holds back


def _with_a_reader_that_left(*arguments: str, stream: str) -> subprocess.Popen[str]:
    read, write = os.pipe()
    os.close(read)
    streams: dict[str, int] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: write}
    command = [sys.executable, "-m", "cascade", *arguments]
    done = subprocess.Popen(command, text=True, stdout=streams["stdout"], stderr=streams["stderr"])
    os.close(write)
    return done


@pytest.mark.parametrize("arguments", [*_LONG, ("explain", _POLICY)])
def test_a_reader_that_left_is_no_error(arguments: tuple[str, ...]) -> None:
    with _with_a_reader_that_left(*arguments, stream="stdout") as command:
        said = command.communicate(timeout=60)
    assert said[1] == ""
    assert command.returncode == 141  # as of cat, and of any other tool


@pytest.mark.parametrize("arguments", [("chekc",), ("check", "absent.yaml", "--json")])
def test_nor_is_one_of_what_went_wrong(arguments: tuple[str, ...]) -> None:
    with _with_a_reader_that_left(*arguments, stream="stderr") as command:
        command.communicate(timeout=60)
    assert command.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("arguments", [*_LONG, ("explain", _POLICY, "--json")])
def test_what_cannot_be_written_is_said_without_a_traceback(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(  # noqa: PLW1510  the status is what is tested
            [sys.executable, "-m", "cascade", *arguments],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
        )  # fmt: skip
    assert set(done.stderr.splitlines()) == {"[Errno 28] No space left on device"}
    assert done.returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("streams", [">/dev/full 2>&1", "2>/dev/full", ">/dev/full 2>&-"])
def test_nor_does_the_status_change_where_that_cannot_be_said(streams: str) -> None:
    command = f"'{sys.executable}' -m cascade check absent.yaml --json {streams}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=60)  # noqa: PLW1510
    assert done.returncode == 2


def test_what_is_said_to_a_closed_stderr_goes_nowhere_else() -> None:
    command = f"'{sys.executable}' -m cascade check absent.yaml --json 2>&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=60)  # noqa: PLW1510
    assert json.loads(done.stdout)["ok"] is False
    assert done.returncode == 2


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_what_stdout_cannot_encode_is_escaped(tmp_path: Path, encoding: str) -> None:
    policy = tmp_path / "policy.yaml"
    text = Path(_POLICY).read_text("utf-8").replace('"2026-11"', "\u2265")
    policy.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "cascade", "explain", str(policy)],
        env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True, check=True,
    )  # fmt: skip
    assert b"\\u2265" in done.stdout
    assert done.stderr == b""


def test_both_scripts_are_this_command() -> None:
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    scripts = tomllib.loads(pyproject.read_text("utf-8"))["project"]["scripts"]
    assert scripts == {"cascade": "cascade.cli:main", "cascade-router": "cascade.cli:main"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["chekc", "policy.yaml"], 'Did you mean "check"?'),
        (["check"], "policy"),
        (["check", "policy.yaml", "--jsn"], "--json"),
        (["demo", "--seed", "many"], "many"),
    ],
)
def test_bad_arguments(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words.lower() in said.err.lower()


def test_they_are_one_object_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "requests.csv", "--max-loss", "1%", "--json"]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out) == {"error": said.err.strip(), "issues": []}
    assert "--max-loss" in said.err


@pytest.mark.parametrize("command", ["check", "explain", "pin"])
def test_a_file_that_is_not_there(
    command: str, tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, f"{tmp_path}/absent.yaml", "--json"]) == 2
    said = capsys.readouterr()
    assert "absent.yaml" in said.err
    assert isinstance(json.loads(said.out), dict)


@pytest.mark.parametrize("below", ["", "more"])
def test_the_demo_needs_a_folder(
    tmp_path: Path, below: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    assert main(["demo", "--out", str(file / below)]) == 2
    assert capsys.readouterr().err == f"--out: expected a folder, {file} is a file\n"
    assert file.read_text() == "mine"


@pytest.mark.parametrize("seed", ["-1", "4294967296"])
def test_and_a_seed(seed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--out", str(tmp_path / "out"), f"--seed={seed}"]) == 2
    said = f"--seed: expected a whole number between 0 and 4294967295, got {seed}\n"
    assert capsys.readouterr().err == said
    assert not (tmp_path / "out").exists()
