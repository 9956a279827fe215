"""Reloading: all that belongs to a policy is looked at, by content, and while it is whole."""

import json
import os
import shutil

import numpy as np
import onnx
import pytest

from cascade import Policy, Router
from cascade.reloading import PolicyFiles
from tests.benchmarks.models import perceptron
from tests.test_service import ROW, says, tree
from tests.test_swapping import labelled, onnx_file


def watching(path, **given):
    return PolicyFiles(path, Policy.from_yaml(path, env={}), env={}, **given)


def looked(files):
    """Look twice: what changes between two looks is not whole yet."""
    assert not files.changed()
    return files.changed()


def edited(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_change_is_seen_once_it_has_settled(tmp_path):
    path = onnx_file(tmp_path)
    files = watching(path)
    edited(path, "revision", "# half of it\nrevision")
    assert not files.changed()
    edited(path, "# half of it", "# all of it")
    assert not files.changed()
    assert files.changed()
    files.read()
    assert not looked(files)


def test_what_was_touched_or_replaced_by_the_same_has_not_changed(tmp_path):
    labelled(tmp_path / "m.onnx", 0)
    path = onnx_file(tmp_path)
    files = watching(path)
    os.utime(path, (1, 1))
    shutil.copy(tmp_path / "m.onnx", tmp_path / "copy.onnx")
    (tmp_path / "copy.onnx").replace(tmp_path / "m.onnx")
    assert not looked(files)
    labelled(tmp_path / "m.onnx", 1)
    assert looked(files)


@pytest.mark.parametrize("what", ["profile", "golden", "certificate", "calibration"])
def test_the_files_beside_a_policy_belong_to_it(tmp_path, what):
    (tmp_path / "beside.json").write_text("{}")
    tiers = [{"name": "only", "kind": "external"}]
    path = tmp_path / "policy.yaml"
    path.write_text(Policy.from_dict(tree(tiers=tiers, profile="beside.json")).to_yaml())
    policy = Policy.from_yaml(path, env={})
    escalation, (spec,) = policy.escalation, policy.tiers
    object.__setattr__(policy, "profile", "beside.json" if what == "profile" else None)
    object.__setattr__(policy, "golden", "beside.json" if what == "golden" else None)
    if what == "certificate":
        object.__setattr__(escalation, "certificate", "beside.json")
    if what == "calibration":
        object.__setattr__(spec.confidence, "calibration", "beside.json")
    files = PolicyFiles(path, policy, env={})
    (tmp_path / "beside.json").write_text('{"a": 1}')
    assert looked(files)
    (tmp_path / "beside.json").unlink()
    assert looked(files)


@pytest.mark.parametrize("given", ["models", "env"])
def test_models_are_looked_for_where_they_are_loaded_from(tmp_path, given):
    models = tmp_path / "models"
    models.mkdir()
    labelled(models / "m.onnx", 0)
    path = onnx_file(tmp_path)
    policy = Policy.from_yaml(path, env={})
    if given == "models":
        files = PolicyFiles(path, policy, models, {})
    else:
        files = PolicyFiles(path, policy, env={"CASCADE_MODELS": str(models)})
    labelled(models / "m.onnx", 1)
    assert looked(files)


def test_external_data_belongs_to_its_model(tmp_path):
    model = onnx.load(perceptron(tmp_path / "m.onnx", [4, 3], 0))
    onnx.save(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0
    )
    files = watching(onnx_file(tmp_path))
    data = bytearray((tmp_path / "m.data").read_bytes())
    data[0] ^= 1
    (tmp_path / "m.data").write_bytes(data)
    assert looked(files)


def test_what_was_missing_when_the_file_was_read_is_waited_for(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(Policy.from_dict(tree()).to_yaml())
    with Router.from_yaml(path, tiers={"only": says("it")}) as router:
        files = PolicyFiles(path, router.policy, env={})

        def look():
            router._service.look(files)
            router._service.look(files)
            return router.policy.revision, router._service.reload_failures

        spec = {"name": "only", "kind": "external", "confidence": {"calibration": "table.json"}}
        path.write_text(json.dumps(tree("2", tiers=[spec])))  # which YAML is too
        assert look() == ("1", 1)  # it cannot be read
        assert look() == ("1", 1)  # and nothing has changed
        (tmp_path / "log").write_text("of another")
        (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
        assert look() == ("1", 1)
        (tmp_path / "table.json").write_text("{}")
        assert look() == ("1", 2)  # it is tried again: the table has no such tier
        path.write_text(json.dumps(tree("2")))
        assert look() == ("2", 2)
        path.write_text(json.dumps(tree("3", profile="profile.json")))
        assert look() == ("2", 3)
        (tmp_path / "profile.json").write_text("{}")
        assert look() == ("3", 3)


def test_a_manual_swap_stays_until_the_file_changes(tmp_path):
    labelled(tmp_path / "m.onnx", 0)
    path = onnx_file(tmp_path)
    perceptron(tmp_path / "other.onnx", [4, 3], 0)
    other = onnx_file(tmp_path, "other.yaml", model="other.onnx")
    edited(other, "name: p", "name: other")
    with Router.from_yaml(path) as router:
        files = watching(path)
        router.swap(other)
        for _ in range(3):
            router._service.look(files)
        assert router.policy.name == "other"
        edited(path, "revision: '1'", "revision: 'two'")
        for _ in range(2):
            router._service.look(files)
        assert (router.policy.name, router.policy.revision) == ("p", "two")


def test_a_model_that_is_replaced_answers_at_once(tmp_path):
    labelled(tmp_path / "m.onnx", 0)
    path = onnx_file(tmp_path)
    with Router.from_yaml(path) as router:
        files = watching(path)
        assert router.route(ROW).value == 0
        labelled(tmp_path / "m.onnx", 1)
        for _ in range(2):
            router._service.look(files)
        assert router.route(np.array(ROW)).value == 1
