"""Tier kinds that other packages bring along: found when a policy names them, not before."""

import sys

import pytest

from cascade import Policy, PolicyError, Router, registry
from cascade.policy.digest import tier_digest
from cascade.policy.schema import json_schema

MODULE = """
from cascade.policy import TierSpec
from cascade.policy import constraints as c
from cascade.policy.constraints import field, settings
from cascade.protocols import BoundTier


@settings
class Echo(TierSpec):
    kind = "echo"
    times: int = field(c.integer(1, 9), "How often.", default=1)


class Bound(BoundTier):
    def __init__(self, spec):
        self.name, self._times = spec.name, spec.times

    def run(self, job): return job.row
    def read(self, raw): return raw * self._times, 0.9
    def run_rows(self, rows, n, context): return rows

    def read_rows(self, raw, n):
        import numpy as np
        return np.array([text * self._times for text in raw], dtype=object), np.full(n, 0.9)


class Kind:
    settings = Echo

    @staticmethod
    def bind(policy, spec, models, env):
        return Bound(spec)
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package as pip would have installed it, its entry point and all."""
    (tmp_path / "echo_kind.py").write_text(MODULE)
    info = tmp_path / "echo_kind-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: echo-kind\nVersion: 1\n")
    entries = info / "entry_points.txt"
    entries.write_text("[cascade.tiers]\necho = echo_kind:Kind\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry._found.cache_clear()
    yield entries
    registry._found.cache_clear()
    sys.modules.pop("echo_kind", None)


def tree(**more):
    return {"version": 1, "name": "p", "deadline": "1s",
            "tiers": [{"name": "it", "kind": "echo", **more}]}  # fmt: skip


def test_nothing_is_imported_until_a_policy_names_it(installed):
    Policy.from_dict(tree() | {"tiers": [{"name": "it", "kind": "external"}]})
    assert "echo" in registry.plugin_names(registry.TIERS)
    assert "echo_kind" not in sys.modules
    Policy.from_dict(tree())
    assert "echo_kind" in sys.modules


def test_its_tiers_serve(installed):
    with Router(Policy.from_dict(tree(times=2))) as router:
        assert router.route("ab").value == "abab"
        assert router.route_many(["a", "b", "c"]).values.tolist() == ["aa", "bb", "cc"]


def test_its_settings_are_checked_shown_and_certified(installed):
    with pytest.raises(PolicyError, match=r"tiers\.0\.times"):
        Policy.from_dict(tree(times=10))
    with pytest.raises(PolicyError, match="did you mean 'times'"):
        Policy.from_dict(tree(time=1))
    kinds = [spec["properties"]["kind"]["const"]
             for spec in json_schema()["properties"]["tiers"]["items"]["anyOf"]]  # fmt: skip
    assert kinds == ["onnx", "external", "echo"]
    one, two = (Policy.from_dict(tree(times=n)) for n in (1, 2))
    assert tier_digest(one, one.tiers[0]) != tier_digest(two, two.tiers[0])


def test_without_the_package_the_kind_is_unknown():
    with pytest.raises(PolicyError, match="unknown kind 'echo'"):
        Policy.from_dict(tree())


def test_misspelt_kinds_find_those_of_packages(installed):
    with pytest.raises(PolicyError, match="did you mean 'echo'"):
        Policy.from_dict(tree() | {"tiers": [{"name": "it", "kind": "ecko"}]})


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("no_module:Kind", "package 'echo-kind' .* no_module:Kind cannot be imported: ModuleNotF"),
        ("echo_kind:OldKind", "echo_kind:OldKind cannot be imported: AttributeError"),
        ("echo_kind:Echo", "kind 'bad': .* lacks `settings`"),
        ("echo_kind:Kind", "a subclass of cascade.TierSpec whose `kind` is 'bad'"),
    ],
)
def test_what_is_no_kind_is_a_problem_of_the_policy_among_its_others(installed, entry, said):
    installed.write_text(f"[cascade.tiers]\nbad = {entry}\n")
    one = {"name": "it", "kind": "bad"}
    with pytest.raises(PolicyError, match=rf"tiers\.0\.kind: .*{said}") as caught:
        Policy.from_dict(tree() | {"tiers": [one], "deadline": "soon"})
    assert [issue.path for issue in caught.value.issues] == ["deadline", "tiers.0.kind"]
    with pytest.raises(PolicyError, match=said):
        json_schema()
