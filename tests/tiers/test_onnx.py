"""ONNX tiers: every kind of output and input, and models that are not what they should be."""

import json

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import cascade
from cascade import ModelIntegrityError, Policy, PolicyError, Router
from cascade.bundle import sha256_file
from cascade.confidence import OutputFault
from cascade.errors import InputValueError
from cascade.policy import OnnxSpec
from cascade.tiers.onnx import OnnxTier
from cascade.tiers.sessions import make_session

FLOAT, INT64, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def model(path, nodes, inputs, outputs, weights=()):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    path.write_bytes(made.SerializeToString())
    return path


def identity(path, columns, name="p", kind=FLOAT):
    """A model that returns its input: whatever the test says is what the tier says."""
    node = helper.make_node("Identity", ["x"], [name])
    return model(path, [node], [("x", kind, [None, columns])], [(name, kind, [None, columns])])


def alone(folder, tier, **more):
    tree = {"version": 1, "name": "t", "deadline": "1s", "tiers": [{"name": "it", **tier}]}
    return Router(Policy.from_dict(tree | more), models=folder, env={})


def tier(file="m.onnx", **more):
    return {"kind": "onnx", "model": file, **more}


ROW = np.array([0.25, 0.75], dtype=np.float32)


def test_probabilities_by_default(tmp_path):
    identity(tmp_path / "m.onnx", 2)
    with alone(tmp_path, tier()) as router:
        outcome = router.route(ROW)
        assert (outcome.value, outcome.confidence) == (1, 0.75)
        many = router.route_many(np.stack([ROW, ROW[::-1], ROW]))
        assert many.values.tolist() == [1, 0, 1]
        assert many.confidences.tolist() == [0.75, 0.75, 0.75]


def test_classes_and_margin(tmp_path):
    identity(tmp_path / "m.onnx", 2)
    with alone(tmp_path, tier(confidence="margin"), classes=["cat", "dog"]) as router:
        outcome = router.route(ROW)
        assert (outcome.value, outcome.confidence) == ("dog", 0.5)
        assert router.route_many([ROW] * 3)[0].value == "dog"


def test_logits_with_temperature(tmp_path):
    identity(tmp_path / "m.onnx", 3)
    with alone(tmp_path, tier(outputs="logits", confidence={"temperature": 2.0})) as router:
        outcome = router.route(np.array([0.0, 2.0, -np.inf], dtype=np.float32))
        assert outcome.value == 1
        assert outcome.confidence == pytest.approx(np.e / (1 + np.e))


def test_temperature_acts_on_clipped_log_probabilities(tmp_path):
    identity(tmp_path / "m.onnx", 2)
    with alone(tmp_path, tier(confidence={"temperature": 2.0})) as router:
        sure = router.route(np.array([0.0, 1.0], dtype=np.float32)).confidence
    assert sure == pytest.approx(1 / (1 + 1e-6))


def test_sigmoid_is_two_classes(tmp_path):
    identity(tmp_path / "m.onnx", 1)
    with alone(tmp_path, tier(outputs="sigmoid"), classes=["ham", "spam"]) as router:
        outcome = router.route(np.array([0.125], dtype=np.float32))
        assert (outcome.value, outcome.confidence) == ("ham", 0.875)
        column = np.array([[0.1], [0.9], [0.6]], dtype=np.float32)
        assert router.route_many(column).values.tolist() == ["ham", "spam", "spam"]


def test_label_and_value_with_a_confidence_output(tmp_path):
    nodes = [
        helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
        helper.make_node("ReduceMax", ["x"], ["sure"], axes=[1], keepdims=1),
    ]
    outputs = [("label", INT64, [None]), ("sure", FLOAT, [None, 1])]
    model(tmp_path / "m.onnx", nodes, [("x", FLOAT, [None, 2])], outputs)
    for settings in (
        {"kind": "label", "confidence": "sure"},
        {"kind": "value", "name": "label", "confidence": "sure"},
    ):
        with alone(tmp_path, tier(outputs=settings)) as router:
            outcome = router.route(ROW)
            assert (outcome.value, type(outcome.value), outcome.confidence) == (1, int, 0.75)
            assert router.route_many([ROW] * 3).values.tolist() == [1, 1, 1]


