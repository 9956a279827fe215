"""``cascade.fit``: what it chooses, what it promises, what it refuses, what it writes."""

import contextlib
import datetime as dt
import json

import attrs
import numpy as np
import pytest

import cascade
from cascade import CannotCertify, Policy, PolicyError, RecordingError, Router
from cascade.fitting import redo_test
from cascade.fitting.files import merged
from cascade.fitting.learned import fit_learned
from cascade.fitting.split import learn_and_test
from cascade.fitting.words import warnings_of


def population(n, seed=0, **accuracy):
    """Tiers whose confidence is the probability that they are right; the top tier is good."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, n)
    hard = rng.random(n)
    table = {"truth": truth}
    for name, skill in (accuracy or {"small": 0.75, "large": 0.98}).items():
        chance = np.clip(skill + (0.5 - hard) * 2 * (1 - skill), 0, 1)
        right = rng.random(n) < chance
        table[f"{name}.value"] = np.where(right, truth, (truth + 1 + rng.integers(0, 3, n)) % 4)
        table[f"{name}.confidence"] = np.clip(chance, 0.001, 0.999)
        table[f"{name}.cost"] = np.full(n, {"small": 1.0, "middle": 4.0}.get(name, 20.0))
    return table


def test_few_rows_are_all_tested_and_nothing_is_chosen():
    found = cascade.fit(population(1_000))
    assert (found.certificate.n, found.candidate.score, found.certificate.loss) == (
        1_000, "plain", "gross",
    )  # fmt: skip
    assert found.judged == ()
    assert found.certificate.fractions is None


def test_with_many_rows_a_third_is_for_choosing():
    found = cascade.fit(population(6_000))
    assert found.certificate.n == 4_000
    assert found.judged
    assert {one.candidate.loss for one in found.judged} == {"gross", "net"}
    assert found.cost < found.cost_top
    assert found.cost_oracle < found.cost


def test_the_same_seed_is_the_same_fit_and_another_splits_otherwise():
    one, same, other = (cascade.fit(population(6_000), seed=seed).certificate for seed in (1, 1, 2))
    assert one == same
    assert one.path != other.path


def test_it_tells_how_far_it_is():
    told = []
    cascade.fit(population(4_000), progress=lambda what, share: told.append((what, share)))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert (shares[0], {what for what, _ in told}) == (0.0, {"judging 4 candidates"})


def test_what_is_asked_for_is_done():
    found = cascade.fit(population(3_000), loss="net", score="by_label")
    assert (found.certificate.loss, found.candidate.score) == ("net", "by_label")
    assert found.certificate.covers == "fixed_point"
    found = cascade.fit(population(3_000), loss="gross", score="plain")
    assert (found.certificate.n, found.certificate.covers) == (3_000, "adaptive")


@pytest.mark.parametrize("loss", ["gross", "net"])
def test_the_promise_covers_what_is_asked_for(loss):
    table = population(9_000, seed=3, small=0.7, middle=0.93, large=0.98)
    found = {
        covers: cascade.fit(table, loss=loss, covers=covers, max_loss=0.03, ladder="all")
        for covers in ("adaptive", "fixed_point")
    }
    assert {name: f.certificate.covers for name, f in found.items()} == {
        "adaptive": "adaptive", "fixed_point": "fixed_point",
    }  # fmt: skip
    losses = [point.losses for point in found["adaptive"].certificate.path]
    assert losses == sorted(losses)
    assert found["fixed_point"].cost <= found["adaptive"].cost


def test_without_truth_it_promises_agreement():
    table = population(4_000, small=0.9, large=0.99)
    del table["truth"]
    found = cascade.fit(table, max_loss=0.05)
    assert found.certificate.loss == "disagreement"
    assert found.accuracy is None
    with pytest.raises(RecordingError, match="needs truth"):
        cascade.fit(table, loss="gross")


def test_a_useless_first_tier_is_left_out():
    table = population(6_000, small=0.75, large=0.98)
    noise = np.random.default_rng(5)
    table["useless.value"] = noise.integers(0, 4, 6_000)
    table["useless.confidence"] = noise.random(6_000)
    table["useless.cost"] = np.full(6_000, 5.0)
    found = cascade.fit(table, tiers=["useless", "small", "large"])
    assert found.certificate.tiers == ("small", "large")
    assert "left out: useless" in found.report()
    whole = cascade.fit(table, tiers=["useless", "small", "large"], ladder="all")
    assert whole.certificate.tiers == ("useless", "small", "large")
    assert whole.cost >= found.cost


def test_three_tiers_can_pay():
    table = population(9_000, seed=3, small=0.7, middle=0.93, large=0.98)
    found = cascade.fit(table, max_loss=0.02)
    assert found.certificate.certified > 1
    assert found.saves > 0.2


def test_labels_matter_where_a_tier_knows_only_some():
    rng, n = np.random.default_rng(1), 9_000
    truth = rng.integers(0, 2, n)
    right = np.where(truth == 0, rng.random(n) < 0.995, rng.random(n) < 0.5)
    table = {
        "truth": truth,
        "small.value": np.where(right, truth, 2 + rng.integers(0, 2, n)),
        "small.confidence": rng.random(n),  # of no use by itself
        "large.value": truth,
    }
    found = cascade.fit(table, costs=[1, 20])
    assert found.candidate.score == "by_label"
    assert found.saves > 0.25
    assert set(found.policy.calibrations) == {"small"}
    with pytest.raises(CannotCertify):
        cascade.fit(table, costs=[1, 20], score="plain", loss="gross")


def test_nothing_certified_says_how_many_rows_could_do():
    with pytest.raises(CannotCertify, match="about 2") as caught:
        cascade.fit(population(100))
    assert caught.value.needed > 100


def test_a_top_tier_that_is_no_better_is_no_reason_to_cascade():
    table = population(2_000, small=0.97, large=0.9)
    with pytest.raises(CannotCertify, match="serve 'small' alone"):
        cascade.fit(table)


def test_a_saving_that_hardly_pays_is_called_that():
    found = cascade.fit(population(2_000), costs=[2.5, 20])
    assert 0 < found.saves < 0.05
    assert "Verdict  do not cascade" in found.report()


def test_a_first_tier_as_dear_as_the_top_one_is_pointless():
    with pytest.raises(CannotCertify, match="pointless: at the cheapest certified point"):
        cascade.fit(population(2_000), costs=[20, 20])


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"max_loss": 0}, "max_loss"), ({"alpha": 1}, "alpha"), ({"loss": "grss"}, "loss: expected"),
     ({"score": "best"}, "score: expected"), ({"ladder": "x"}, "ladder"),
     ({"same": "lower"}, "same: expected"),
     ({"tiers": ["small", "big"]}, "no tier 'big'"), ({"tiers": ["large"]}, "two tiers or more")],
)  # fmt: skip
def test_arguments_that_make_no_sense(settings, words):
    with pytest.raises(ValueError, match=words):
        cascade.fit(population(500), **settings)


def test_without_a_confidence_nothing_says_when_to_escalate():
    table = {name: column for name, column in population(5_000).items() if "confidence" not in name}
    with pytest.raises(CannotCertify, match="no confidence was recorded for 'small'"):
        cascade.fit(table)


def test_answers_that_differ_in_case_can_be_the_same():
    table = population(1_000)
    table |= {"truth": table["truth"].astype(str), "large.value": table["large.value"].astype(str)}
    words = np.array(["Yes", "No", "Perhaps", "Never"])
    table["truth"] = words[population(1_000)["truth"]]
    table["large.value"] = np.char.upper(words[population(1_000)["large.value"]])
    table["small.value"] = np.char.lower(words[population(1_000)["small.value"]])
    found = cascade.fit(table, same="casefold")
    assert found.accuracy["large"] > 0.9


# -- files -----------------------------------------------------------------------------------------


def test_what_is_saved_serves(tmp_path):
    table = population(6_000)
    found = cascade.fit(table, score="by_label", loss="gross")
    path = found.save(tmp_path / "policy")
    policy = Policy.from_yaml(path, env={})
    assert policy.certificate == found.certificate
    assert policy.calibrations["small"].to_dict() == found.policy.calibrations["small"].to_dict()
    assert "Promise" in path.read_text()
    rows = list(range(200))

    def tier(name):
        pairs = list(zip(table[f"{name}.value"], table[f"{name}.confidence"], strict=True))
        return cascade.tier(
            lambda xs: [(int(pairs[x][0]), float(pairs[x][1])) for x in xs], returns="pairs"
        )

    with Router(policy, tiers={name: tier(name) for name in ("small", "large")}) as router:
        one = [router.route(x, deadline=1.0) for x in rows]
        many = router.route_many(rows)
    replayed = cascade.replay(policy, table)
    assert [o.tier for o in one] == many.tiers.tolist() == list(replayed.tiers[:200])
    assert {o.tier for o in one} == {"small", "large"}
    assert all(o.covered for o in one)


def test_a_table_that_was_changed_voids_the_certificate(tmp_path):
    path = cascade.fit(population(6_000), score="by_label", loss="gross").save(tmp_path)
    tables = json.loads((tmp_path / "calibration.json").read_text())
    tables["small"]["other"][-1] = 0.9999
    (tmp_path / "calibration.json").write_text(json.dumps(tables))
    with pytest.raises(PolicyError, match=r"'small'.*fit again"):
        Policy.from_yaml(path, env={})
    (tmp_path / "calibration.json").unlink()
    with pytest.raises(PolicyError, match=r"calibration\.json: cannot be read"):
        Policy.from_yaml(path, env={})


OWN = """\
# our policy, with reasons
version: 1
name: ours
deadline: 20ms   # agreed with the front end
tiers:
  - name: small  # cheap
    kind: external
    version: "7"
    confidence: max_probability
  - name: large
    kind: external
    version: "7"
