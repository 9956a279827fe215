"""``route_many`` beyond plain arrays: columns, types, functions around it, allowances."""

import threading
import time
from types import MappingProxyType, SimpleNamespace

import attrs
import numpy as np
import pytest
from onnx import TensorProto, helper

import cascade
from cascade import (
    Abstained,
    Certificate,
    InputTypeError,
    InputValueError,
    Policy,
    PolicyError,
    Router,
    TierError,
    TierOutputError,
)
from cascade.calibration import Learned
from cascade.policy.certificate import PathPoint
from tests.test_inputs import Table
from tests.tiers.test_onnx import FLOAT, INT64, identity, model

DOUBLE, FLOAT16 = TensorProto.DOUBLE, TensorProto.FLOAT16

COLUMNS = {"length": np.array([1.0, 2.0, 3.0, 4.0]), "word": ["a", "b", "c", "d"]}


def policy(thresholds=(0.5,), names=("small", "large"), **more):
    tree = {
        "version": 1, "name": "p", "deadline": "5s",
        "tiers": [{"name": name, "kind": "external", "version": "1"} for name in names],
        "escalation": {"thresholds": list(thresholds)},
    }  # fmt: skip
    return Policy.from_dict(tree | more)


def by_length(limit=2.5):
    """Sure of short words; answers with the word."""

    def answer(row):
        return row["word"], 0.9 if row["length"] < limit else 0.1

    return cascade.tier(answer, returns="pairs", rows="one")


def shouting(row):
    return row["word"].upper(), 0.99


def test_columns_by_name_escalate_and_are_looked_up_row_by_row():
    tiers = {"small": by_length(), "large": cascade.tier(shouting, returns="pairs", rows="one")}
    with Router(policy(cache={}), tiers=tiers) as router:
        for i in (0, 3):
            router.route({name: column[i] for name, column in COLUMNS.items()})
        found = router.route_many(COLUMNS, use_cache=True)
        assert list(found.values) == ["a", "b", "C", "D"]
        assert [outcome.tier for outcome in found] == ["small", "small", "large", "large"]
        assert [str(outcome.disposition) for outcome in found] == [
            "cached", "accepted", "accepted", "cached",
        ]  # fmt: skip


def test_an_entry_rule_reads_columns_by_name():
    rule = {"weights": {"length": 10.0}, "intercept": -25.0, "skip_above": [0.5]}
    asked = []

    def small(rows):
        asked.extend(rows["word"])
        return [(word, 0.9) for word in rows["word"]]

    def large(rows):
        return [(word.upper(), 0.9) for word in rows["word"]]

    tiers = {
        name: cascade.tier(f, returns="pairs") for name, f in [("small", small), ("large", large)]
    }
    with Router(policy(complexity=rule), tiers=tiers) as router:
        assert list(router.route_many(COLUMNS).values) == ["a", "b", "C", "D"]
    assert asked == ["a", "b"]


def test_values_keep_their_types_where_tiers_differ():
    def pairs(value):
        return cascade.tier(
            lambda x: (value(x), 0.9 if x < 2 else 0.1), returns="pairs", rows="one"
        )

    for small, large, kinds in [
        (int, float, [int, int, float, float]),
        (int, str, [int, int, str, str]),
        (str, lambda x: "long " * x, [str] * 4),
    ]:
        tiers = {"small": pairs(small), "large": pairs(large)}
        with Router(policy(), tiers=tiers) as router:
            found = router.route_many([0, 1, 2, 3]).values.tolist()
        assert found == [small(0), small(1), large(2), large(3)]
        assert [type(value) for value in found] == kinds


def test_each_tier_may_have_a_function_after_it():
    tiers = {"small": by_length(), "large": cascade.tier(shouting, returns="pairs", rows="one")}
    after = {"large": lambda value: f"<{value}>"}
    with Router(policy(cache={}), tiers=tiers, postprocess=after) as router:
        router.route({name: column[3] for name, column in COLUMNS.items()})
        found = router.route_many(COLUMNS, use_cache=True)
        assert list(found.values) == ["a", "b", "<C>", "<D>"]
        assert found[3].disposition == "cached"  # what is cached has been through it
        assert router.route({"length": 9.0, "word": "z"}).value == "<Z>"
        assert router.route({"length": 1.0, "word": "z"}).value == "z"


