"""Rows as a model takes them, and what cannot be run from here."""

import hashlib
import types

import attrs
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cascade import InputValueError, Policy
from cascade.optimize.certifying import certify_anew, why_not_certify
from cascade.optimize.changing import _codes
from cascade.optimize.cold import measure_cold
from cascade.optimize.data import Data, golden_rows, split
from cascade.optimize.running import load_models, open_tier, tier_named, whole_model
from cascade.optimize.slimming import _sound
from cascade.optimize.tuning import _differs
from cascade.policy import Certificate, ComplexityRule, Escalation, OutputSettings
from cascade.policy.certificate import PathPoint
from cascade.policy.settings import FunctionVersion
from cascade.protocols import InputSpec
from tests.cli.conftest import model

MIXED = Data({"": np.random.default_rng(0).normal(size=(400, 4)).astype("float32")})


def two_inputs():
    """The sum of two inputs, as probabilities."""
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["z"]),
         helper.make_node("Softmax", ["z"], ["p"], axis=1)],
        "sum",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3]) for name in "ab"],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, [None, 3])],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


@pytest.fixture
def given(policy):
    return Policy.from_yaml(policy, env={})


def test_rows_of_two_inputs_come_by_name(given):
    spec = attrs.evolve(given.tiers[0], sha256=None)
    running = open_tier(spec, two_inputs(), given)
    rows = {"a": np.ones((5, 3)), "b": np.zeros((5, 3), dtype="float32")}
    cast = running.cast(rows)
    assert {name: column.dtype for name, column in cast.items()} == {"a": "float32", "b": "float32"}
    assert running.outputs(Data(rows)).shape == (5, 3)
    assert set(running.row(Data(rows), 2)) == {"a", "b"}
    with pytest.raises(InputValueError, match=r"expected the inputs 'a', 'b', got X"):
        running.cast(np.ones((5, 3)))
    with pytest.raises(InputValueError, match=r"no input 'b'; did you mean 'bb'\?$"):
        running.cast({"a": rows["a"], "bb": rows["b"]})
    one = open_tier(*load_models(given)["small"], given)
    with pytest.raises(InputValueError, match=r"no input 'x'.*X for the rows and y for the truth"):
        one.cast({"features": rows["a"], "label": rows["b"]})


def test_tensors_in_files_of_their_own_are_found_and_put_into_what_is_changed(given):
    """As exporters write them; what is made of such a model is one file."""
    spec, content = load_models(given)["small"]
    file = given.root / "small.onnx"
    onnx.save(
        onnx.load_from_string(content), file, save_as_external_data=True, location="small.data",
        size_threshold=0,
    )  # fmt: skip
    spec = attrs.evolve(spec, sha256=None)
    apart = file.read_bytes()
    expected = open_tier(spec, content, given).outputs(MIXED)
    assert np.array_equal(open_tier(spec, apart, given).outputs(MIXED), expected)
    whole = whole_model(given, spec, apart)
    (given.root / "small.data").unlink()
    assert np.array_equal(open_tier(spec, whole, given).outputs(MIXED), expected)
    assert whole_model(given, spec, content) is content


@pytest.mark.parametrize("wrong", ["spelled", "shifted", "shuffled"])
def test_truth_that_the_model_never_answers_is_refused(given, wrong):
    """Nothing could be lost then, so that anything would pass the gate."""
    given = attrs.evolve(given, classes=(0, 1, 2))
    spec, content = load_models(given)["small"]
    running = open_tier(spec, content, given)
    values, _ = running.answers(MIXED)
    truth = {"spelled": values.astype(str), "shifted": values + 1, "shuffled": (values + 1) % 3}
    assert running.accuracy(values, None) is None
    assert running.accuracy(values, values) == 1.0
    with pytest.raises(InputValueError, match=r"^y: tier 'small' is right on .*of \[0, 1, 2\]"):
        running.accuracy(values, truth[wrong])


def test_a_single_input_may_be_named_too(given):
    spec, content = load_models(given)["small"]
    running = open_tier(spec, content, given)
    rows = np.ones((2, 4))
    np.testing.assert_array_equal(running.cast({"x": rows}), running.cast(rows))


def test_texts_are_passed_on_as_texts(given):
    spec, content = load_models(given)["small"]
    running = open_tier(spec, content, given)
    running.tier = types.SimpleNamespace(inputs=(InputSpec("x", "text", ()),))
    assert running.cast(np.array(["a", 1], dtype=object)) == ["a", "1"]


def test_only_onnx_models_can_be_changed(given):
    tree = {"version": 1, "name": "p", "tiers": [{"name": "a", "kind": "external"}]}
    with pytest.raises(InputValueError, match="tier 'a' is external: only ONNX models"):
        tier_named(Policy.from_dict(tree), "a")
    with pytest.raises(InputValueError, match="did you mean 'small'"):
        tier_named(given, "smal")


def test_a_model_that_does_not_load_in_a_fresh_process_is_said(given, policy):
    (policy.parent / "small.onnx").write_bytes(b"no model")
    with pytest.raises(RuntimeError, match=r"tier .small. could not be started cold: .*Integrity"):
        measure_cold(given, "small", MIXED)


def test_golden_inputs_of_several_columns_stay_apart(given, policy):
    column = {"dtype": "float32", "data": [[0.0, 1.0, 2.0]]}
    answer = {"p": {"dtype": "float32", "data": [[0.1, 0.2, 0.7]]}}
    golden = {"small": {"inputs": {"a": column, "b": column}, "outputs": answer}}
    import json

    (policy.parent / "golden.json").write_text(json.dumps(golden))
    found = golden_rows(attrs.evolve(given, golden="golden.json"))
    assert {name: array.shape for name, array in found.columns.items()} == {
        "a": (1, 3), "b": (1, 3),
    }  # fmt: skip


