"""What runs after the answers: shadows, recordings, labels; and that it never slows a request."""

import asyncio
import contextlib
import csv
import json
import os
import threading
import time
from types import SimpleNamespace

import attrs
import numpy as np
import pytest

import cascade
import cascade.observing
from cascade import Mode, Policy, PolicyError, Recording, RecordingError, Router, TierError
from cascade.calibration import ByLabel
from cascade.cli import main
from cascade.tiers.faults import NotAsked

TEXTS = [f"text {i}" for i in range(40)]


def small(texts):
    return [(len(t) % 3, 0.9 if t.endswith(("1", "2")) else 0.4) for t in texts]


def large(texts):
    return [(len(t) % 3 if "3" not in t else 7, 0.99) for t in texts]


TREE = {
    "version": 1, "name": "p", "deadline": "5s", "escalation": {"thresholds": [0.8]},
    "tiers": [{"name": "small", "kind": "external"}, {"name": "large", "kind": "external"}],
}  # fmt: skip


def router(mode="enforce", tiers=None, **more):
    tree = {
        "version": 1, "name": "p", "deadline": "5s", "mode": mode,
        "tiers": [{"name": "small", "kind": "external"}, {"name": "large", "kind": "external"}],
        "escalation": {"thresholds": [0.8]},
    }  # fmt: skip
    bound = {
        "small": cascade.tier(small, returns="pairs"),
        "large": cascade.tier(large, returns="pairs"),
    }
    return Router(Policy.from_dict(tree | more), tiers=bound | (tiers or {}))


def rows_of(folder):
    (file,) = folder.glob("recording-*.csv")
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_of_a_tier_that_nobody_could_ask_nothing_is_said():
    """Its event loop has ended, say: that it failed would be untrue."""

    def plain(_):
        raise NotAsked("no event loop is left", tier="small")

    with router("observe") as observing:
        observing._service.plan.lanes[0].plain = plain
        outcome = observing.route("x")
        observing.flush()
        assert outcome.shadow is None
        assert observing.statistics().dropped == 1


def test_observing_the_top_tier_answers_and_the_shadow_says_the_rest():
    with router("observe") as observing, router() as enforcing:
        seen = [observing.route(text) for text in TEXTS]
        observing.flush()
        served = [enforcing.route(text) for text in TEXTS]
    assert {o.tier for o in seen} == {"large"}
    assert {str(o.mode) for o in seen} == {"observe"}
    assert [o.shadow["tier"] for o in seen] == [o.tier for o in served]
    assert [o.shadow["value"] for o in seen] == [o.value for o in served]
    assert [o.shadow["agrees"] for o in seen] == [
        a.value == b.value for a, b in zip(seen, served, strict=True)
    ]
    assert seen[0].to_dict()["shadow"]["disposition"] == "accepted"


def test_enforcing_leaves_no_shadow_and_starts_no_thread():
    with router() as enforcing:
        assert enforcing.route("text 1").shadow is None
        assert "route" not in vars(enforcing)
        assert "cascade-aftermath" not in {thread.name for thread in threading.enumerate()}


def test_the_mode_can_change_while_serving():
    with router() as routing:
        routing.set_mode("observe")
        observed = routing.route("text 1")
        routing.set_mode("enforce")
        assert (observed.tier, routing.route("text 1").tier) == ("large", "small")
        routing.flush()
        assert observed.shadow["tier"] == "small"


