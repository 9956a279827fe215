from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from cascade.cli import main
from cascade.cli.simulate import _moves
from cascade.control import Move

if TYPE_CHECKING:
    from pathlib import Path

KEYS = {
    "n", "slo_attainment", "accuracy", "forced_accepts", "shed", "p50", "p99", "calls",
    "utilization", "baselines",
}  # fmt: skip


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    (tmp_path / "policy.yaml").write_text(
        "version: 1\nname: p\ndeadline: 250ms\ntiers:\n"
        "  - {name: small, kind: external, workers: 1}\n"
        "  - {name: large, kind: external, workers: 1}\n"
        "escalation: {thresholds: [0.5]}\n"
    )
    (tmp_path / "recording.csv").write_text(
        "truth,small.value,small.confidence,large.value\ncat,cat,0.9,cat\ndog,cat,0.2,dog\n"
    )
    (tmp_path / "trace.csv").write_text("arrival_s\n" + "\n".join(map(str, range(20))) + "\n")
    return [str(tmp_path / "policy.yaml"), str(tmp_path / "recording.csv")]


TIMES = ["--seconds", "small=1ms,large=100ms"]


def test_its_keys_are_the_contract(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    trace = given[0].replace("policy.yaml", "trace.csv")
    assert main(["simulate", *given, "--trace", trace, *TIMES, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said) == KEYS
    assert (said["n"], said["slo_attainment"], said["accuracy"]) == (20, 1.0, 1.0)
    assert said["calls"] == {"small": 1.0, "large": 0.5}
    assert set(said["baselines"]) == {"always_small", "always_large", "plain_timeout"}


def test_people_get_a_table_and_a_plot(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plot = str(tmp_path / "load.png")
    arrivals = ["--arrivals", "poisson:20", "--requests", "500", "--plot", plot]
    assert main(["simulate", *given, *arrivals, *TIMES]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("500 arrivals at ")
    assert [line.split()[0] for line in said[3:7]] == [
        "this", "always-small", "always-large", "plain-timeout",
    ]  # fmt: skip
    assert said[-1] == f"Plot: {plot}"


def test_a_plot_without_an_ending_is_named_as_it_is_written(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrivals = ["--arrivals", "poisson:20", "--requests", "50", *TIMES]
    assert main(["simulate", *given, *arrivals, "--plot", str(tmp_path / "new" / "load")]) == 0
    written = tmp_path / "new" / "load.png"
    assert written.stat().st_size > 1_000
    assert capsys.readouterr().out.splitlines()[-1] == f"Plot: {written}"


def test_what_no_plot_can_be_saved_to_is_said_first(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--trace", str(tmp_path / "absent.csv"), "--plot"]
    for plot, words in (("x.foo", "no plot can be saved as 'foo'"), (f"{given[0]}/x", "a folder")):
        assert main(["simulate", *given, *asked, plot]) == 2
        assert words in capsys.readouterr().err


def test_the_capacity_is_found(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    slow = ["--seconds", "small=20ms,large=100ms", "--find-capacity", "--slo", "0.95"]
    process = ["--arrivals", "poisson:10", "--requests", "1000"]
    assert main(["simulate", *given, *process, *slow, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["slo"] == 0.95
    assert 20 < said["rate"] < 60  # the small tier answers 50 a second


def test_a_capacity_that_the_trace_cannot_tell_is_none(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [*given, "--arrivals", "poisson:10", "--requests", "20", *TIMES, "--find-capacity"]
    assert main(["simulate", *asked, "--slo", "0.5"]) == 0
    said = "50.00% of the answers are in time at any speed that was tried: 20 arrivals are too few"
    assert said in capsys.readouterr().out
    assert main(["simulate", *asked, "--slo", "0.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"speed": None, "rate": None, "slo": 0.5}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--find-capacity", "--slo", "2"], "slo: expected a share"),
        (["--find-capacity", "--plot", "x.png"], "--plot: means nothing to --find-capacity"),
        (["--find-capacity", "--speed", "2"], "--speed: means nothing to --find-capacity"),
        (["--requests", "7"], "--requests: means nothing to --trace"),
        (["--seed", "0"], "--seed: means nothing to --trace"),
        (["--arrivals", "poisson:3"], "one of them, not both"),
        (["--slo", "0.9"], "--slo: means nothing to a simulation at one speed"),
    ],
)
def test_what_would_be_ignored_is_refused(
    given: list[str], more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = given[0].replace("policy.yaml", "trace.csv")
    assert main(["simulate", *given, "--trace", trace, *TIMES, *more]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ([], "give --trace FILE, or --arrivals"),
        (["--arrivals", "poison:3"], "expected poisson:RATE"),
        (["--arrivals", "gamma:3"], "expected poisson:RATE"),
        (["--arrivals", "poisson:-3"], "expected poisson:RATE"),
        (["--arrivals", "poisson:3", "--seconds", "small"], "expected TIER=TIME"),
        (["--trace", "nowhere.csv"], "nowhere.csv: cannot be read: No such file or directory"),
        (["--arrivals", "poisson:3", "--requests", "0"], "--requests: expected 1 or more, got 0"),
        (["--arrivals", "poisson:3", "--requests=-5"], "--requests: expected 1 or more, got -5"),
        (["--arrivals", "poisson:3", "--seed=-5"], "--seed: expected 0 or more, got -5"),
        (["--arrivals", "poisson:3", "--requests=9", "--deadline", "nan"], "deadline: must be"),
    ],
)
def test_bad_arguments_are_named(
    given: list[str], more: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", *given, *more]) == 2
    assert message in capsys.readouterr().err


def test_times_may_be_plain_seconds(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    trace, said = given[0].replace("policy.yaml", "trace.csv"), []
    for deadline, seconds in (("0.05", "small=0.002,large=0.01"), ("50ms", "small=2ms,large=10ms")):
        asked = ["--deadline", deadline, "--seconds", seconds, "--json"]
        assert main(["simulate", *given, "--trace", trace, *asked]) == 0
        said.append(json.loads(capsys.readouterr().out))
    assert said[0] == said[1]


@pytest.mark.parametrize("process", ["gamma:20,2", "on_off:50,5,10", "on_off:50,5,10,1"])
def test_bursts_can_be_asked_for(
    process: str, given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--arrivals", process, "--requests", "200"]
    assert main(["simulate", *given, *asked, *TIMES, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 200


def test_a_long_list_of_moves_is_shown_by_its_ends() -> None:
    moves = [Move(i * 10**9, "point", i, i + 1, f"reason {i}") for i in range(100)]
    lines = _moves(SimpleNamespace(log=SimpleNamespace(moves=moves)))  # type: ignore[arg-type]
    assert "reason 0" in lines[1]
    assert "reason 99" in lines[-1]
    (gap,) = [line for line in lines if line.endswith(" more")]
    assert int(gap.split()[1]) == 100 - (len(lines) - 2)
