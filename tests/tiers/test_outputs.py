"""A model's outputs: which are fetched, and which are refused before the first request."""

from types import SimpleNamespace

import numpy as np
import pytest
from onnx import helper

import cascade
from cascade import Policy, PolicyError, Router
from cascade.policy.settings import OutputSettings
from cascade.tiers.outputs import choose
from tests.tiers.test_onnx import FLOAT, INT64, alone, identity, model, tier

ROW = np.array([0.25, 0.75], dtype=np.float32)
ZIPPED = "seq(map(int64,tensor(float)))"


def node(name, kind="tensor(float)", shape=(None, 2)):
    return SimpleNamespace(name=name, type=kind, shape=list(shape))


LABEL, MAPS = node("label", "tensor(int64)", [None]), node("probs", ZIPPED, [])
HIDDEN, NUMBER = node("hidden", shape=[None, 5, 7]), node("y", shape=[None, 1])


@pytest.mark.parametrize(
    ("nodes", "outputs", "kind", "names"),
    [
        ([LABEL, node("p")], None, "probabilities", ["p"]),
        ([HIDDEN, node("logits", shape=["n", "c"])], None, "logits", ["logits"]),
        ([HIDDEN, node("p")], {"kind": "probabilities"}, "probabilities", ["p"]),
        ([NUMBER, node("p")], None, "probabilities", ["p"]),
        ([node("p", shape=[])], None, "probabilities", ["p"]),
        ([NUMBER], {"kind": "sigmoid"}, "sigmoid", ["y"]),
        ([node("y", shape=[None])], {"kind": "sigmoid"}, "sigmoid", ["y"]),
        ([LABEL, MAPS], None, "label", ["label"]),
        ([MAPS, NUMBER], {"kind": "value"}, "value", ["y"]),
        ([LABEL, NUMBER], {"kind": "label", "confidence": "y"}, "label", ["label", "y"]),
        ([NUMBER, node("z")], {"kind": "value", "confidence": "y"}, "value", ["z", "y"]),
    ],
)
def test_the_outputs_that_are_fetched(nodes, outputs, kind, names):
    chosen = choose(nodes, None if outputs is None else OutputSettings(**outputs), None)
    assert (chosen.kind, chosen.names) == (kind, names)


@pytest.mark.parametrize(
    ("nodes", "outputs", "words"),
    [
        ([LABEL, MAPS], None, r"'probs' is a ZipMap .*options={'zipmap': False}"),
        ([LABEL, MAPS], {"kind": "probabilities"}, "'probs' is a ZipMap"),
        ([LABEL, MAPS], {"kind": "probabilities", "name": "probs"}, "'probs' is a ZipMap"),
        ([LABEL], None, "output 'label' is a label without a confidence.*confidence: NAME"),
        ([NUMBER], {"kind": "value"}, "output 'y' is a value without a confidence"),
        ([NUMBER], None, "one number for each row.*outputs: sigmoid .*kind: value"),
        ([node("y", shape=[None])], None, "one number for each row"),
        ([NUMBER], {"kind": "probabilities"}, "one number for each row"),
        ([NUMBER], {"kind": "logits"}, "end a model that gives its logit in a Sigmoid"),
        ([HIDDEN], {"kind": "probabilities"}, "3 axes, expected two"),
        ([LABEL], {"kind": "sigmoid"}, "no output that could be sigmoid; name one"),
        ([LABEL, NUMBER], {"kind": "probabilities", "name": "label"}, "which 'label' is not"),
        ([LABEL, NUMBER], {"kind": "label", "confidence": "label"}, "is no confidence"),
        ([NUMBER], {"kind": "value", "confidence": "y"}, "no output that could be value; name one"),
    ],
)
def test_outputs_that_could_be_no_answer_are_refused_with_the_remedy(nodes, outputs, words):
    settings = None if outputs is None else OutputSettings(**outputs)
    with pytest.raises(PolicyError, match=words):
        choose(nodes, settings, None, scored=True)


def ladder(folder, small, **more):
    tree = {
        "version": 1,
        "name": "p",
        "deadline": "1s",
        "tiers": [{"name": "small", **small}, {"name": "large", "kind": "external"}],
        "escalation": {"thresholds": [0.5]},
    }
    large = cascade.tier(lambda x: "large", rows="one")
    return Router(Policy.from_dict(tree | more), models=folder, env={}, tiers={"large": large})