def test_what_is_recorded_can_be_fitted_and_replayed(tmp_path):
    with router() as routing:
        routing.record(tmp_path, rate=1.0)
        outcomes = [routing.route(text) for text in TEXTS]
        routing.flush()
        assert routing.statistics().recorded == len(TEXTS)
        policy = routing.policy
    rows = rows_of(tmp_path)
    assert [row["id"] for row in rows] == [o.id for o in outcomes]
    assert set(rows[0]) == {
        "id", "at", "policy", "sampled", "small.value", "small.confidence", "small.seconds",
        "large.value", "large.confidence", "large.seconds",
    }  # fmt: skip
    held = Recording.read(tmp_path)
    assert held.names == ("small", "large")
    assert held.tiers[0].confidence.tolist() == [small([t])[0][1] for t in TEXTS]
    assert held.tiers[1].value.tolist() == [str(large([t])[0][0]) for t in TEXTS]
    replayed = cascade.replay(policy, held)
    assert list(replayed.tiers) == [o.tier for o in outcomes]


def test_confidence_is_recorded_before_it_is_calibrated(tmp_path):
    truth = np.array(["a", "b"] * 1500)
    table = {
        "truth": truth,
        "small.value": np.where(np.arange(3000) < 900, "c", truth),
        "small.confidence": np.linspace(0.1, 0.9, 3000),
        "large.value": truth,
    }
    found = cascade.fit(table, costs=[1, 9], score="by_label", loss="gross", max_loss=0.1)
    path = found.save(tmp_path / "p")
    pairs = {"small": [("a", 0.5)], "large": [("a", 0.9)]}
    tiers = {
        name: cascade.tier(lambda _, said=said: said, returns="pairs")
        for name, said in pairs.items()
    }
    with Router.from_yaml(path, tiers=tiers) as routing:
        routing.record(tmp_path / "r", rate=1.0)
        outcome = routing.route("x", deadline=1.0)
    (row,) = rows_of(tmp_path / "r")
    assert row["small.confidence"] == "0.5"
    assert outcome.steps[0].confidence != 0.5


def test_inputs_are_written_only_when_asked_for(tmp_path):
    for folder, inputs in ((tmp_path / "no", False), (tmp_path / "yes", True)):
        with router() as routing:
            routing.record(folder, rate=1.0, inputs=inputs)
            routing.route("a secret 1")
        assert ("a secret 1" in (rows_of(folder)[0].get("input") or "")) is inputs


@pytest.mark.parametrize("x", [np.arange(3.0), {"a": 1.0, "b": 2}, [0.5, 1.5]])
def test_what_is_no_text_is_not_written_as_one(tmp_path, x):
    """A fit would go by the statistics of a text, which no request then has."""
    answers = {
        name: cascade.tier(lambda _: [("a", 0.9)], returns="pairs") for name in ("small", "large")
    }
    with router(tiers=answers) as routing:
        routing.record(tmp_path, rate=1.0, inputs=True)
        routing.route(x)
    (row,) = rows_of(tmp_path)
    assert json.loads(row["request"]) == (x.tolist() if isinstance(x, np.ndarray) else x)
    held = Recording.read(tmp_path)
    assert held.text is None
    assert not held.shown


def test_a_text_that_is_prepared_is_written_as_the_request(tmp_path):
    answers = {
        name: cascade.tier(lambda _: [("a", 0.9)], returns="pairs") for name in ("small", "large")
    }
    policy = Policy.from_dict(TREE | {"prepare": {"version": "1"}})
    for folder, prepare in (("numbers", lambda text: np.array([len(text)])), ("text", str.lower)):
        with Router(policy, tiers=answers, prepare=prepare) as routing:
            routing.record(tmp_path / folder, rate=1.0, inputs=True)
            routing.route("A text")
            routing.route("one that stays as it is")  # which is in the same file
        said = [row["request"] for row in rows_of(tmp_path / folder)]
        assert said == ["A text", "one that stays as it is"]


def test_an_array_of_which_a_text_is_made_is_recorded(tmp_path):
    answers = {
        name: cascade.tier(lambda _: [("a", 0.9)], returns="pairs") for name in ("small", "large")
    }
    policy = Policy.from_dict(TREE | {"prepare": {"version": "1"}})
    with Router(policy, tiers=answers, prepare=str) as routing:
        routing.record(tmp_path, rate=1.0, inputs=True)
        routing.route(np.arange(3.0))
        routing.flush()
        assert routing.statistics().dropped == 0
    assert rows_of(tmp_path)[0]["request"] == "[0.0, 1.0, 2.0]"


