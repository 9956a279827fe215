"""The demo, small: what it returns, prints and draws."""

import gc
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import attrs
import numpy as np
import pytest

from cascade.demo import DemoResult, run
from cascade.demo.data import load, stream_order
from cascade.demo.main import _verdict
from cascade.demo.result import Held, Run, Timely
from cascade.demo.serve import serve
from cascade.errors import ExportError, MissingExtra


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    said = []
    found = run(
        tmp_path_factory.mktemp("demo"), 0, said.append, rows=1500, held_out=200, repeats=100
    )
    assert said
    return found


def test_what_cannot_be_written_is_said_before_the_training(tmp_path):
    theirs = tmp_path / "bundle" / "thesis.txt"
    theirs.parent.mkdir()
    theirs.write_text("theirs")
    said = []
    with pytest.raises(ExportError, match=r"bundle is not empty and holds no policy\.yaml"):
        run(tmp_path, 0, said.append)
    with pytest.raises(ValueError, match=r"thesis\.txt: cannot be written: \w+"):
        run(theirs, 0, said.append)
    assert said == []
    assert theirs.read_text() == "theirs"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a place of Linux")
def test_also_where_nothing_says_so_beforehand():
    said = []
    with pytest.raises(ValueError, match=r"/proc/demo: cannot be written: \w+"):
        run(Path("/proc/demo"), 0, said.append)
    assert said == []


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


def test_nothing_stays_frozen(result):
    assert gc.get_freeze_count() == 0


def test_a_request_that_expires_is_counted_not_raised(result, tmp_path):
    for file in Path(result.bundle).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    policy = tmp_path / "policy.yaml"
    text = policy.read_text(encoding="utf-8")
    assert "deadline: 50ms" in text
    policy.write_text(text.replace("deadline: 50ms", "deadline: 1us"), encoding="utf-8")
    served = serve(tmp_path, load(0, 20).held_rows, np.arange(20))
    for one in served.values():
        assert one.late == len(one.values) == 20


def test_a_missing_package_is_named_before_anything_runs(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "skl2onnx", None)
    said = []
    with pytest.raises(MissingExtra, match=r"skl2onnx.*cascade-router\[demo\]"):
        run(tmp_path, 0, said.append)
    assert not said


def made(**changes):
    one = Run(0.9, 1e-4, 2e-4, 3e-3, {"a": 1.0, "b": 0.25})
    names = ("always_small", "always_large", "cascade", "cascade_cached", "oracle")
    whole = DemoResult(
        tiers=[{"name": n, "accuracy": 0.9, "p50": 2e-5, "p99": 2e-3, "bytes": 5_410_000}
               for n in ("a", "b")],
        runs=dict.fromkeys(names, one),
        certificate={"max_loss": 0.01, "alpha": 0.1, "n": 1334, "losses": 8},
        held_out=Held(4, 1000, 0.99),
        timely=Timely(0.05, 1500, 2, 1),
        ledger={"input": 1e-6, "transfer": 0.0, "compute": 8e-6, "output": 1e-6},
        verdict="Yes.", plots=["x/accuracy.png"], bundle="x/bundle", seconds=12.3,
    )  # fmt: skip
    return attrs.evolve(whole, **changes)


def test_the_page_says_what_was_found():
    page = " ".join(made().render().split())
    for words in (
        "a 90.00% 20.0 µs 2.00 ms 5.41 MB",
        "cascade cached 90.00% 100.0 µs 200.0 µs 3.00 ms 100.0% 25.0%",
        "with 90% confidence, at most 1.0% of requests like these",
        "8 of 1,334 test rows did",
        "the loss is 0.40% (4 rows), the bound 1.0%",
        "p = 0.990: this does not contradict the certificate",
        "1,500 answers 2 came late or never, and 1 were from a smaller tier",
        "input 1.0 µs (10%), transfer 0.0 µs (0%), compute 8.0 µs (80%), output 1.0 µs (10%)",
        'Router.from_yaml("x/bundle/policy.yaml")',
    ):
        assert words in page


def test_the_page_says_when_the_promise_is_broken():
    page = " ".join(made(held_out=Held(30, 1000, 2e-7)).render().split())
    assert "the loss is 3.00% (30 rows)" in page
    assert "this contradicts the certificate" in page


def test_page_and_plots(result):
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


def test_leaves_the_rows_that_no_tier_was_trained_on(result):
    held = np.load(Path(result.bundle).parent / "rows.npz")
    split = load(0, 200, 1500)
    assert held["X"].shape == (650 + 200, 784)
    assert np.array_equal(held["y"], np.concatenate([split.fit_labels[650:], split.held_labels]))
    assert np.array_equal(held["X"][-200:], split.held_rows)


def test_the_verdict_may_be_no():
    truth = np.zeros(100, dtype=int)
    wrong = truth.copy()
    wrong[:20] = 1
    slow, fast = SimpleNamespace(mean=2.0, accuracy=0.9), SimpleNamespace(mean=1.0, accuracy=0.9)
    assert "serve it without a cascade" in _verdict({}, truth, truth, truth)
    no = _verdict({"always_large": fast, "cascade": slow}, wrong, truth, truth)
    assert no == "No: the cascade takes 2.00 times as long as the top tier alone."
    yes = _verdict({"always_large": slow, "cascade": fast}, wrong, truth, truth)
    assert yes.startswith("Yes: 2.0 times as fast")
