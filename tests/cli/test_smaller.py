"""quantize and prune on a bundle, with a scripted clock: what is written, and what is said."""

import csv
import hashlib
import json
import shlex

import attrs
import numpy as np
import onnxruntime as ort
import pytest

from cascade import Policy, PolicyError, Router
from cascade.bundle import sha256_file
from cascade.cli import main
from cascade.optimize import slimming
from cascade.optimize.certifying import certify_anew
from cascade.optimize.data import Data, split
from cascade.optimize.policy_text import promise_lines
from cascade.optimize.running import load_models, open_tier
from cascade.policy import Certificate
from cascade.policy.certificate import PathPoint
from tests.optimize.models import convolution, perceptron, rows

POLICY = """\
# ours
version: 1
name: quarters
deadline: 1s
tiers:
  - {{name: small, kind: onnx, model: small.onnx, sha256: "{small}"}}
  - name: large
    kind: onnx
    model: large.onnx  # the convolution
    sha256: "{large}"
escalation:
{escalation}
golden: golden.json
profile: profile.json
"""
CERTIFIED = "  certificate: certificate.json"


@pytest.fixture
def bundle(tmp_path):
    """A certified policy of two tiers, with golden answers and a profile."""
    models = {"small": perceptron(doubt=8.0), "large": convolution()}
    digests = {name: hashlib.sha256(model).hexdigest() for name, model in models.items()}
    for name, model in models.items():
        (tmp_path / f"{name}.onnx").write_bytes(model)
    path = tmp_path / "policy.yaml"
    profile = {name: {"overhead": 0.01, "per_row": 0.01} for name in models}
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    (tmp_path / "golden.json").write_text("{}")
    path.write_text(POLICY.format(**digests, escalation="  thresholds: [0.9]"))
    policy = Policy.from_yaml(path, env={})
    X, y = rows(2_000)
    np.savez(tmp_path / "rows.npz", X=X, y=y)
    np.save(tmp_path / "rows.npy", X)
    point = PathPoint(thresholds=(2.0,), losses=0, p_value=0.0)
    promise = Certificate(
        max_loss=0.02, alpha=0.1, loss="gross", covers="adaptive", n=100,
        tiers=("small", "large"), path=(point,), certified=1,
    )  # fmt: skip
    made, problem = certify_anew(policy, promise, split(Data({"": X}, y)), models)
    assert problem is None
    made.save(tmp_path / "certificate.json")
    path.write_text(POLICY.format(**digests, escalation=CERTIFIED))
    with Router(Policy.from_yaml(path, env={}), env={}) as router:
        assert router.route(X[0]).covered
    (said,) = ort.InferenceSession(models["large"]).run(["p"], {"x": X[:1]})
    answer = {"dtype": "float32", "data": said.tolist()}
    one = {"inputs": {"x": {"dtype": "float32", "data": X[:1].tolist()}}, "outputs": {"p": answer}}
    (tmp_path / "golden.json").write_text(json.dumps({"large": one}))
    return path


@pytest.fixture
def script(monkeypatch):
    """Have the clock say what a variant takes: by name, everything else as long as the original."""

    def set_times(**seconds):
        names = {name.replace("_", " "): time for name, time in seconds.items()}
        monkeypatch.setattr(
            slimming,
            "interleave",
            lambda runs, rounds: {
                name: np.full(rounds, next((t for n, t in names.items() if n in name), 1.0))
                for name in runs
            },
        )

    return set_times


def rows_of(bundle, kind="npz"):
    return str(bundle.parent / f"rows.{kind}")