def test_incomplete_recordings_ask_nobody(tmp_path):
    asked = []

    def counting(texts):
        asked.extend(texts)
        return large(texts)

    with router(tiers={"large": cascade.tier(counting, returns="pairs")}) as routing:
        routing.record(tmp_path, rate=1.0, complete=False)
        routing.route("text 1")
    (row,) = rows_of(tmp_path)
    assert (row["small.value"], row["large.value"], asked) == ("0", "", [])


def test_a_rate_takes_its_share(tmp_path):
    with router() as routing:
        routing.record(tmp_path, rate=0.3)
        for i in range(600):
            routing.route(f"text {i}")
            if i % 100 == 0:
                routing.flush()
        routing.flush()
        assert 110 < routing.statistics().recorded < 250
    for rate in (0, -1, 1.5):
        with pytest.raises(ValueError, match="rate"):
            routing.record(tmp_path, rate=rate)


def test_a_slow_tier_in_the_background_drops_rows_and_holds_up_nobody(tmp_path):
    gate = threading.Event()

    def slow(texts):
        gate.wait()
        return large(texts)

    with router(tiers={"large": cascade.tier(slow, returns="pairs")}) as routing:
        routing.record(tmp_path, rate=1.0)
        for _ in range(400):
            assert routing.route("text 1").tier == "small"  # while the background waits
        gate.set()
        routing.flush()
        counted = routing.statistics()
    assert counted.dropped > 0
    assert counted.recorded + counted.dropped == 400


