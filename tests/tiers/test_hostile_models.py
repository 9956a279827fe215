"""Models by an adversary or a bad disk: refused before they are run, or what they were."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import cascade
from cascade import ModelIntegrityError, Policy, PolicyError, Router
from cascade.bundle import Golden, data_files, sha256_file, sha256_model
from cascade.tiers.graph import external_locations
from cascade.tiers.sessions import make_session
from tests.benchmarks.models import perceptron

WEIGHTS = np.arange(4, dtype=np.float32).reshape(2, 2)
ROW = np.array([0.25, 0.75], dtype=np.float32)


def external(path, location="w.bin", weights=WEIGHTS):
    """A model whose weights stand in a file of their own, and that file."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    softmax = helper.make_node("Softmax", ["y"], ["p"])
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 2]) for n in "xp"]
    tensor = numpy_helper.from_array(weights, "w")
    graph = helper.make_graph([node, softmax], "g", ends[:1], ends[1:], [tensor])
    opsets = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    put_outside(made.graph.initializer[0], location)
    path.write_bytes(made.SerializeToString())
    return tensor.raw_data


def put_outside(tensor, location):
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def alone(folder, file="m.onnx", golden=None, **more):
    tree = {
        "version": 1, "name": "t", "deadline": "10s",
        "tiers": [{"name": "it", "kind": "onnx", "model": file, **more}],
    }  # fmt: skip
    if golden is not None:
        (folder / "golden.json").write_text(json.dumps({"it": golden}))
        tree["golden"] = "golden.json"
    return Router(Policy.from_dict(tree, root=folder), env={})


# -- external data ---------------------------------------------------------------------------------


def test_external_data_beside_the_model_is_served_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "models" / "data").mkdir(parents=True)
    folder = tmp_path / "models"
    (folder / "data" / "w.bin").write_bytes(external(folder / "m.onnx", "data/w.bin"))
    monkeypatch.chdir(tmp_path)
    with alone(folder) as router:
        assert router.route(ROW).value == 1
    with alone(folder, execution="process") as router:
        assert router.route(ROW).value == 1


def test_a_digest_covers_the_external_data(tmp_path):
    weights = external(tmp_path / "m.onnx")
    (tmp_path / "w.bin").write_bytes(weights)
    digest = sha256_model(tmp_path / "m.onnx")
    assert digest != sha256_file(tmp_path / "m.onnx")
    alone(tmp_path, sha256=digest)
    (tmp_path / "w.bin").write_bytes(weights[::-1])
    with pytest.raises(ModelIntegrityError) as caught:
        alone(tmp_path, sha256=digest)
    assert caught.value.found == sha256_model(tmp_path / "m.onnx")


def test_data_that_has_changed_is_read_anew(tmp_path):
    weights = external(tmp_path / "m.onnx")
    (tmp_path / "w.bin").write_bytes(weights)
    with alone(tmp_path) as router:
        before = router.route(ROW)
        (tmp_path / "new.bin").write_bytes((-WEIGHTS).tobytes())
        (tmp_path / "new.bin").replace(tmp_path / "w.bin")
        with alone(tmp_path) as another:
            assert (before.value, another.route(ROW).value) == (1, 0)


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("/etc/passwd", "is absolute"),
        ("//host/share/w.bin", "is absolute"),
        ("C:\\w.bin", "is absolute"),
        ("\\w.bin", "is absolute"),
        ("../w.bin", "leaves the model's folder"),
        ("data/../../w.bin", "leaves the model's folder"),
        ("data/../w.bin", "leaves the model's folder"),
        ("..\\w.bin", "leaves the model's folder"),
        ("link.bin", "passes through a link"),
        ("linked/w.bin", "passes through a link"),
        ("dangling", "passes through a link"),
        ("none.bin", "is no file"),
        ("data", "is no file"),
        ("", "is no file"),
        (".", "is no file"),
        ("pipe", "is no file"),
        ("a\0b", "is no file"),
        ("*/_ORT_MEM_ADDR_/*", "is no file"),
        ("\U0001f600\n", "is no file"),
    ],
)
@pytest.mark.parametrize("pinned", [False, True])
def test_external_data_from_elsewhere_is_refused_before_a_session_is_made(
    tmp_path, monkeypatch, location, words, pinned
):
    folder = tmp_path / "models"
    (folder / "data").mkdir(parents=True)
    weights = external(folder / "m.onnx", location)
    for file in (tmp_path / "w.bin", folder / "w.bin", folder / "data" / "w.bin"):
        file.write_bytes(weights)
    (folder / "link.bin").symlink_to("w.bin")
    (folder / "linked").symlink_to("data")
    (folder / "dangling").symlink_to("nothing")
    os.mkfifo(folder / "pipe")
    monkeypatch.setattr("cascade.tiers.sessions.make_session", None)
    digest = {"sha256": sha256_file(folder / "m.onnx")} if pinned else {}
    with pytest.raises(ModelIntegrityError, match=words) as caught:
        alone(folder, **digest)
    assert "tier 'it': m.onnx: external data" in str(caught.value)
    assert str(caught.value).isprintable()