def zipmapped(path):
    """What skl2onnx writes unless it is told otherwise."""
    nodes = [
        helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
        helper.make_node(
            "ZipMap", ["x"], ["probs"], domain="ai.onnx.ml", classlabels_int64s=[0, 1]
        ),
    ]
    maps = helper.make_map_type_proto(INT64, helper.make_tensor_type_proto(FLOAT, []))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [None, 2])],
        [
            helper.make_tensor_value_info("label", INT64, [None]),
            helper.make_value_info("probs", helper.make_sequence_type_proto(maps)),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    path.write_bytes(made.SerializeToString())


def test_a_zipmap_is_refused_below_the_top_and_its_label_will_do_there(tmp_path):
    zipmapped(tmp_path / "m.onnx")
    with pytest.raises(PolicyError, match=r"tier 'small': m.onnx: .*'zipmap': False"):
        ladder(tmp_path, tier()).warmup()
    with alone(tmp_path, tier()) as router:
        assert router.route(ROW).value == 1
        assert router.route_many(np.stack([ROW] * 3)).values.tolist() == [1, 1, 1]


def test_one_number_per_row_is_refused_until_the_policy_says_what_it_is(tmp_path):
    identity(tmp_path / "m.onnx", 1)
    row = np.array([0.75], dtype=np.float32)
    for outputs in ({}, {"outputs": "probabilities"}, {"outputs": "logits"}):
        with pytest.raises(PolicyError, match="one number for each row"):
            alone(tmp_path, tier(**outputs)).warmup()
    with alone(tmp_path, tier(outputs="sigmoid")) as router:
        assert router.route(row).confidence == 0.75
    with alone(tmp_path, tier(outputs="value")) as router:
        assert router.route(row).value == 0.75


@pytest.mark.parametrize(
    ("outputs", "classes", "columns", "words"),
    [
        ("probabilities", None, 1, "expected two or more columns, got 1"),
        ("logits", None, 1, "expected two or more columns, got 1"),
        ("logits", ["a", "b", "c"], 2, "expected 3 columns, got 2"),
        ("probabilities", ["a", "b"], 4, "expected 2 columns, got 4"),
        ("sigmoid", ["a", "b"], 2, "expected 1 columns, got 2"),
    ],
)
def test_columns_that_only_a_run_can_show_are_counted_then(
    tmp_path, outputs, classes, columns, words
):
    identity(tmp_path / "m.onnx", None)
    more = {} if classes is None else {"classes": classes}
    row = np.full(columns, 1 / columns, dtype=np.float32)
    with alone(tmp_path, tier(outputs=outputs), **more) as router:
        with pytest.raises(cascade.TierOutputError, match=words):
            router.route(row)
        many = router.route_many(np.stack([row] * 4))
        assert set(many.dispositions) == {"failed"}


def argmax(path, *, confidence=False):
    """A model that says which class is the likeliest, by its place."""
    nodes = [helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0)]
    outputs = [("label", INT64, [None])]
    if confidence:
        nodes.append(helper.make_node("ReduceMax", ["x"], ["top"], axes=[1], keepdims=0))
        outputs.append(("top", FLOAT, [None]))
    return model(path, nodes, [("x", FLOAT, [None, None])], outputs)


def test_an_argmax_is_the_class_at_its_place(tmp_path):
    argmax(tmp_path / "m.onnx", confidence=True)
    outputs = {"kind": "label", "confidence": "top"}
    three = np.array([0.0, 0.1, 0.9], dtype=np.float32)
    two = np.array([0.1, 0.9, 0.0], dtype=np.float32)
    with ladder(tmp_path, tier(outputs=outputs), classes=["cat", "dog"]) as router:
        assert (router.route(two).value, router.route(two).confidence) == ("dog", np.float32(0.9))
        assert router.route(three).tier == "large"  # there is no third class
        rows = router.route_many(np.stack([two, three, two]))
        assert rows.values.tolist() == ["dog", "large", "dog"]
        assert rows[1].steps[0].result == "failed"


def test_a_label_that_is_none_of_the_classes_is_a_fault(tmp_path):
    argmax(tmp_path / "m.onnx")
    row = np.array([0.0, 0.1, 0.9], dtype=np.float32)
    with alone(tmp_path, tier(outputs="label"), classes=[0, 1]) as router:
        assert router.route(row[1:]).value == 1
        with pytest.raises(cascade.TierOutputError, match="'label': no label of the classes"):
            router.route(row)
        rows = router.route_many(np.stack([row, row[::-1]]))
        assert [str(row.disposition) for row in rows] == ["failed", "accepted"]
        assert rows[1].value == 0


@pytest.mark.parametrize(
    ("kind", "classes"), [("tensor(string)", [0, 1]), ("tensor(int64)", ["a", 1])]
)
def test_labels_that_no_class_can_be_are_refused(kind, classes):
    with pytest.raises(PolicyError, match="can be no label of"):
        choose([node("label", kind, [None])], None, classes)


def quantized(path, last):
    """A model whose output went through bytes, in steps of 0.005, and whatever comes last."""
    scale, zero = ("scale", np.float32(0.005)), ("zero", np.uint8(0))
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["p" if last else "d"]),
    ]
    if not last:
        nodes.append(helper.make_node("Abs", ["d"], ["p"]))
    ends = [("x", FLOAT, [None, 2])], [("p", FLOAT, [None, 2])]
    return model(path, nodes, *ends, weights=[scale, zero])


def test_sums_may_be_a_hundredth_off_where_the_output_itself_was_quantized(tmp_path):
    row = np.array([0.255, 0.75], dtype=np.float32)
    quantized(tmp_path / "m.onnx", last=True)
    with alone(tmp_path, tier()) as router:
        assert router.route(row).value == 1
        assert router.route_many(np.stack([row] * 3)).values.tolist() == [1, 1, 1]
        with pytest.raises(cascade.TierOutputError, match=r"sum to 1\.05"):
            router.route(np.array([0.3, 0.75], dtype=np.float32))
    quantized(tmp_path / "m.onnx", last=False)
    with alone(tmp_path, tier()) as router:
        with pytest.raises(cascade.TierOutputError, match=r"sum to 1\.005"):
            router.route(row)