def test_a_vector_value_needs_no_confidence_on_top(tmp_path):
    identity(tmp_path / "m.onnx", 2, "y")
    with alone(tmp_path, tier(outputs="value")) as router:
        outcome = router.route(ROW)
        assert outcome.value.tolist() == ROW.tolist()
        assert outcome.confidence is None
        assert router.route_many([ROW] * 4)[3].value.tolist() == ROW.tolist()


def test_the_pair_that_skl2onnx_writes_is_recognised(tmp_path):
    nodes = [
        helper.make_node("ArgMax", ["x"], ["output_label"], axis=1, keepdims=0),
        helper.make_node("Identity", ["x"], ["output_probability"]),
    ]
    outputs = [("output_label", INT64, [None]), ("output_probability", FLOAT, [None, 2])]
    model(tmp_path / "m.onnx", nodes, [("x", FLOAT, [None, 2])], outputs)
    with alone(tmp_path, tier()) as router:
        assert router.route(ROW).confidence == 0.75


def test_float16_sums_may_be_a_hundredth_off(tmp_path):
    identity(tmp_path / "m.onnx", 2, kind=TensorProto.FLOAT16)
    with alone(tmp_path, tier()) as router:
        assert router.route(np.array([0.255, 0.75], dtype=np.float16)).value == 1
        with pytest.raises(cascade.TierOutputError):
            router.route(np.array([0.3, 0.75], dtype=np.float16))


def test_a_dict_of_inputs(tmp_path):
    node = helper.make_node("Concat", ["a", "b"], ["p"], axis=1)
    inputs = [("a", FLOAT, [None, 1]), ("b", FLOAT, [None, 1])]
    model(tmp_path / "m.onnx", [node], inputs, [("p", FLOAT, [None, 2])])
    with alone(tmp_path, tier(), cache={}) as router:
        assert router.route({"a": [0.25], "b": [0.75]}).confidence == 0.75
        assert router.route({"b": [0.75], "a": [0.25]}).disposition == "cached"
        batch = {"a": [[0.25]] * 3, "b": [[0.75]] * 3}
        assert router.route_many(batch).values.tolist() == [1, 1, 1]
        with pytest.raises(ValueError, match="'a': float32 row of shape"):
            router.route({"a": [0.25]})
        with pytest.raises(TypeError, match="expected a dict"):
            router.route([0.25, 0.75])


def test_a_model_that_takes_strings(tmp_path):
    node = helper.make_node(
        "LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml",
        keys_strings=["yes", "no"], values_int64s=[1, 0], default_int64=-1,
    )  # fmt: skip
    model(tmp_path / "m.onnx", [node], [("x", STRING, [None, 1])], [("y", INT64, [None, 1])])
    with alone(tmp_path, tier(outputs="label")) as router:
        assert router.route("yes").value == 1
        assert router.route_many(["no", "yes", "why"]).values.tolist() == [0, 1, -1]
        with pytest.raises(TypeError, match="'x': text expected, got an int"):
            router.route(3)
        with pytest.raises(InputValueError, match="'x': text expected, got a str that is no Uni"):
            router.route("\ud800")
        assert router.route("ä").value == -1


def test_a_batch_axis_fixed_at_one_is_run_row_by_row(tmp_path):
    node = helper.make_node("Identity", ["x"], ["p"])
    model(tmp_path / "m.onnx", [node], [("x", FLOAT, [1, 2])], [("p", FLOAT, [1, 2])])
    with alone(tmp_path, tier()) as router:
        assert router.route_many(np.stack([ROW, ROW[::-1], ROW])).values.tolist() == [1, 0, 1]


