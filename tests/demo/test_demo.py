"""The demo, small: what it returns, prints and draws."""

import json
from pathlib import Path

import pytest

from cascade.demo import run
from cascade.demo.data import stream_order


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    said = []
    found = run(
        tmp_path_factory.mktemp("demo"), 0, said.append, rows=1500, held_out=200, repeats=100
    )
    assert said
    return found


def test_json_has_the_keys_of_the_contract(result):
    found = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert set(found) == {"tiers", "runs", "certificate", "ledger", "bundle", "seconds"}
    runs = ("always_small", "always_large", "cascade", "cascade_cached", "oracle")
    assert tuple(found["runs"]) == runs
    for one in found["runs"].values():
        assert set(one) == {"accuracy", "mean", "p50", "p99", "calls"}
    assert set(found["certificate"]) == {"max_loss", "alpha", "n", "losses"}
    assert set(found["ledger"]) == {"input", "transfer", "compute", "output"}
    for tier in found["tiers"]:
        assert set(tier) == {"name", "accuracy", "p50", "p99", "bytes"}


def test_runs_are_what_they_say(result):
    runs = result.runs
    assert runs["always_small"].calls == {"logistic": 1.0, "forest": 0.0, "svc": 0.0}
    assert runs["always_large"].calls["svc"] == 1.0
    assert runs["oracle"].accuracy >= max(run.accuracy for run in runs.values())
    assert sum(runs["cascade_cached"].calls.values()) < sum(runs["cascade"].calls.values())


def test_page_and_plots(result, tmp_path):
    page = result.render()
    for words in ("The certificate", "Should you cascade here?", "Router.from_yaml", "compute"):
        assert words in page
    for plot in result.plots:
        with Path(plot).open("rb") as file:
            assert file.read(8) == b"\x89PNG\r\n\x1a\n"


def test_a_repeat_comes_after_its_first_asking():
    order = stream_order(50, 200, 3).tolist()
    assert len(order) == 250
    seen = set()
    for row in order:
        assert row in seen or row == len(seen)
        seen.add(row)
    assert len(seen) == 50