def test_a_function_before_it_may_take_whole_batches():
    class Twice:
        calls = 0

        def __call__(self, x):
            return 2 * x

        def batch(self, xs):
            self.calls += 1
            return [2 * x for x in xs]

    twice = Twice()
    tiers = {
        name: cascade.tier(lambda x: (x, 0.9), returns="pairs", rows="one")
        for name in ("small", "large")
    }
    with Router(policy(), tiers=tiers, prepare=twice) as router:
        assert router.route_many([1, 2, 3]).values.tolist() == [2, 4, 6]
        assert twice.calls == 1
        assert router.route(5).value == 10


class Short:
    """A preparation that loses rows of a batch."""

    def __call__(self, x):
        return x

    def batch(self, xs):
        return xs[:1]


def test_a_function_before_it_must_give_back_as_many_rows(tmp_path):
    tiers = dict.fromkeys(("small", "large"), cascade.tier(shouting, returns="pairs", rows="one"))
    with Router(policy(), tiers=tiers, prepare=Short()) as router:
        with pytest.raises(InputValueError, match=r"prepare.batch: expected 4 rows back, got 1"):
            router.route_many(list("abcd"))
    identity(tmp_path / "m.onnx", 2)
    model = {"version": 1, "name": "p", "deadline": "1s",
             "tiers": [{"name": "m", "kind": "onnx", "model": "m.onnx"}]}  # fmt: skip
    with Router(Policy.from_dict(model), models=tmp_path, prepare=Short(), env={}) as router:
        with pytest.raises(InputValueError, match="expected 4 rows back, got 1"):
            router.route_many(np.full((4, 2), 0.5, dtype=np.float32))


@pytest.mark.parametrize("whole", [False, True], ids=["row by row", "batch"])
def test_a_function_before_it_gets_rows_not_the_names_of_columns(whole):
    def upper(row):
        return row["word"].upper()

    if whole:
        upper.batch = lambda rows: list(map(upper, rows))
    same = cascade.tier(lambda x: (x, 0.9), returns="pairs", rows="one")
    tiers = {"small": same, "large": same}
    with Router(policy(), tiers=tiers, prepare=upper) as router:
        assert router.route_many(COLUMNS).values.tolist() == list("ABCD")
        with pytest.raises(InputTypeError, match="got a str"):
            router.route_many("text")


def test_a_function_for_whole_batches_gets_a_table_as_it_is():
    def words(row):
        raise AssertionError("one by one")

    words.batch = lambda table: [str(number) for number in table["b"]]
    same = cascade.tier(lambda x: (x, 0.9), returns="pairs", rows="one")
    with Router(policy(), tiers={"small": same, "large": same}, prepare=words) as router:
        found = router.route_many(Table(np.array([[0.0, 1.0]] * 3)))
        assert found.values.tolist() == ["1.0"] * 3


def test_a_tiers_own_function_may_take_whole_batches_too():
    def upper(row):
        raise AssertionError("one by one")

    upper.batch = lambda rows: [row.upper() for row in rows]
    unsure = cascade.tier(lambda x: (x, 0.1), returns="pairs", rows="one")
    same = cascade.tier(lambda x: x, rows="one")
    tiers = {"small": unsure, "large": same}
    with Router(policy(), tiers=tiers, prepare={"large": upper}) as router:
        assert router.route_many(["a", "b", "c"]).values.tolist() == ["A", "B", "C"]


class Priced:
    """Answers what it is asked, each at a price of its own."""

    def __init__(self, sure, prices):
        self.sure, self.prices = sure, prices

    def predict(self, batch, context):
        confidences = None if self.sure is None else [self.sure] * len(batch)
        costs = [self.prices[word] for word in batch]
        return cascade.Prediction(list(batch), confidences=confidences, costs=costs)