def test_what_serving_would_refuse_is_no_variant():
    right = (np.zeros(4, int), np.array([0.5, np.nan, 0.5, 0.5]))
    worse = (np.zeros(4, int), np.array([np.nan, np.nan, 0.5, np.nan]))
    assert _sound(right, {"original": right}) is right
    with pytest.raises(ValueError, match="serving refuses its outputs on 2 of 4 rows"):
        _sound(worse, {"original": right})


# -- certificates anew -----------------------------------------------------------------------------


def promise(tiers, **more):
    never = PathPoint(thresholds=(2.0,) * (len(tiers) - 1), losses=0, p_value=0.0)
    settings = {"max_loss": 0.05, "alpha": 0.1, "loss": "disagreement", "covers": "adaptive"}
    return Certificate(**settings | more, n=100, tiers=tuple(tiers), path=(never,), certified=1)


def test_why_a_certificate_cannot_be_renewed(given):
    old, data = promise(["small", "large"]), MIXED
    rule = ComplexityRule(weights=(1.0, 0.0, 0.0, 0.0), skip_above=(0.9,))
    assert why_not_certify(given, old, data) is None
    external = {"version": 1, "name": "p", "tiers": [{"name": "a", "kind": "external"}]}
    for policy, certificate, words in [
        (Policy.from_dict(external), old, "tier 'a' is bound in Python"),
        (given, attrs.evolve(old, loss="net"), "its loss is 'net', which needs a recording"),
        (given, attrs.evolve(old, loss="gross"), "needs the truth"),
        (attrs.evolve(given, calibrations={"small": object()}), old, "calibrated by tables"),
        (attrs.evolve(given, complexity=rule), old, "tested with an entry rule"),
        (attrs.evolve(given, postprocess=FunctionVersion(version="1")), old, "(postprocess)"),
    ]:
        assert words in why_not_certify(policy, certificate, data)


def test_three_tiers_are_certified_anew_along_a_learned_path(given, tmp_path):
    names = ("small", "middle", "large")
    models = dict.fromkeys(names, model(3, 1))
    tiers = []
    for name, content in models.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        tiers.append(attrs.evolve(given.tiers[0], name=name, model=f"{name}.onnx", sha256=digest))
    policy = attrs.evolve(
        given, tiers=tuple(tiers), mode="top_only", escalation=Escalation(thresholds=(0.8, 0.8))
    )
    made, problem = certify_anew(policy, promise(names), split(MIXED), models)
    assert problem is None  # they are one model: nothing is lost
    assert made.tiers == names
    assert made.path[0].thresholds == (2.0, 2.0)
    assert made.certified > 1
    assert made.path[made.certified - 1].losses <= 0.05 * made.n


def labels_and_confidences(content):
    """Have a model answer the label and its probability, each in an output of its own."""
    made = onnx.load_from_string(content)
    made.graph.node.extend([
        helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
        helper.make_node("ReduceMax", ["probabilities"], ["sure"], axes=[1], keepdims=0),
    ])  # fmt: skip
    del made.graph.output[:]
    made.graph.output.extend([
        helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
        helper.make_tensor_value_info("sure", TensorProto.FLOAT, [None]),
    ])  # fmt: skip
    return made.SerializeToString()


def test_a_label_with_a_confidence_of_its_own_is_certified_like_the_probabilities(given, tmp_path):
    paths = []
    for change, outputs in (
        (lambda content: content, given.tiers[0].outputs),
        (labels_and_confidences, OutputSettings(kind="label", name="label", confidence="sure")),
    ):
        models = {"small": change(model(3, 0)), "large": model(3, 1)}
        for name, content in models.items():
            (tmp_path / f"{name}.onnx").write_bytes(content)
        digests = [hashlib.sha256(content).hexdigest() for content in models.values()]
        small, large = (
            attrs.evolve(spec, sha256=digest)
            for spec, digest in zip(given.tiers, digests, strict=True)
        )
        policy = attrs.evolve(given, tiers=(attrs.evolve(small, outputs=outputs), large))
        made, _ = certify_anew(policy, promise(models), split(MIXED), models)
        paths.append([(point.thresholds, point.losses) for point in made.path])
    assert paths[0][-1][1] > 0  # at 0 all are accepted, the wrong ones too
    assert paths[1] == paths[0]


def test_the_truth_is_known_as_classes_where_it_can_be():
    def codes(labels, truth):
        found = _codes(types.SimpleNamespace(labels=labels), Data({"": np.ones((2, 1))}, truth))
        return None if found is None else found.tolist()

    assert codes(None, np.array([2, 0])) == [2, 0]
    assert codes(None, np.array(["a", "b"])) is None
    assert codes(("a", "b"), np.array(["b", "a"])) == [1, 0]
    assert codes(("a", "b"), np.array(["b", "c"])) is None


def test_settings_that_change_a_label_answer_otherwise():
    def outputs(array):
        return types.SimpleNamespace(outputs=lambda _: np.array(array))

    assert _differs(outputs([1, 2]), MIXED, np.array([1, 2])) is None
    assert _differs(outputs([1, 2]), MIXED, np.array([1, 3])) == "it answers otherwise"
    assert _differs(outputs([0.5]), MIXED, np.array([0.5])) is None
    assert _differs(outputs([0.5]), MIXED, np.array([0.25])) == "its outputs differ by 0.25"