def hidden():
    """Models that refer to a file from everywhere that a tensor can stand."""
    tensor = TensorProto(name="t", data_type=1, dims=[4])
    put_outside(tensor, "/secret")
    sparse = onnx.SparseTensorProto(values=tensor)
    node = {
        "tensor": helper.make_node("Constant", [], ["y"], value=tensor),
        "sparse": helper.make_node("Constant", [], ["y"], sparse_value=sparse),
        "tensors": helper.make_node("Custom", [], ["y"], many=[tensor]),
        "sparses": helper.make_node("Custom", [], ["y"], many=[sparse]),
    }
    for name, one in node.items():
        yield name, onnx.ModelProto(graph=onnx.GraphProto(node=[one]))
    inner = onnx.GraphProto(node=[node["tensor"]])
    for _ in range(20):
        inner = onnx.GraphProto(node=[helper.make_node("If", ["c"], ["y"], then_branch=inner)])
    yield "subgraphs", onnx.ModelProto(graph=inner)
    loop = helper.make_node("Custom", [], [], bodies=[onnx.GraphProto(initializer=[tensor])])
    yield "bodies", onnx.ModelProto(graph=onnx.GraphProto(node=[loop]))
    yield "initializer", onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor]))
    graph = onnx.GraphProto(sparse_initializer=[sparse])
    yield "sparse initializer", onnx.ModelProto(graph=graph)
    indices = onnx.SparseTensorProto(indices=tensor)
    yield "indices", onnx.ModelProto(graph=onnx.GraphProto(sparse_initializer=[indices]))
    yield "function", onnx.ModelProto(functions=[onnx.FunctionProto(node=[node["tensor"]])])
    attribute = helper.make_attribute("a", tensor)
    yield "default", onnx.ModelProto(functions=[onnx.FunctionProto(attribute_proto=[attribute])])
    training = onnx.TrainingInfoProto(algorithm=graph)
    yield "training", onnx.ModelProto(training_info=[training])


@pytest.mark.parametrize(("name", "model"), [*hidden()], ids=lambda v: v if type(v) is str else "")
def test_references_are_found_wherever_they_stand(name, model):
    raw = model.SerializeToString()
    assert external_locations(raw) == [b"/secret"]
    assert external_locations(onnx.ModelProto(producer_name="x").SerializeToString() + raw) == [
        b"/secret"
    ]
    group = bytes([15 << 3 | 3])  # an unknown group, never closed
    assert external_locations(group + raw) == [b"/secret"]
    assert external_locations(raw + b"\xff") == [b"/secret"]
    assert external_locations(raw + b"\x3a\xff") == [b"/secret"]


def test_weights_inside_are_no_references(tmp_path):
    model = perceptron(tmp_path / "m.onnx", [4, 8, 3], 0).read_bytes()
    assert external_locations(model) == []
    assert data_files(model, tmp_path / "m.onnx") == ()