@pytest.mark.parametrize("execution", ["auto", "process"])
@pytest.mark.parametrize("sure", [None, 0.9])
def test_a_row_whose_cost_is_no_number_fails_alone(sure, execution):
    prices = {"a": 1.0, "b": float("nan"), "c": 2, "d": None}
    unsure = cascade.tier(lambda x: (x.upper(), 0.1), returns="pairs", rows="one")
    held = policy()
    large = attrs.evolve(held.tiers[1], execution=execution)
    held = attrs.evolve(held, tiers=(held.tiers[0], large))
    with Router(held, tiers={"small": unsure, "large": Priced(sure, prices)}) as router:
        many, one = router.route_many(list("abcd")), [router.route(word) for word in "abcd"]
        none = router.route_many(["b", "b", "b"])
    for found in (many, one):
        assert [(o.value, str(o.reason), o.cost) for o in found] == [
            ("a", "top", 1.0), ("B", "fault", None), ("c", "top", 2.0), ("D", "fault", None),
        ]  # fmt: skip
        assert "costs: expected a" in found[1].steps[-1].error
    assert [o.value for o in none] == ["B"] * 3


@pytest.mark.parametrize("sure", [None, 0.9])
def test_a_row_that_a_tiers_own_function_cannot_take_fails_alone(sure):
    class Large:
        def predict(self, batch, context):
            n = len(batch)
            confidences = None if sure is None else [sure] * n
            return cascade.Prediction(batch, confidences=confidences, costs=[2.0] * n)

    def known(word):
        return {"a": "A", "c": "C"}[word]

    unsure = cascade.tier(lambda x: (x, 0.1), returns="pairs", rows="one")
    with Router(
        policy(), tiers={"small": unsure, "large": Large()}, prepare={"large": known}
    ) as router:
        many, one = router.route_many(list("abc")), [router.route(word) for word in "abc"]
        (nobody,) = router.route_many(["d"])
    for found in (many, one):
        assert [(o.value, str(o.reason), o.cost) for o in found] == [
            ("A", "top", 2.0), ("b", "fault", None), ("C", "top", 2.0),
        ]  # fmt: skip
        assert found[1].steps[-1].error == "tier 'large' raised KeyError"
    assert (nobody.value, str(nobody.reason)) == ("d", "fault")


@pytest.mark.parametrize("execution", ["inline", "worker"])
def test_a_learned_score_goes_by_the_request_whatever_a_tier_makes_of_it(execution):
    score = Learned(2.0, 0.0, {}, {"length": -1.0})
    tiers = [{"name": "small", "kind": "external", "execution": execution},
             {"name": "large", "kind": "external"}]  # fmt: skip
    given = attrs.evolve(policy([0.0], tiers=tiers), calibrations={"small": score})
    bound = {"small": lambda xs: [str(x) for x in xs], "large": lambda xs: xs}
    texts, own = ["", "ab", "abc"], {"small": list}
    expected = [score.one(None, None, text) for text in texts]
    with Router(given, tiers=bound, prepare=own) as router:
        assert [router.route(text).confidence for text in texts] == pytest.approx(expected)
        assert router.route_many(texts).confidences == pytest.approx(expected)
    with pytest.raises(PolicyError, match=r"learned score .*\(length\).* prepare=\{'small'"):
        Router(given, tiers=bound, prepare=str.lower).warmup()


def tokens(text):
    ids = np.array([len(word) for word in text.split()])
    return {"ids": ids, "mask": np.ones_like(ids)}


class Tokenizer:
    """Fills up to the longest, as tokenizers of whole batches do."""

    def __call__(self, text):
        return tokens(text)

    def batch(self, texts):
        rows = list(map(tokens, texts))
        longest = max(len(row["ids"]) for row in rows)
        columns = {"ids": [], "mask": []}
        for row in rows:
            for name, column in columns.items():
                column.append(np.pad(row[name], (0, longest - len(row[name]))))
        return {name: np.stack(column) for name, column in columns.items()}