def test_a_tier_that_fails_leaves_its_cell_empty(tmp_path):
    def broken(texts):
        raise RuntimeError

    with router(tiers={"large": cascade.tier(broken, returns="pairs")}) as routing:
        routing.record(tmp_path, rate=1.0)
        routing.route("text 1")
        with pytest.raises(TierError):
            Router.route(routing, "text 1", at_least="large")
    (row,) = rows_of(tmp_path)
    assert (row["small.value"], row["large.value"]) == ("0", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_writes_a_file_of_its_own(tmp_path):
    with router() as routing:
        routing.record(tmp_path, rate=1.0)
        routing.route("text 1")
        routing.flush()
        child = os.fork()
        if child == 0:
            routing.route("text 2")
            routing.flush()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        routing.route("text 3")
    files = list(tmp_path.glob("recording-*.csv"))
    assert len(files) == 2
    assert Recording.read(tmp_path).n == 3


def test_labels_that_come_later_are_joined(tmp_path, capsys):
    with router() as routing:
        with pytest.raises(PolicyError, match="call record"):
            routing.feedback("1", 1)
        routing.record(tmp_path, rate=1.0)
        outcomes = [routing.route(text) for text in TEXTS]
        for text, outcome in list(zip(TEXTS, outcomes, strict=True))[:30]:
            routing.feedback(outcome.id, len(text) % 3)
    out = tmp_path / "out" / "labelled.csv"
    out.parent.mkdir()
    assert main(["label", str(tmp_path), str(tmp_path), "--out", str(out)]) == 0
    assert "30 of 40 rows labelled, 0 labels unused" in capsys.readouterr().out
    held = Recording.read(out)
    assert held.n == 30
    assert held.right()[:, 0].all()
    assert main(["label", str(out), str(tmp_path), "--on", "no"]) == 2
    assert "no column 'no'" in capsys.readouterr().err


def test_a_recording_without_the_column_to_join_on_is_named(tmp_path, capsys):
    (tmp_path / "r.csv").write_text("a.value,b.value\nx,x\n")
    (tmp_path / "l.csv").write_text("id,truth\n1,x\n")
    files = [str(tmp_path / "r.csv"), str(tmp_path / "l.csv")]
    assert main(["label", *files, "--out", str(tmp_path / "o.csv")]) == 2
    assert "r.csv: no column 'id'; it has a.value, b.value" in capsys.readouterr().err


def test_two_labels_for_one_request_must_agree(tmp_path, capsys):
    (tmp_path / "r.csv").write_text("id,a.value,b.value\n1,x,x\n")
    (tmp_path / "l.csv").write_text("id,truth\n1,x\n1,y\n")
    files = [str(tmp_path / "r.csv"), str(tmp_path / "l.csv")]
    assert main(["label", *files, "--out", str(tmp_path / "o.csv")]) == 2
    assert "row 2: id '1' is 'y' here and 'x' before" in capsys.readouterr().err
    (tmp_path / "l.csv").write_text("id,truth\n2,x\n")
    assert main(["label", *files, "--out", str(tmp_path / "o.csv")]) == 1


def test_a_request_that_is_lost_is_recorded_all_the_same(tmp_path):
    def lost(texts):
        raise LookupError

    bound = {"small": cascade.tier(lost, returns="pairs"), "large": lost}
    with router(tiers=bound) as failing:
        failing.record(tmp_path, 1.0)
        failing.record(tmp_path / "again", 1.0)  # the first is closed
        with pytest.raises(TierError):
            failing.route("text")
        failing.flush()
    (row,) = rows_of(tmp_path / "again")
    assert row["small.value"] == row["large.value"] == ""


def test_a_shadow_of_a_tier_that_fails_says_so():
    def lost(texts):
        raise LookupError

    with router("observe", tiers={"small": cascade.tier(lost, returns="pairs")}) as observing:
        outcome = observing.route("text 1")
        observing.flush()
        assert (outcome.tier, outcome.shadow["tier"]) == ("large", "large")


def test_a_shadow_is_calibrated_and_postprocessed_as_an_answer_is():
    table = ByLabel([0.0, 1.0], {"2": [0.0, 0.5]}, [0.0, 1.0])
    given = attrs.evolve(Policy.from_dict(TREE), mode=Mode.OBSERVE, calibrations={"small": table})
    bound = {
        "small": cascade.tier(small, returns="pairs"),
        "large": cascade.tier(large, returns="pairs"),
    }
    with Router(given, tiers=bound, postprocess=lambda value: f"<{value}>") as observing:
        outcome = observing.route("abcd1")  # the label 2: 0.9 means 0.45 there
        other = observing.route("abc1")
        observing.flush()
        assert (outcome.value, outcome.shadow["tier"]) == ("<2>", "large")
        assert (other.shadow["tier"], other.shadow["value"]) == ("small", "<1>")


def test_what_cannot_be_done_after_the_answer_is_counted_and_does_not_touch_it():
    sure = cascade.tier(lambda x: ("yes", 0.9), returns="pairs", rows="one")
    with router("observe", {"small": sure, "large": sure}) as r:
        assert r.route(threading.Lock()).value == "yes"  # which nobody can copy
        assert r.statistics().dropped == 1

    def spoils(value):
        raise ValueError(value)

    with router("observe", {"small": sure, "large": sure}) as r:
        plan = r._service.plan
        r._service.plan = attrs.evolve(
            plan, post=lambda tier, value: value if tier else spoils(value)
        )
        assert r.route("x").value == "yes"
        r.flush()
        assert r.statistics().dropped == 1


def test_shadows_of_arrays_agree_where_all_their_numbers_do():
    def tier(*numbers):
        return cascade.tier(lambda x: (np.array(numbers), 0.9), returns="pairs", rows="one")

    for small, agrees in ((tier(1, 2), True), (tier(1, 3), False), (tier(1), False)):
        with router("observe", {"small": small, "large": tier(1, 2)}) as r:
            outcome = r.route("x")
            r.flush()
            assert outcome.shadow["agrees"] is agrees


def test_closing_waits_no_longer_for_a_hung_tier_than_its_grace_and_labels_are_written(tmp_path):
    begun, gate, over = threading.Event(), threading.Event(), threading.Event()

    def hung(texts):
        begun.set()
        assert gate.wait(60.0)
        over.set()
        return large(texts)

    def threads():
        return {one for one in threading.enumerate() if one.name == "cascade-aftermath"}

    before = threads()
    routing = router(tiers={"large": cascade.tier(hung, returns="pairs")})
    routing.record(tmp_path, rate=1.0)
    first = routing.route("text 1")
    assert begun.wait(60.0)
    routing.route("text 2")
    routing.feedback(first.id, 5)
    routing.close(grace=0.01)
    assert not over.is_set()
    assert (routing.statistics().recorded, routing.statistics().dropped) == (0, 2)
    (labels,) = tmp_path.glob("labels-*.csv")
    assert labels.read_text().splitlines() == ["id,truth", f"{first.id},5"]
    (hanging,) = (one for one in threads() if one not in before)
    gate.set()
    hanging.join(60.0)  # it ends when the tier comes back, and writes nothing late
    assert not hanging.is_alive()
    assert not list(tmp_path.glob("recording-*.csv"))
    routing.feedback(first.id, 6)  # late ones are written too
    routing.flush()
    assert labels.read_text().splitlines()[1:] == [f"{first.id},5"]
    assert len(list(tmp_path.glob("labels-*.csv"))) == 2


def test_closing_an_asynchronous_router_is_bounded_too():
    gate = threading.Event()

    def hung(texts):
        assert gate.wait(60.0)
        return small(texts)

    async def main():
        policy = Policy.from_dict(TREE | {"mode": "observe"})
        tiers = {"small": cascade.tier(hung, returns="pairs"), "large": lambda xs: [1 for _ in xs]}
        routing = cascade.AsyncRouter(policy, tiers=tiers)
        await routing.route("text 1")
        await routing.close(grace=0.05)
        return routing.statistics().requests

    assert asyncio.run(asyncio.wait_for(main(), 30.0)) == 1
    gate.set()


def test_an_empty_label_is_none(tmp_path, capsys):
    (tmp_path / "r.csv").write_text("id,a.value,b.value\n1,x,x\n2,x,y\n")
    (tmp_path / "l.csv").write_text("id,truth\n1,x\n2,\n")
    out = tmp_path / "o.csv.gz"
    files = [str(tmp_path / "r.csv"), str(tmp_path / "l.csv")]
    assert main(["label", *files, "--out", str(out)]) == 0
    assert "1 of 2 rows labelled, 0 labels unused" in capsys.readouterr().out
    assert Recording.read(out).truth.tolist() == ["x"]


@pytest.mark.parametrize(
    ("out", "words"), [("o.parquet", "expected a .csv"), ("r.csv", "is the recording itself")]
)
def test_labelled_rows_go_to_a_file_of_their_own(tmp_path, capsys, out, words):
    (tmp_path / "r.csv").write_text("id,a.value,b.value\n1,x,x\n")
    (tmp_path / "l.csv").write_text("id,truth\n1,x\n")
    files = [str(tmp_path / "r.csv"), str(tmp_path / "l.csv")]
    assert main(["label", *files, "--out", str(tmp_path / out)]) == 2
    assert words in capsys.readouterr().err
    assert (tmp_path / "r.csv").read_text().endswith("1,x,x\n")


def ends(work):
    """Say whether something ends; what does not stays behind in a thread."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(30.0)
    return not thread.is_alive()


def test_labels_wait_for_nobody_and_none_is_dropped(tmp_path):
    begun, gate = threading.Event(), threading.Event()

    def held(texts):
        begun.set()
        assert gate.wait(60.0)
        return large(texts)

    with router(tiers={"large": cascade.tier(held, returns="pairs")}) as routing:
        routing.record(tmp_path, rate=1.0)
        outcome = routing.route("text 1")
        assert begun.wait(60.0)
        assert ends(lambda: [routing.feedback(outcome.id, i) for i in range(1000)])
        gate.set()
    (labels,) = tmp_path.glob("labels-*.csv")
    assert labels.read_text().splitlines()[1:] == [f"{outcome.id},{i}" for i in range(1000)]
    assert routing.statistics().recorded == 1


def test_labels_hold_up_no_event_loop_that_the_tiers_need(tmp_path):
    async def slowly(texts):
        await asyncio.sleep(0)
        return large(texts)

    async def main():
        tiers = {
            "small": cascade.tier(small, returns="pairs"),
            "large": cascade.tier(slowly, returns="pairs"),
        }
        async with cascade.AsyncRouter(Policy.from_dict(TREE), tiers=tiers) as routing:
            await routing.record(tmp_path, rate=1.0)
            outcome = await routing.route("text 1")
            for i in range(1000):
                routing.feedback(outcome.id, i)

    assert ends(lambda: asyncio.run(main()))
    (labels,) = tmp_path.glob("labels-*.csv")
    assert len(labels.read_text().splitlines()) == 1001


def test_who_waits_for_what_is_queued_while_another_closes_is_not_forgotten(monkeypatch, tmp_path):
    routing = router()
    routing.record(tmp_path, rate=1.0)
    routing.route("text 1")

    def closing():
        monkeypatch.undo()
        routing.close()
        return threading.Event()

    monkeypatch.setattr(cascade.observing, "threading", SimpleNamespace(Event=closing))
    assert ends(routing.flush)
    assert routing.statistics().recorded == 1


def test_what_is_recorded_after_a_swap_says_so_and_stands_under_its_own_columns(tmp_path, capsys):
    def ladder(*names, **more):
        tiers = [{"name": name, "kind": "external"} for name in names]
        thresholds = {"thresholds": [0.8] * (len(names) - 1)}
        return Policy.from_dict(TREE | {"tiers": tiers, "escalation": thresholds} | more)

    pairs = cascade.tier(small, returns="pairs")
    old, same = ladder("small", "large"), ladder("small", "large", revision="2")
    new = ladder("small", "m", "large")
    with Router(old, tiers={"small": pairs, "large": pairs}) as routing:
        routing.record(tmp_path, rate=1.0)
        routing.route("text 1")
        routing.swap(same)
        routing.route("text 2")
        routing.swap(new, tiers=dict.fromkeys(("small", "m", "large"), pairs))
        outcome = routing.route("text 3")
        routing.swap(old, tiers={"small": pairs, "large": pairs})
        routing.route("text 4")
        routing.feedback(outcome.id, 0)
    found = {}
    for path in tmp_path.glob("recording-*.csv"):
        with path.open(newline="") as lines:
            found[Recording.read(path).names] = path, list(csv.DictReader(lines))
    assert {names: [row["policy"] for row in rows] for names, (_, rows) in found.items()} == {
        ("small", "large"): [old.digest, same.digest, old.digest],
        ("small", "m", "large"): [new.digest],
    }
    assert all(None not in row for _, rows in found.values() for row in rows)
    with pytest.raises(RecordingError, match="read those of each ladder by themselves"):
        Recording.read(tmp_path)
    (path, _), out = found["small", "m", "large"], tmp_path / "labelled.csv"
    assert main(["label", str(path), str(tmp_path), "--out", str(out)]) == 0
    assert "1 of 1 rows labelled" in capsys.readouterr().out


def test_what_the_caller_does_to_an_answer_is_not_recorded(tmp_path):
    begun, gate = threading.Event(), threading.Event()

    def held(texts):
        begun.set()
        assert gate.wait(60.0)
        return [["it"] for _ in texts]

    sure = cascade.tier(lambda x: (["it"], 0.9), returns="pairs", rows="one")
    with router(tiers={"small": sure, "large": held}) as routing:
        routing.record(tmp_path, rate=1.0)
        routing.route("first")
        assert begun.wait(60.0)  # what is recorded from now on waits
        routing.route("second").value.append("mine")
        gate.set()
    assert [row["small.value"] for row in rows_of(tmp_path)] == ['["it"]'] * 2


def test_the_tier_that_ran_for_another_is_asked_anew_or_said_nothing(tmp_path):
    for complete in (True, False):
        begun, gate, answers = threading.Event(), threading.Event(), []

        def held(texts, begun=begun, gate=gate):
            begun.set()
            assert gate.wait(60.0)
            return [("it", 0.9) for _ in texts]

        tiers = {"large": cascade.tier(held, returns="pairs")}
        folder = tmp_path / str(complete)
        with router(tiers=tiers, cache={}) as routing:
            routing.record(folder, rate=1.0, complete=complete)

            def ask(routing=routing, answers=answers):
                answers.append(routing.route("text"))

            asking = [threading.Thread(target=ask) for _ in range(2)]
            asking[0].start()
            assert begun.wait(60.0)
            asking[1].start()
            flights = routing._service.plan.engine.flights
            while not any(flight.followers for flight in flights.values()):
                time.sleep(0.001)
            gate.set()
            for thread in asking:
                thread.join(60.0)
        shared = {o.id for o in answers if "shared" in [step.result for step in o.steps]}
        assert len(shared) == 1
        for row in rows_of(folder):
            asked = complete or row["id"] not in shared
            assert (row["large.value"], bool(row["large.seconds"])) == ("it" * asked, asked)
            assert not asked or float(row["large.seconds"]) > 0.0


def test_the_complete_rows_of_a_recording_can_be_read(tmp_path):
    def moody(texts):
        if texts[0].endswith("7"):
            raise LookupError
        return large(texts)

    with router(tiers={"large": cascade.tier(moody, returns="pairs")}) as routing:
        routing.record(tmp_path, rate=1.0)
        for text in TEXTS:
            with contextlib.suppress(TierError):
                routing.route(text)
    rows = rows_of(tmp_path)
    with pytest.raises(RecordingError, match="4 of 40 rows lack a tier's value"):
        Recording.read(tmp_path)
    whole = [row for row in rows if row["large.value"]]
    held = Recording.read(tmp_path, complete_only=True)
    assert held.n == len(whole) == 36
    assert held.tiers[1].confidence.tolist() == [float(row["large.confidence"]) for row in whole]


def test_of_a_tier_that_is_not_asked_no_time_is_recorded(tmp_path):
    with router() as routing:
        routing.record(tmp_path, rate=1.0, complete=False)
        routing.route("text 1")
    (row,) = rows_of(tmp_path)
    assert (row["small.value"], row["large.value"], row["large.seconds"]) == ("0", "", "")
    assert float(row["small.seconds"]) > 0.0


def test_what_comes_after_closing_starts_nothing(tmp_path):
    with router() as routing:
        routing.record(tmp_path, rate=1.0)
        outcome = routing.route(TEXTS[0])
    routing.feedback(outcome.id, 1)
    assert routing._aftermath._thread is None
    (labels,) = tmp_path.glob("labels-*.csv")
    assert outcome.id in labels.read_text()


def test_an_answer_is_given_where_no_thread_is_to_be_had_for_what_comes_after(
    tmp_path, monkeypatch
):
    begin = threading.Thread.start

    def none_beside(thread):
        if thread.name == "cascade-aftermath":
            raise RuntimeError("can't start new thread")
        begin(thread)

    with router() as routing:
        routing.record(tmp_path, rate=1.0)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", none_beside)
            first = routing.route(TEXTS[0])
        second = routing.route(TEXTS[1])
    assert Recording.read(tmp_path).ids.tolist() == [first.id, second.id]