# -- links -----------------------------------------------------------------------------------------


def test_a_config_map_is_served(tmp_path):
    """Kubernetes: files are links through ..data into a folder that is replaced as a whole."""
    real = tmp_path / "..2026_11_23"
    real.mkdir()
    (real / "w.bin").write_bytes(external(real / "m.onnx"))
    tree = "version: 1\nname: t\ndeadline: 1s\ntiers: [{name: it, kind: onnx, model: m.onnx}]\n"
    (real / "policy.yaml").write_text(tree)
    (tmp_path / "..data").symlink_to(real.name)
    for name in ("policy.yaml", "m.onnx", "w.bin"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    with Router.from_yaml(tmp_path / "policy.yaml", env={}) as router:
        assert router.route(ROW).value == 1


def test_a_model_in_a_data_store_needs_a_digest(tmp_path):
    store, folder = tmp_path / "store", tmp_path / "bundle"
    store.mkdir()
    folder.mkdir()
    perceptron(store / "9c1f", [2, 3, 2], 0)
    (folder / "m.onnx").symlink_to(store / "9c1f")
    with pytest.raises(PolicyError, match=r"m\.onnx lies outside bundle/ and needs sha256"):
        alone(folder)
    with alone(folder, sha256=sha256_file(store / "9c1f")) as router:
        router.route(ROW)


@pytest.mark.parametrize("file", ["../m.onnx", "sub/../../m.onnx", "{folder}/m.onnx"])
def test_a_model_outside_its_root_needs_a_digest(tmp_path, file):
    (tmp_path / "bundle" / "sub").mkdir(parents=True)
    model = perceptron(tmp_path / "m.onnx", [2, 3, 2], 0)
    file = file.format(folder=tmp_path)
    with pytest.raises(PolicyError, match="lies outside bundle/ and needs sha256"):
        alone(tmp_path / "bundle", file)
    alone(tmp_path / "bundle", file, sha256=sha256_file(model))


# -- golden inputs and profiles --------------------------------------------------------------------

GOLDEN = Golden({"x": ROW[None]}, {"p": ROW[None]}).to_dict()


@pytest.mark.parametrize(
    "golden",
    [5, {}, GOLDEN | {"inputs": {}}, GOLDEN | {"outputs": {}}, GOLDEN | {"rtol": float("nan")},
     GOLDEN | {"atol": -1}, GOLDEN | {"inputs": {"x": 5}}, GOLDEN | {"rtol": "x"},
     GOLDEN | {"inputs": {"x": {"dtype": "nothing", "data": [1]}}},
     GOLDEN | {"inputs": {"x": {"dtype": "float32", "data": [[1], [1, 2]]}}}],
)  # fmt: skip
def test_what_is_no_golden_input_is_said_to_be_none(tmp_path, golden):
    perceptron(tmp_path / "m.onnx", [2, 3, 2], 0)
    with pytest.raises(PolicyError, match="no golden input of 'it'"):
        alone(tmp_path, golden=golden).warmup()


@pytest.mark.parametrize(
    "outputs",
    [[[0.5, 0.5, 0.0]], [0.5, 0.5], [[0.5, 0.5], [0.5, 0.5]], [["a", "b"]], [[float("nan")] * 2]],
    ids=str,
)
def test_a_golden_answer_of_another_shape_or_kind_is_another_answer(tmp_path, outputs):
    perceptron(tmp_path / "m.onnx", [2, 3, 2], 0)
    golden = GOLDEN | {"outputs": {"p": outputs}}
    with pytest.raises(ModelIntegrityError, match="golden input differently"):
        alone(tmp_path, golden=golden).warmup()


@pytest.mark.parametrize(
    "profile",
    [
        5,
        {"overhead": "x"},
        {"overhead": -1, "per_row": 0},
        {"a": 1},
        {"overhead": 1e999, "per_row": 0},
        {"per_row": None},
    ],
)
def test_what_is_no_profile_is_said_to_be_none(tmp_path, profile):
    perceptron(tmp_path / "m.onnx", [2, 3, 2], 0)
    (tmp_path / "profile.json").write_text(json.dumps({"it": profile}))
    tiers = [{"name": "it", "kind": "onnx", "model": "m.onnx"}]
    tree = {"version": 1, "name": "t", "profile": "profile.json", "tiers": tiers}
    with pytest.raises(PolicyError, match="no profile of tier 'it'"):
        Router(Policy.from_dict(tree, root=tmp_path), env={}).warmup()


# -- mutations -------------------------------------------------------------------------------------

MUTATE = """
import json, random, sys
from pathlib import Path
import numpy as np
from cascade import ModelIntegrityError, Policy, PolicyError, Router

folder, seed, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
draw = random.Random(seed)
whole = (folder / "whole.onnx").read_bytes()
golden = json.loads((folder / "golden.json").read_text())["it"]
asked = np.array(golden["inputs"]["x"]["data"], dtype=np.float32)
expected = np.argmax(golden["outputs"]["p"]["data"], axis=1)
tree = {
    "version": 1, "name": "t", "deadline": "10s", "golden": "golden.json",
    "tiers": [{"name": "it", "kind": "onnx", "model": "m.onnx"}],
}
policy = Policy.from_dict(tree, root=folder)
served = refused = 0
for _ in range(count):
    raw = bytearray(whole)
    for _ in range(draw.choice([1, 1, 1, 2, 5])):
        at = draw.randrange(len(raw))
        how = draw.randrange(5)
        if how == 0:
            raw[at] ^= 1 << draw.randrange(8)
        elif how == 1:
            raw[at] = draw.randrange(256)
        elif how == 2:
            del raw[at : at + draw.randrange(1, 9)]
        elif how == 3:
            raw[at:at] = draw.randbytes(draw.randrange(1, 5))
        else:
            del raw[at + 1 :]
    (folder / "m.onnx").write_bytes(raw)
    (folder / "last").write_bytes(raw)
    try:
        with Router(policy, env={}) as router:
            values = router.route_many(asked).values.tolist()
    except (ModelIntegrityError, PolicyError):
        refused += 1
        continue
    assert values == expected.tolist(), values
    served += 1
print(served, refused)
"""


def mutate(folder, seed, count):
    model = perceptron(folder / "whole.onnx", [4, 8, 3], 0)
    asked = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    session = make_session(model.read_bytes())
    answer = session.run(None, {session.get_inputs()[0].name: asked})[0]
    golden = Golden({"x": asked}, {"p": answer}).to_dict()
    (folder / "golden.json").write_text(json.dumps({"it": golden}))
    command = [sys.executable, "-c", MUTATE, str(folder), str(seed), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    served, refused = map(int, done.stdout.splitlines()[-1].split())  # ORT may print too
    assert served + refused == count
    assert refused > count / 2
    return served


def test_a_damaged_model_is_refused_or_answers_as_it_did(tmp_path):
    mutate(tmp_path, seed=1, count=150)


@pytest.mark.slow
def test_five_thousand_damaged_models(tmp_path):
    assert mutate(tmp_path, seed=2, count=5_000) > 0


# -- code in files ---------------------------------------------------------------------------------

PACKAGE = Path(cascade.__file__).parent
LOADERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "skops", "shelve", "marshal"}


def test_nothing_in_the_package_can_load_code():
    """No unpickler but that between a process and its own child; no eval, no unsafe YAML."""
    users = set()
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile", "__import__"}, file
            elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert ast.literal_eval(node.value) is False, file
            elif isinstance(node, ast.keyword) and node.arg == "typ":
                assert ast.literal_eval(node.value) in {"safe", "rt"}
            if LOADERS & {name.partition(".")[0] for name in names}:
                users.add(file.relative_to(PACKAGE).as_posix())
    assert users == {"lanes/child.py", "lanes/process.py"}