@pytest.mark.parametrize("prepare", [tokens, Tokenizer()], ids=["row by row", "batch"])
@pytest.mark.parametrize("own", [False, True], ids=["common", "own"])
def test_a_tokenizer_makes_the_inputs_of_a_model(tmp_path, prepare, own):
    nodes = [
        helper.make_node("Mul", ["ids", "mask"], ["kept"]),
        helper.make_node("Cast", ["kept"], ["numbers"], to=FLOAT),
        helper.make_node("ReduceSum", ["numbers", "axis"], ["sum"], keepdims=1),
        helper.make_node("Sub", ["six", "sum"], ["rest"]),
        helper.make_node("Concat", ["sum", "rest"], ["logits"], axis=1),
    ]
    inputs = [(name, INT64, ["n", "s"]) for name in ("ids", "mask")]
    weights = [("axis", np.array([1])), ("six", np.float32([6.0]))]
    model(tmp_path / "m.onnx", nodes, inputs, [("logits", FLOAT, ["n", 2])], weights)
    tree = {"version": 1, "name": "p", "deadline": "5s",
            "tiers": [{"name": "it", "kind": "onnx", "model": "m.onnx"}]}  # fmt: skip
    given = {"it": prepare} if own else prepare
    with Router(Policy.from_dict(tree), models=tmp_path, env={}, prepare=given) as router:
        texts = ["a b", "aaaa b", "cc"]
        assert [router.route(text).value for text in texts] == [1, 0, 1]
        assert router.route_many(texts).values.tolist() == [1, 0, 1]


def softmax(path, kind):
    nodes = [
        helper.make_node("Cast", ["x"], ["y"], to=FLOAT),
        helper.make_node("Softmax", ["y"], ["p"], axis=1),
    ]
    model(path, nodes, [("x", kind, [None, 2])], [("p", FLOAT, [None, 2])])


@pytest.mark.parametrize(
    ("small", "large"), [("half", "double"), ("double", "half"), ("float", "int"), ("int", "half")]
)
def test_tiers_of_several_dtypes_get_their_own_numbers(tmp_path, small, large):
    kinds = {"half": FLOAT16, "float": FLOAT, "double": DOUBLE, "int": INT64}
    for name, kind in kinds.items():
        softmax(tmp_path / f"{name}.onnx", kind)
    tiers = [{"name": name, "kind": "onnx", "model": f"{name}.onnx"} for name in (small, large)]
    given = policy([1.0], tiers=tiers)
    with Router(given, models=tmp_path, env={}) as router:
        assert router.route([3, 1]).tier == large
        assert router.route([3, 1]).confidence == pytest.approx(0.880797)
        found = router.route_many([[3, 1]] * 3)
        assert found.tiers.tolist() == [large] * 3
        assert found.confidences == pytest.approx(0.880797)
    strict = policy([1.0], tiers=tiers, inputs={"cast": "none"})
    with pytest.raises(PolicyError, match="take different rows"):
        Router(strict, models=tmp_path, env={}).warmup()


def test_a_batch_is_cast_at_once_and_a_row_that_does_not_fit_fails_alone(tmp_path):
    for name, kind in (("half", FLOAT16), ("double", DOUBLE)):
        softmax(tmp_path / f"{name}.onnx", kind)
    tiers = [{"name": n, "kind": "onnx", "model": f"{n}.onnx", "execution": "inline"}
             for n in ("half", "double")]  # fmt: skip
    rows = np.array([[3.0, 1.0], [70_000.0, 1.0], [1.0, 3.0]])
    with Router(policy([0.0], tiers=tiers), models=tmp_path, env={}) as router:
        found, one = router.route_many(rows), [router.route(row) for row in rows]
        assert found.tiers.tolist() == [outcome.tier for outcome in one]
        assert found.tiers.tolist() == ["half", "double", "half"]
        seen = []
        half = router._service.plan.lanes[0]
        half.prepare = cast = SimpleNamespace(batch=half.prepare.batch)  # of one row: nothing
        cast.batch = lambda batch, of=cast.batch: seen.append(batch) or of(batch)
        assert router.route_many(rows[[0, 2, 0]]).tiers.tolist() == ["half"] * 3
        assert isinstance(seen[0], np.ndarray)