def test_a_model_that_does_not_take_the_zeros_of_the_warm_up_is_served(tmp_path, capfd):
    """A convolution over images of any size: one pixel is none."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["g"]),
        helper.make_node("Flatten", ["g"], ["p"]),
    ]
    free, weights = ["n", 2, "h", "w_"], np.zeros((2, 2, 3, 3), dtype=np.float32)
    weights[0, 0, 1, 1] = weights[1, 1, 1, 1] = 1.0
    model(tmp_path / "m.onnx", nodes, [("x", FLOAT, free)], [("p", FLOAT, ["n", 2])],
          [("w", weights)])  # fmt: skip
    with alone(tmp_path, tier()) as router:
        for size in (3, 5):
            outcome = router.route(np.tile(ROW[:, None, None], (1, size, size)))
            assert (outcome.value, outcome.confidence) == (1, pytest.approx(0.75))
    assert capfd.readouterr().err == ""  # nobody is to be told


def softmax(path, rng, width=512):
    """Two inputs, a and b, a megabyte of weights, and three probabilities."""
    weights = [("w", rng.normal(size=(4, width)).astype("f4")),
               ("v", rng.normal(size=(width, width)).astype("f4") / width),
               ("u", rng.normal(size=(width, 3)).astype("f4"))]  # fmt: skip
    nodes = [
        helper.make_node("Concat", ["a", "b"], ["x"], axis=1),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["g"]),
        helper.make_node("MatMul", ["g", "u"], ["z"]),
        helper.make_node("Softmax", ["z"], ["p"]),
    ]
    inputs = [("a", FLOAT, [None, 1]), ("b", FLOAT, [None, 3])]
    return model(path, nodes, inputs, [("p", FLOAT, [None, 3])], weights)


def test_many_rows_of_a_large_model_are_run_in_pieces(tmp_path):
    rng = np.random.default_rng(0)
    softmax(tmp_path / "m.onnx", rng)
    rows = {"a": rng.normal(size=(1_100, 1)), "b": rng.normal(size=(1_100, 3))}
    rows = {name: column.astype(np.float32) for name, column in rows.items()}
    sizes = []
    with alone(tmp_path, tier()) as router:
        opened = router._service.plan.lanes[0].tier
        run = opened._run_session

        def watched(names, feeds, options=None):
            sizes.append([len(column) for column in feeds.values()])
            return run(names, feeds, options)

        opened._run_session = watched
        many = router.route_many(rows)
        few = router.route_many({name: column[:300] for name, column in rows.items()})
    assert sizes == [[275, 275]] * 4 + [[300, 300]]
    session = make_session((tmp_path / "m.onnx").read_bytes())
    whole = session.run(None, rows)[0]
    assert many.values.tolist() == whole.argmax(axis=1).tolist()
    assert many.confidences == pytest.approx(whole.max(axis=1), abs=1e-6)
    assert few.values.tolist() == many.values[:300].tolist()


def test_many_rows_of_a_small_model_are_run_at_once(tmp_path):
    identity(tmp_path / "m.onnx", 2)
    with alone(tmp_path, tier()) as router:
        opened = router._service.plan.lanes[0].tier
        run, sizes = opened._run_session, []
        opened._run_session = lambda names, feeds, options: (
            sizes.append(len(feeds["x"])) or run(names, feeds, options)
        )
        assert len(router.route_many(np.stack([ROW] * 5_000)).values) == 5_000
    assert sizes == [5_000]


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        ([], ValueError, "an empty list"),
        ("text", TypeError, "got a str"),
        (None, TypeError, "got None"),
        (np.zeros(3, dtype=np.float32), ValueError, r"got shape \(3,\)"),
        (np.zeros((5, 2), dtype=np.float32), ValueError, "this is a batch"),
        (np.array(["a", "b"], dtype=object), TypeError, "object array"),
        (np.array([1j, 0]), TypeError, "complex"),
        ([[1.0], [1.0, 2.0]], ValueError, "ragged"),
        ({"y": [0.25, 0.75]}, ValueError, "unknown key$"),
    ],
)
def test_bad_input_names_the_declared_input_before_any_model_runs(tmp_path, bad, error, words):
    identity(tmp_path / "m.onnx", 2)
    with alone(tmp_path, tier()) as router:
        with pytest.raises(error, match=words) as caught:
            router.route(bad)
        assert isinstance(caught.value, cascade.CascadeError)
        assert "'x': float32 row of shape (2,)" in str(caught.value)
        assert router.statistics().requests == 0


def test_casting_is_as_the_policy_says(tmp_path):
    identity(tmp_path / "m.onnx", 2)
    wide = ROW.astype(np.float64)
    with alone(tmp_path, tier()) as router:
        for row in (wide, [0.25, 0.75], (0.25, 0.75), {"x": wide}, ROW[::-1][::-1]):
            assert router.route(row).confidence == 0.75
    with alone(tmp_path, tier(), inputs={"cast": "none"}) as router:
        with pytest.raises(TypeError, match="float64"):
            router.route(wide)
    with alone(tmp_path, tier(), inputs={"validate": "finite"}) as router:
        with pytest.raises(ValueError, match="validate: finite"):
            router.route(np.array([np.nan, 1.0], dtype=np.float32))


@pytest.mark.parametrize("row", [[np.nan, 1.0], [0.9, 0.9], [-0.5, 1.5], [0.0, 0.0]])
def test_outputs_that_are_no_probabilities(tmp_path, row):
    identity(tmp_path / "m.onnx", 2)
    row = np.array(row, dtype=np.float32)
    with alone(tmp_path, tier()) as router:
        with pytest.raises(cascade.TierOutputError, match="tier 'it'"):
            router.route(row)
        many = router.route_many(np.stack([ROW, row, ROW]))
        assert [str(d) for d in many.dispositions] == ["accepted", "failed", "accepted"]


def test_a_missing_truncated_or_other_model_is_refused(tmp_path):
    path = identity(tmp_path / "m.onnx", 2)
    digest = sha256_file(path)
    alone(tmp_path, tier(sha256=digest))
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(ModelIntegrityError) as caught:
        alone(tmp_path, tier(sha256=digest))
    assert (caught.value.expected, caught.value.found) == (digest, sha256_file(path))
    assert digest in str(caught.value)
    assert sha256_file(path) in str(caught.value)
    with pytest.raises(ModelIntegrityError, match="not a model"):
        alone(tmp_path, tier()).warmup()
    path.unlink()
    with pytest.raises(ModelIntegrityError, match="cannot be read"):
        alone(tmp_path, tier())


def test_outputs_that_the_model_does_not_have(tmp_path):
    identity(tmp_path / "m.onnx", 2)
    with pytest.raises(PolicyError, match="no output 'q'; the model has 'p'"):
        alone(tmp_path, tier(outputs={"kind": "probabilities", "name": "q"})).warmup()
    with pytest.raises(PolicyError, match="2 columns"):
        alone(tmp_path, tier(), classes=["a", "b", "c"]).warmup()


def test_a_golden_input_is_replayed(tmp_path):
    from cascade.bundle import Golden

    identity(tmp_path / "m.onnx", 2)
    good = Golden({"x": ROW[None]}, {"p": ROW[None]}).to_dict()
    bad = Golden({"x": ROW[None]}, {"p": ROW[None, ::-1]}).to_dict()
    tree = {"version": 1, "name": "t", "deadline": "1s", "tiers": [{"name": "it", **tier()}]}
    for golden, sound in ((good, True), (bad, False)):
        (tmp_path / "golden.json").write_text(json.dumps({"it": golden}))
        policy = Policy.from_dict({**tree, "golden": "golden.json"}, root=tmp_path)
        router = Router(policy, env={})
        if sound:
            router.warmup()
        else:
            with pytest.raises(ModelIntegrityError, match="golden input differently"):
                router.warmup()


def test_inputs_that_the_model_does_not_have_are_named_with_the_nearest(tmp_path):
    from cascade.bundle import Golden

    identity(tmp_path / "m.onnx", 2)
    tree = {"version": 1, "name": "t", "deadline": "1s", "tiers": [{"name": "it", **tier()}]}
    for inputs, words in (
        ({"xx": ROW[None]}, "the model has no input 'xx'; did you mean 'x'"),
        ({"x": ROW[None], "y": ROW[None]}, "the model has no input 'y'; expected one of x"),
    ):
        golden = Golden(inputs, {"p": ROW[None]}).to_dict()
        (tmp_path / "golden.json").write_text(json.dumps({"it": golden}))
        policy = Policy.from_dict({**tree, "golden": "golden.json"}, root=tmp_path)
        with pytest.raises(PolicyError, match=f"tier 'it': {words}"):
            Router(policy, env={}).warmup()


def test_sessions_do_not_spin(tmp_path):
    path = identity(tmp_path / "m.onnx", 2)
    from cascade.tiers.sessions import make_session

    options = make_session(path.read_bytes(), 2).get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_the_environment_of_the_process_can_be_shut_out(tmp_path, monkeypatch):
    identity(tmp_path / "m.onnx", 2)
    monkeypatch.setenv("CASCADE_CORES", "nonsense")
    monkeypatch.setenv("CASCADE_MODELS", "/nowhere")
    policy = Policy.from_dict(
        {"version": 1, "name": "t", "deadline": "1s", "tiers": [{"name": "it", **tier()}]},
        root=tmp_path,
    )
    with Router(policy, env={}) as router:
        assert router.route(ROW).value == 1
    monkeypatch.delenv("CASCADE_MODELS")
    with pytest.raises(PolicyError, match="CASCADE_CORES: expected a whole number above 0"):
        Router(policy)


def test_settings_of_the_session_are_honoured(tmp_path):
    path = identity(tmp_path / "m.onnx", 2)
    spec = OnnxSpec(name="it", model="m.onnx", spinning=True, optimization="basic")
    bound = OnnxTier(spec, path.read_bytes, None)
    bound.open()
    options = bound._session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "1"
    assert options.graph_optimization_level.name == "ORT_ENABLE_BASIC"


@pytest.mark.parametrize(
    ("provider", "hint"),
    [
        ("CPUExecutionProvidr", "did you mean 'CPUExecutionProvider'"),
        ("NoSuch", "expected one of .*CPUExecutionProvider"),
    ],
)
def test_a_provider_that_is_absent_is_an_error_not_a_silent_cpu(tmp_path, provider, hint):
    path = identity(tmp_path / "m.onnx", 2)
    bound = OnnxTier(OnnxSpec(name="it", model="m.onnx", provider=provider), path.read_bytes, None)
    with pytest.raises(PolicyError, match=f"tier 'it': provider '{provider}' .*{hint}"):
        bound.open()


# -- outputs and inputs that do not do -------------------------------------------------------------


@pytest.mark.parametrize(
    ("outputs", "more", "words"),
    [
        ("sigmoid", {"classes": ["a", "b", "c"]}, "2 columns in output 'p', expected 1"),
        ({"kind": "label", "name": "p", "confidence": "q"}, {}, "no output 'q'"),
        ("label", {}, "no output that could be label"),
    ],
)
def test_outputs_that_do_not_do_are_refused_when_opened(tmp_path, outputs, more, words):
    identity(tmp_path / "m.onnx", 2)
    with pytest.raises(PolicyError, match=words):
        alone(tmp_path, tier(outputs=outputs), **more).warmup()


def test_a_sigmoid_has_two_classes(tmp_path):
    identity(tmp_path / "m.onnx", 1)
    with pytest.raises(PolicyError, match="sigmoid needs two classes"):
        alone(tmp_path, tier(outputs="sigmoid"), classes=["a", "b", "c"]).warmup()


def test_a_supplied_score_needs_an_output(tmp_path):
    identity(tmp_path / "m.onnx", 2)
    with pytest.raises(PolicyError, match="'supplied' needs a confidence output"):
        alone(tmp_path, tier(confidence="supplied")).warmup()


@pytest.mark.parametrize(
    ("kind", "shape", "words"),
    [
        (STRING, [None, 3], "rows of several strings"),
        (TensorProto.COMPLEX64, [None, 2], "not supported"),
        (FLOAT, [], "not supported"),
    ],
)
def test_inputs_that_do_not_do_are_refused_when_opened(tmp_path, kind, shape, words):
    node = helper.make_node("Identity", ["x"], ["p"])
    model(tmp_path / "m.onnx", [node], [("x", kind, shape)], [("p", kind, shape)])
    with pytest.raises((PolicyError, ModelIntegrityError), match=f"{words}|not a model"):
        alone(tmp_path, tier()).warmup()


def test_a_confidence_output_outside_its_range_is_a_fault(tmp_path):
    nodes = [helper.make_node("Identity", ["x"], [name]) for name in ("v", "c")]
    ends = [(name, FLOAT, [None, 1]) for name in ("v", "c")]
    model(tmp_path / "m.onnx", nodes, [("x", FLOAT, [None, 1])], ends)
    outputs = {"kind": "value", "name": "v", "confidence": "c"}
    with alone(tmp_path, tier(outputs=outputs)) as router:
        assert router.route([0.5]).confidence == 0.5
        with pytest.raises(cascade.TierOutputError, match=r"confidence output outside \[0, 1\]"):
            router.route([1.5])
        many = router.route_many(np.array([[0.5], [1.5], [0.25]], dtype=np.float32))
        assert [str(d) for d in many.dispositions] == ["accepted", "failed", "accepted"]


def test_a_golden_input_that_the_model_does_not_take(tmp_path):
    import json

    identity(tmp_path / "m.onnx", 2)
    golden = {"inputs": {"x": [[1.0, 2.0, 3.0]]}, "outputs": {"p": [[1.0, 2.0]]}}
    (tmp_path / "golden.json").write_text(json.dumps({"it": golden}))
    tree = {"version": 1, "name": "t", "golden": "golden.json", "tiers": [{"name": "it", **tier()}]}
    with pytest.raises(ModelIntegrityError, match="does not take its golden input"):
        Router(Policy.from_dict(tree, root=tmp_path), env={}).warmup()


def test_files_without_a_folder_to_look_in_are_said_to_be_missing(tmp_path):
    identity(tmp_path / "m.onnx", 2)
    tree = {"version": 1, "name": "t", "deadline": "1s", "tiers": [{"name": "it", **tier()}]}
    with pytest.raises(PolicyError, match="give models=FOLDER"):
        Router(Policy.from_dict(tree), env={})
    whole = tier(file=str(tmp_path / "m.onnx"))
    with Router(Policy.from_dict(tree | {"tiers": [{"name": "it", **whole}]}), env={}) as router:
        assert router.route(ROW).value == 1
    uncalibrated = tier(confidence={"calibration": "c.json"})
    policy = Policy.from_dict(tree | {"tiers": [{"name": "it", **uncalibrated}]})
    with pytest.raises(PolicyError, match="give the policy its folder"):
        Router(policy, models=tmp_path, env={})


def test_a_model_that_answers_for_other_rows_is_at_fault(tmp_path):
    identity(tmp_path / "m.onnx", 2)
    with alone(tmp_path, tier()) as router:
        (bound,) = router._service.bound
        with pytest.raises(OutputFault, match="expected 3 rows, got 2"):
            bound.read_rows([np.stack([ROW, ROW])], 3)


def test_a_value_for_other_rows_is_at_fault(tmp_path):
    identity(tmp_path / "m.onnx", 1, "y")
    with alone(tmp_path, tier(outputs={"kind": "value"})) as router:
        (bound,) = router._service.bound
        with pytest.raises(OutputFault, match="expected 3 rows, got 2"):
            bound.read_rows([np.zeros((2, 1), dtype=np.float32)], 3)