def test_what_wins_is_written_and_certified_anew(bundle, script, capsys):
    script(MinMax=0.5)
    before = Policy.from_yaml(bundle, env={})
    assert main(["quantize", str(bundle), "large", "--data", rows_of(bundle), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kept"].startswith("static int8, MinMax")
    assert found["written"]
    assert found["certificate"]["n"] == 750
    now = Policy.from_yaml(bundle, env={})
    spec = now.tiers[1]
    assert spec.sha256 == sha256_file(bundle.parent / spec.model) != before.tiers[1].sha256
    assert spec.confidence.temperature == found["temperature"]
    assert now.certificate.certified > 1
    assert now.certificate.digests != before.certificate.digests
    text = bundle.read_text()
    assert text.startswith("# ours")
    assert f"model: {spec.model}  # the convolution" in text
    profile = json.loads((bundle.parent / "profile.json").read_text())
    assert profile["large"]["per_row"] < 0.01 == profile["small"]["per_row"]
    with Router(now, env={}) as router:  # the golden answer is the new model's
        X, y = rows(200, seed=5)
        assert np.mean([router.route(x).value for x in X] == y) > 0.95


def test_nothing_is_written_when_nothing_wins(bundle, script, capsys):
    script(dynamic=4.0)
    before = {file: file.read_bytes() for file in bundle.parent.iterdir()}
    assert main(["quantize", str(bundle), "large", "--data", rows_of(bundle)]) == 0
    said = capsys.readouterr().out
    assert "Kept: none; the model stays as it is." in said
    assert "slower" in said
    assert {file: file.read_bytes() for file in bundle.parent.iterdir()} == before


def test_a_dry_run_writes_nothing(bundle, script, capsys):
    script(neurons=0.5)
    before = {file: file.read_bytes() for file in bundle.parent.iterdir()}
    call = ["prune", str(bundle), "small", "--data", rows_of(bundle), "--dry-run"]
    assert main(call) == 0
    assert "Nothing is written" in capsys.readouterr().out
    assert {file: file.read_bytes() for file in bundle.parent.iterdir()} == before


def test_without_truth_the_certificate_is_void_and_what_to_run_is_said(bundle, script, capsys):
    script(neurons=0.5)
    call = ["prune", str(bundle), "small", "--data", rows_of(bundle, "npy")]
    assert main(call) == 0
    said = capsys.readouterr().out
    assert "The certificate is void" in said
    assert "needs the truth (y in DATA)" in said
    assert f"Run: cascade fit RECORDING --policy {bundle} --max-loss 0.02 --alpha 0.1" in said
    now = Policy.from_yaml(bundle, env={})
    assert f"Written: {bundle.parent / now.tiers[0].model}, " in said
    assert f"certificate.json, {bundle}\n" in said
    assert [point.thresholds for point in now.points] == [(2.0,)]
    (bundle.parent / "golden.json").write_text("{}")
    with Router(now, env={}) as router:
        assert router.route(rows(1)[0][0]).tier == "large"


def test_the_command_to_run_works_as_it_is_printed(bundle, script, capsys, monkeypatch):
    """In a folder whose name has a space; the policy says on top what it promises from then on."""
    script(neurons=0.5)
    bundle.write_text("".join([
        *(f"# {line}\n" for line in promise_lines(Policy.from_yaml(bundle, env={}).certificate)),
        bundle.read_text(),
    ]))  # fmt: skip
    moved = bundle.parent.parent / "my bundle"
    bundle.parent.rename(moved)
    policy = moved / bundle.name
    assert main(["prune", str(policy), "small", "--data", str(moved / "rows.npy")]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Run: ")]
    assert policy.read_text().startswith("# Nothing is certified: every request goes to the top")
    X, y = rows(2_000)
    columns = {"truth": y}
    for name, (spec, content) in load_models(now := Policy.from_yaml(policy, env={})).items():
        running = open_tier(spec, content, now)
        values, sure = running.answers(Data({"": X}))
        seconds = np.full(len(y), 0.001 if name == "small" else 0.01)
        columns |= {f"{name}.value": values, f"{name}.confidence": sure, f"{name}.seconds": seconds}
    with (moved / "recording.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *zip(*columns.values(), strict=True)])
    words = shlex.split(line.removeprefix("Run: cascade "))
    words[words.index("RECORDING")] = str(moved / "recording.csv")
    assert main(words) == 0
    promised = promise_lines(certified := Policy.from_yaml(policy, env={}).certificate)
    assert certified.certified > 1
    assert policy.read_text().startswith("".join(f"# {line}\n" for line in promised))
    assert main(["check", str(policy)]) == 0


def test_one_tier_has_no_thresholds_to_be_stale(bundle, script, capsys):
    script(neurons=0.5)
    text = bundle.read_text()
    start, end = text.index("  - name: large"), text.index("golden:")
    bundle.write_text(text[:start] + "mode: top_only\n" + text[end:])
    assert main(["prune", str(bundle), "small", "--data", rows_of(bundle)]) == 0
    said = capsys.readouterr().out
    assert "Written: " in said
    assert "thresholds" not in said
    assert "Run: " not in said


def test_thresholds_without_a_promise_are_said_to_be_stale(bundle, script, capsys):
    script(neurons=0.5)
    bundle.write_text(bundle.read_text().replace(CERTIFIED, "  thresholds: [0.9]"))
    assert main(["prune", str(bundle), "small", "--data", rows_of(bundle)]) == 0
    said = capsys.readouterr().out
    assert "The thresholds promise nothing, and were made for the old model." in said
    assert "Run: cascade fit RECORDING --policy" in said


def test_what_certifies_nothing_is_not_written(bundle, script, capsys, monkeypatch):
    from cascade.cli import rewrite  # noqa: F401  imported before what it uses is replaced
    from cascade.errors import CannotCertify
    from cascade.optimize import certifying

    script(neurons=0.5)
    real = certifying.certify_anew
    monkeypatch.setattr(
        certifying, "certify_anew", lambda *a: (real(*a)[0], CannotCertify("no threshold holds"))
    )
    before = {file: file.read_bytes() for file in bundle.parent.iterdir()}
    assert main(["prune", str(bundle), "small", "--data", rows_of(bundle)]) == 1
    assert "passes, but no threshold holds; nothing is written" in capsys.readouterr().err
    assert {file: file.read_bytes() for file in bundle.parent.iterdir()} == before


def test_what_is_refused_at_the_end_leaves_every_file_as_it_was(bundle, script, monkeypatch):
    from cascade.cli.edits import Edits

    def refuse(self):
        raise PolicyError("not now")

    script(neurons=0.5)
    before = {file: file.read_bytes() for file in bundle.parent.iterdir()}
    monkeypatch.setattr(Edits, "save", refuse)
    assert main(["prune", str(bundle), "small", "--data", rows_of(bundle)]) == 2
    assert {file: file.read_bytes() for file in bundle.parent.iterdir()} == before


def test_without_a_profile_none_is_made(bundle, script):
    script(neurons=0.5)
    bundle.write_text(bundle.read_text().replace("profile: profile.json\n", ""))
    golden = json.loads((bundle.parent / "golden.json").read_text())
    (bundle.parent / "golden.json").write_text(json.dumps(golden | {"small": golden["large"]}))
    held = (bundle.parent / "profile.json").read_bytes()
    assert main(["prune", str(bundle), "small", "--data", rows_of(bundle)]) == 0
    assert (bundle.parent / "profile.json").read_bytes() == held
    assert json.loads((bundle.parent / "golden.json").read_text())["small"] != golden["large"]


def test_a_model_that_cannot_be_changed_says_why(bundle, capsys):
    assert main(["prune", str(bundle), "large", "--data", rows_of(bundle)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("large: prune cannot be done: it has neither several trees nor a hidden")
    assert said.endswith("Kept: none; the model stays as it is.\n")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (["quantize", "{policy}", "lrge", "--data", "{rows}"], "no tier 'lrge'; did you mean"),
        (["prune", "{policy}", "large", "--data", "{rows}", "--alpha", "2"], "alpha: expected"),
        (["prune", "{policy}", "large", "--data", "few.npy"], "at least 80 rows, got 10"),
        (["prune", "{policy}", "large", "--data", "{rows}", "--seed", "-1"], "seed: expected"),
    ],
)
def test_bad_arguments_are_said(bundle, call, said, capsys, monkeypatch):
    monkeypatch.chdir(bundle.parent)
    np.save("few.npy", rows(10)[0])
    words = [word.format(policy=bundle, rows=rows_of(bundle)) for word in call]
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_truth_in_other_labels_passes_nothing(bundle, script, capsys):
    script(neurons=0.5)
    X, y = rows(400)
    np.savez(bundle.parent / "words.npz", X=X, y=y.astype(str))
    data = str(bundle.parent / "words.npz")
    assert main(["prune", str(bundle), "small", "--data", data]) == 2
    assert "y: tier 'small' is right on 0.0% of the rows" in capsys.readouterr().err
    assert main(["profile", str(bundle), data]) == 2


def test_the_certificate_is_that_of_the_models_in_hand(bundle):
    policy = Policy.from_yaml(bundle, env={})
    models = {name: model for name, (_, model) in load_models(policy).items()}
    X, y = rows(2_000)
    bare = attrs.evolve(policy, certificate=None, mode="top_only")
    one, _ = certify_anew(bare, policy.certificate, split(Data({"": X}, y)), models)
    assert one.path == tuple(
        attrs.evolve(point, cost=own.cost)
        for point, own in zip(policy.certificate.path, one.path, strict=True)
    )
    wrong = Data({"": X}, (y + 1) % 4)
    other, problem = certify_anew(bare, policy.certificate, split(wrong), models)
    assert problem is None  # the top tier is wrong everywhere: nothing can be lost
    assert other.digests["data"] != one.digests["data"]


def test_the_report_has_every_candidate_the_front_and_a_certified_ladder(
    bundle, script, capsys, monkeypatch
):
    """int8 halves the convolution's time and fewer neurons gain nothing, says the clock."""
    from cascade.optimize import exploring, profiling

    script(MinMax=0.5, dynamic=4.0)
    monkeypatch.setattr(profiling, "_SECONDS", 0.02)
    monkeypatch.setattr(profiling, "_SPARSE", 3)
    monkeypatch.setattr(
        exploring,
        "interleave",
        lambda runs: {
            key: np.full(3, 0.01 if key.startswith("small") else 0.5 if "MinMax" in key else 1.0)
            for key in runs
        },
    )
    (bundle.parent / "golden.json").write_text("{}")
    before = bundle.read_text()
    out = bundle.parent / "report"
    call = ["profile", str(bundle), rows_of(bundle), "--report", str(out)]
    assert main(call) == 0
    said = capsys.readouterr().out
    assert bundle.read_text() == before
    assert f"Written, certified on 750 rows: {out / 'ladder' / 'policy.yaml'}" in said
    found = json.loads((out / "report.json").read_text())
    names = {one["name"] for one in found["candidates"]["large"]}
    assert {"original", "float16", "dynamic int8", "static int8, Entropy, per channel"} <= names
    verdicts = {one["name"]: one["verdict"] for one in found["candidates"]["large"]}
    assert verdicts["dynamic int8"] == "slower"
    assert found["front"][0]["seconds"] <= found["front"][-1]["seconds"]
    assert found["chosen"]["seconds"] <= found["before"]["seconds"]
    page = (out / "report.md").read_text()
    assert "| tier | variant |" in page
    assert page.index("| large | original |") < page.index("| large | dynamic int8 |")
    assert all(f"- {line}\n" in page for line in found["said"])
    for one in found["candidates"]["large"]:
        assert f"| large | {one['name']} |" in page
        assert one["verdict"] in page
    assert (out / "report.png").stat().st_size > 1_000
    ladder = Policy.from_yaml(out / "ladder" / "policy.yaml", env={})
    assert ladder.certificate.certified > 1
    with Router(ladder, env={}) as router:
        assert router.route(rows(1)[0][0]).covered