def test_the_dearer_tier_loses_no_digits_to_the_cheaper(tmp_path):
    for name, kind in (("half", FLOAT16), ("double", DOUBLE)):
        softmax(tmp_path / f"{name}.onnx", kind)
    tiers = [{"name": n, "kind": "onnx", "model": f"{n}.onnx"} for n in ("half", "double")]
    with Router(policy([1.0], tiers=tiers), models=tmp_path, env={}) as router:
        row = np.array([1000.1, 1000.0])  # 1000 and 1000 in float16
        assert router.route(row).confidence == pytest.approx(0.52498, abs=1e-4)
        assert router.route_many(row[None]).confidences == pytest.approx(0.52498, abs=1e-4)


def test_what_a_tiers_own_function_makes_must_be_finite_too(tmp_path):
    identity(tmp_path / "m.onnx", 2, "logits")
    tree = {"version": 1, "name": "p", "deadline": "5s", "inputs": {"validate": "finite"},
            "tiers": [{"name": "it", "kind": "onnx", "model": "m.onnx"}]}  # fmt: skip
    own = {"it": lambda x: [x, -np.inf]}
    with Router(Policy.from_dict(tree), models=tmp_path, env={}, prepare=own) as router:
        with pytest.raises(TierError) as caught:
            router.route(1.0)
        assert "NaN or infinite numbers" in str(caught.value.__cause__)


def test_a_mapping_of_columns_need_not_be_a_dict():
    tiers = {"small": by_length(), "large": cascade.tier(shouting, returns="pairs", rows="one")}
    with Router(policy(cache={}), tiers=tiers) as router:
        found = router.route_many(MappingProxyType(COLUMNS), use_cache=True)
        assert list(found.values) == ["a", "b", "C", "D"]


def test_a_tier_that_can_never_be_accepted_is_skipped_for_all_rows():
    asked = []
    tiers = {
        "small": cascade.tier(lambda x: ("s", 0.1), returns="pairs", rows="one"),
        "middle": cascade.tier(
            lambda x: asked.append(x) or ("m", 1.0), returns="pairs", rows="one"
        ),
        "large": cascade.tier(lambda x: ("l", 1.0), returns="pairs", rows="one"),
    }
    never = certified([(2.0, 2.0), (0.5, 2.0)], ("small", "middle", "large"))
    with Router(never, tiers=tiers) as router:
        assert set(router.route_many([1, 2, 3]).values) == {"l"}
        assert router.route(4).value == "l"
    assert asked == []


def certified(path, names=("small", "large")):
    points = [PathPoint(thresholds=point, losses=0, p_value=0.0) for point in path]
    made = Certificate(
        max_loss=0.01, alpha=0.1, loss="gross", covers="adaptive", n=500,
        tiers=names, path=tuple(points), certified=len(points),
    )  # fmt: skip
    bare = policy(thresholds=(0.5,) * (len(names) - 1), names=names)
    return attrs.evolve(
        bare,
        certificate=made,
        escalation=attrs.evolve(bare.escalation, thresholds=None, certificate="c.json"),
    )


def test_rows_that_strayed_are_not_covered_and_the_others_are():
    """A fault sends a row another way than the certified rule would have gone."""

    def small(x):
        if x == 2:
            raise LookupError
        return "s", 0.9 if x < 2 else 0.1

    names = ("small", "middle", "large")
    tiers = {
        "small": cascade.tier(small, returns="pairs", rows="one"),
        "middle": cascade.tier(lambda x: ("m", 0.9), returns="pairs", rows="one"),
        "large": cascade.tier(lambda x: ("l", 0.9), returns="pairs", rows="one"),
    }
    with Router(certified([(2.0, 2.0), (0.5, 0.5)], names), tiers=tiers) as router:
        one_by_one = [router.route(x) for x in range(4)]
    with Router(certified([(2.0, 2.0), (0.5, 0.5)], names), tiers=tiers) as router:
        together = router.route_many([0, 1, 3])
        assert [(o.value, o.covered) for o in together] == [("s", True), ("s", True), ("m", True)]
        failing = router.route_many([2, 2])
        assert {(o.value, o.covered) for o in failing} == {("m", False)}
    assert [(o.value, o.covered) for o in one_by_one] == [
        ("s", True), ("s", True), ("m", False), ("m", True),
    ]  # fmt: skip