escalation:
  thresholds: [0.8]   # guessed
  abstain_below: 0.1
"""


def test_ones_own_policy_keeps_its_comments(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(OWN)
    found = cascade.fit(population(6_000), score="by_label", loss="gross")
    before, after = merged(found, path)
    assert before == OWN
    assert path.read_text() == after
    for kept in ("# our policy, with reasons", "# agreed with the front end", "# cheap",
                 "abstain_below: 0.1"):  # fmt: skip
        assert kept in after
    assert "thresholds" not in after
    policy = Policy.from_yaml(path, env={})
    assert policy.certificate.path == found.certificate.path
    assert policy.tiers[0].confidence.calibration == "calibration.json"


@pytest.mark.parametrize(
    "settings", [{}, {"loss": "net"}, {"score": "by_label", "loss": "gross"}, {"max_loss": 0.004}]
)
def test_the_test_can_be_redone_on_the_recording(tmp_path, settings):
    table = population(6_000)
    found = cascade.fit(table, **settings)
    assert redo_test(found.policy, table) == []
    changed = attrs.evolve(
        found.certificate,
        path=[attrs.evolve(p, losses=p.losses + 3) for p in found.certificate.path],
    )
    assert "point 0: 3 losses, counted 0" in redo_test(found.policy.certified(changed), table)[0]
    (wrong,) = redo_test(found.policy, population(6_000, seed=9))
    assert "another recording" in wrong


def test_warnings_name_what_the_promise_rests_on():
    table = population(2_000) | {"input": ["same"] * 2_000, "at": np.arange(2_000)}
    report = cascade.fit(table).report()
    assert "1,999 of 2,000 rows repeat an earlier input" in report
    assert "in order of time" in report
    table |= {"worse.cost": np.full(2_000, 3.0), "worse.value": table["small.value"],
              "worse.confidence": table["small.confidence"]}  # fmt: skip
    found = cascade.fit(table, tiers=["small", "worse", "large"])
    assert "worse is dominated: small" in found.report()


# -- what the report says ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted():
    return cascade.fit(population(1_000))


def test_a_report_leaves_out_what_is_not_known(fitted):
    whole = fitted.report()
    assert "an oracle would save" in whole
    assert "\nAccuracy " in whole
    bare = attrs.evolve(fitted, accuracy=None, cost_oracle=None).report()
    assert "oracle" not in bare
    assert "Accuracy" not in bare
    assert "dominated" not in bare
    fixed = attrs.evolve(fitted, certificate=attrs.evolve(fitted.certificate, covers="fixed_point"))
    assert "each for itself, load may not move among them" in fixed.report()


def test_doubts_about_a_recording_are_said_where_there_are_any(fitted):
    def doubts(**columns):
        held = cascade.Recording.from_columns(population(1_000) | columns)
        return " ".join(warnings_of(attrs.evolve(fitted, recording=held)))

    n = 1_000
    assert "rows repeat an earlier input" in doubts(input=["same"] * n)
    assert "repeat" not in doubts(input=[str(i) for i in range(n)])
    days = [f"2026-{1 + i // 90:02}-01" for i in range(n)]
    assert "rows are in order of time" in doubts(at=days)
    assert "rows are in order of time" in doubts(at=list(range(n)))
    start = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)  # as Parquet and data frames have them
    assert "rows are in order of time" in doubts(at=[start + dt.timedelta(i) for i in range(n)])
    assert "in order of time" not in doubts(at=days[::-1])


def test_ones_own_policy_keeps_its_layout_and_loses_its_old_table(fitted, tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(
        "version: 1\nname: mine\ntiers:\n"
        "- {name: small, kind: external, version: '1', confidence: {calibration: old.json}}\n"
        "- {name: large, kind: external, version: '1'}\n"
        "escalation: {thresholds: [0.9]}\n"
    )
    before, after = merged(fitted, path)
    assert "\n- {name: small" in before
    assert "\n- {name: small" in after
    assert "old.json" not in after
    assert Policy.from_yaml(path, env={}).certificate is not None


def test_a_fit_that_cannot_be_put_into_a_policy_leaves_every_file_as_it_was(tmp_path):
    # the certificate is of two tiers; the file has a third, of no version
    path = tmp_path / "policy.yaml"
    text = OWN.replace("escalation:", "  - {name: huge, kind: external}\nescalation:")
    path.write_text(text.replace("[0.8]", "[0.8, 0.9]"))
    for name in ("certificate.json", "calibration.json"):
        (tmp_path / name).write_text("{}")
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    found = cascade.fit(population(6_000), score="by_label", loss="gross")
    with pytest.raises(PolicyError, match=r"tiers\.2\.version: missing"):
        merged(found, path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_what_was_not_there_before_a_fit_failed_is_not_there_after_it(fitted, tmp_path):
    (tmp_path / "policy.yaml").mkdir()
    with pytest.raises(IsADirectoryError):
        fitted.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["policy.yaml"]


# -- what is certified is what is served -----------------------------------------------------------


def with_margins(n=6_000):
    """Confidences that say nothing, and margins that do."""
    table = population(n)
    table["small.margin"] = table["small.confidence"]
    table["small.confidence"] = np.random.default_rng(1).random(n)
    return table


def test_the_score_that_was_fitted_is_put_into_the_policy(tmp_path):
    path = tmp_path / "policy.yaml"
    for given in ("    confidence: max_probability\n", ""):
        path.write_text(OWN.replace("    confidence: max_probability\n", given))
        found = cascade.fit(with_margins(), score="margin", max_loss=0.02, costs=[1, 20])
        merged(found, path)
        policy = Policy.from_yaml(path, env={})
        assert policy.tiers[0].confidence.score == "margin"
        assert cascade.replay(policy, with_margins(), costs=[1, 20]).loss <= 0.02
        assert redo_test(policy, with_margins()) == []


def test_confidences_are_not_put_into_a_policy_that_goes_by_margins(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(OWN.replace("confidence: max_probability", "confidence: margin"))
    found = cascade.fit(population(6_000), score="plain", max_loss=0.02, costs=[1, 20])
    with pytest.raises(PolicyError, match="'small': the policy goes by margins"):
        merged(found, path)
    assert "confidence: margin" in path.read_text()


def test_an_entry_rule_that_was_not_tested_is_refused(tmp_path):
    skilled = population(6_000, small=0.7, middle=0.8, large=0.98)
    skilled["x.hard"] = np.zeros(6_000)
    table = skilled
    found = cascade.fit(table, max_loss=0.05, costs=[1, 5, 20], entry=False, ladder="all",
                        score="plain", loss="gross")  # fmt: skip
    path = found.save(tmp_path)
    rule = "complexity: {intercept: 0.0, weights: {hard: 1.0}, skip_above: [0.5, 0.9]}\n"
    path.write_text(path.read_text() + rule)
    with pytest.raises(PolicyError, match="tested without an entry rule"):
        Policy.from_yaml(path, env={})


def test_what_a_call_costs_on_the_rows_of_the_test_has_no_say_in_the_choice():
    """A tier that is slow where it is wrong would tell it."""
    n, rng = 4_000, np.random.default_rng(0)
    table = population(n)
    table["other.value"], table["other.confidence"] = table["small.value"], rng.random(n)
    order = ["truth", "other.value", "other.confidence", "small.value", "small.confidence",
             "large.value"]  # fmt: skip
    table = {name: table[name] for name in order}
    _, test = learn_and_test(n, np.random.RandomState(0))
    for name in ("other", "small", "large"):
        table[f"{name}.cost"] = np.full(n, {"other": 1.0, "small": 2.0, "large": 20.0}[name])
    before = cascade.fit(table, max_loss=0.05)
    for name, times in (("other", 0.01), ("small", 4.0)):
        table[f"{name}.cost"] = table[f"{name}.cost"].copy()
        table[f"{name}.cost"][test] *= times
    after = cascade.fit(table, max_loss=0.05)
    assert after.candidate == before.candidate
    assert [(p.thresholds, p.losses) for p in after.certificate.path] == [
        (p.thresholds, p.losses) for p in before.certificate.path
    ]
    assert after.costs != before.costs


def test_graded_answers_are_judged_by_their_grades():
    n = 4_000
    rng = np.random.default_rng(0)
    table = {"small.quality": np.full(n, 0.6), "small.confidence": rng.random(n),
             "large.quality": np.full(n, 0.95)}  # fmt: skip
    with pytest.raises(CannotCertify):
        cascade.fit(table, max_loss=0.01, costs=[1, 20])
    with pytest.raises(RecordingError, match=r"\.quality is graded; use loss='net'"):
        cascade.fit(table, max_loss=0.01, costs=[1, 20], loss="gross")


@pytest.mark.parametrize("change", ["n", "p_value", "certified", "skip", "max_loss"])
@pytest.mark.parametrize("loss", ["gross", "net"])
def test_a_certificate_that_was_changed_is_told(loss, change):
    table = population(6_000)
    found = cascade.fit(table, loss=loss, max_loss=0.02, costs=[1, 20])
    cert = found.certificate
    changed = {
        "n": lambda: attrs.evolve(cert, n=4 * cert.n),
        "p_value": lambda: attrs.evolve(
            cert, path=[attrs.evolve(p, p_value=0.0) for p in cert.path]
        ),
        "certified": lambda: attrs.evolve(cert, certified=len(cert.path)),
        "skip": lambda: attrs.evolve(
            cert, path=[attrs.evolve(cert.path[0], skip_above=(0.5,)), *cert.path[1:]]
        ),
        "max_loss": lambda: attrs.evolve(cert, max_loss=0.001),
    }[change]()
    assert redo_test(found.policy, table) == []
    assert redo_test(found.policy.certified(changed), table) != []


def test_a_fit_of_complete_rows_can_be_redone():
    table = population(6_000)
    for name in ("truth", "small.value", "large.value"):
        table[name] = table[name].astype(str)
    table["large.value"][::7] = ""
    found = cascade.fit(table, complete_only=True, costs=[1, 20])
    assert redo_test(found.policy, table, complete_only=True) == []


def test_a_learned_score_without_a_confidence_or_a_loss_is_served_blind():
    n = 2_000
    table = {"small.correct": np.ones(n), "large.correct": np.ones(n), "x.hard": np.zeros(n)}
    learned = fit_learned(np.zeros(n), np.full(n, 0.5), np.zeros(n), {"hard": table["x.hard"]})
    assert learned.blind


def test_ones_own_policy_keeps_its_line_ends(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_bytes(OWN.replace("\n", "\r\n").encode())
    merged(cascade.fit(population(6_000), score="plain", loss="gross"), path)
    written = path.read_bytes()
    assert written.count(b"\n") == written.count(b"\r\n") > 10


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 12])
def test_of_so_few_rows_none_may_be_looked_at(n):
    table = population(n) | {"x.length": list(range(n))}
    asked = [
        (loss, score) for loss in ("auto", "gross", "net") for score in ("by_label", "learned")
    ]
    for loss, score in [*asked, ("net", "plain"), ("gross", "auto")]:
        with contextlib.suppress(CannotCertify):  # too few, or pointless
            cascade.fit(table, max_loss=0.4, costs=[1, 20], loss=loss, score=score)


def test_too_few_rows_say_how_many_it_takes():
    with pytest.raises(
        CannotCertify, match=r"5 rows are too few .* at least 68 are needed"
    ) as error:
        cascade.fit(population(5), max_loss=0.05, costs=[1, 20], loss="gross", score="by_label")
    assert error.value.needed == 68


@pytest.mark.parametrize("bound", ["1%", None, 1, float("nan")])
def test_a_bound_is_a_number_between_0_and_1(bound):
    with pytest.raises(ValueError, match="max_loss: expected a number between 0 and 1"):
        cascade.fit(population(50), max_loss=bound, costs=[1, 20])