def test_an_allowance_that_suffices_refuses_nobody():
    generous = {"thresholds": [0.5], "allowance": {"overall": "100%", "burst": 100}}
    tiers = {"small": by_length(), "large": cascade.tier(shouting, returns="pairs", rows="one")}
    with Router(policy(escalation=generous), tiers=tiers) as router:
        for _ in range(3):
            assert list(router.route_many(COLUMNS).values) == ["a", "b", "C", "D"]


def test_an_answer_that_is_too_unsure_is_raised_where_it_is_unwrapped():
    abstaining = {"thresholds": [0.5], "abstain_below": 0.3}
    unsure = cascade.tier(lambda x: ("cat", 0.1), returns="pairs", rows="one")
    with Router(policy(escalation=abstaining), tiers={"small": unsure, "large": unsure}) as router:
        outcome = router.route("x")
    assert outcome.disposition == "abstained"
    with pytest.raises(Abstained, match=r"confidence 0\.1 is too low to answer") as caught:
        outcome.unwrap()
    assert caught.value.outcome is outcome


@pytest.mark.parametrize("confidence", [1.5, -0.1, float("nan")])
def test_confidences_that_are_none_are_no_answer(confidence):
    wrong = cascade.tier(lambda x: ("cat", confidence), returns="pairs", rows="one")
    with Router(policy(), tiers={"small": wrong, "large": wrong}) as router:
        with pytest.raises(TierOutputError):
            router.route("x")


def test_tiers_that_take_other_rows_need_a_function_of_their_own(tmp_path):
    identity(tmp_path / "two.onnx", 2)
    identity(tmp_path / "three.onnx", 3)
    tiers = [
        {"name": "small", "kind": "onnx", "model": "two.onnx"},
        {"name": "large", "kind": "onnx", "model": "three.onnx"},
    ]
    with pytest.raises(PolicyError, match=r"take different rows; give prepare=\{'large': f\}"):
        Router(policy(tiers=tiers), models=tmp_path, env={}).warmup()
    longer = {"large": lambda row: np.append(row, np.float32(0.0))}
    same = {"large": int}  # whose classes the models' columns are not
    given = {"prepare": longer, "postprocess": same}
    with Router(policy([1.0], tiers=tiers), models=tmp_path, env={}, **given) as router:
        row = np.array([0.25, 0.75], dtype=np.float32)
        assert router.route(row).tier == "large"
        assert router.route_many(np.stack([row, row])).values.tolist() == [1, 1]


def test_batches_of_a_tier_that_hangs_are_refused_when_all_its_workers_are_zombies():
    gate, begun = threading.Event(), []

    def hang(xs):
        begun.append(xs)
        assert gate.wait(60.0)
        return list(xs)

    tree = {
        "version": 1, "name": "p", "deadline": "5s",
        "tiers": [{"name": "only", "kind": "external", "workers": 2}],
    }  # fmt: skip
    with Router(Policy.from_dict(tree), tiers={"only": hang}) as router:
        for _ in range(2):
            many = router.route_many(["x", "y", "z"], deadline=0.2)
            assert set(many.reasons) == {"deadline"}
        for _ in range(8):
            many = router.route_many(["x", "y", "z"], deadline=0.01)
            assert set(many.reasons) == {"breaker"}
        with pytest.raises(cascade.Overloaded):
            router.route("x")
        assert router.load().tiers[0].zombies == len(begun) == 2
        gate.set()
        while router.load().tiers[0].zombies:
            time.sleep(0.001)
        assert router.route("x").value == "x"
