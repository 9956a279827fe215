from __future__ import annotations

import doctest
import functools
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cascade
import cascade.strategies
import cascade.testing
from cascade.simulation import Arrivals

_ROOT = Path(__file__).parents[1]


@functools.cache
def _examples_in(module: str) -> set[str]:
    """The names whose documentation the test run finds examples in, and so runs."""
    found = doctest.DocTestFinder().find(importlib.import_module(module))
    return {test.name for test in found if test.examples}


@pytest.mark.parametrize(
    ("package", "name"),
    [
        (package, name)
        for package in (cascade, cascade.testing, cascade.strategies)
        for name in package.__all__
    ],
)
def test_every_public_name_is_documented_by_an_example_that_runs(package: Any, name: str) -> None:
    module = getattr(package, name).__module__
    assert f"{module}.{name}" in _examples_in(module)


@pytest.mark.parametrize("name", cascade.__all__)
def test_every_public_name_is_that_of_its_module(name: str) -> None:
    value = getattr(cascade, name)
    assert value.__name__ == name
    assert value.__module__.startswith("cascade.")


def test_the_list_is_complete_and_in_order() -> None:
    from cascade import errors

    assert len(set(cascade.__all__)) == len(cascade.__all__)
    assert set(errors.__all__) <= set(cascade.__all__)
    assert set(dir(cascade)) == {*cascade.__all__, "__version__"}
    in_order = sorted(cascade.__all__, key=lambda name: (name.islower(), name))
    assert in_order == cascade.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'cascade' has no attribute 'Ruter'"):
        _ = cascade.Ruter
    with pytest.raises(ImportError):
        from cascade import Ruter  # noqa: F401


def test_importing_it_imports_nothing_of_weight() -> None:
    code = (
        "import sys; before = set(sys.modules); import cascade\n"
        "print(sorted({name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "             - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['cascade']"


def test_the_version_is_that_of_the_distribution() -> None:
    project = tomllib.loads((_ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert cascade.__version__ == project["version"]


def test_no_module_bears_the_name_of_a_public_name() -> None:
    modules = {path.stem for path in (_ROOT / "cascade").iterdir()}
    assert not modules & set(cascade.__all__)


def test_the_front_page_stays_short() -> None:
    assert len((_ROOT / "cascade" / "__init__.py").read_text("utf-8").splitlines()) <= 50


def test_what_is_shown_is_short_and_holds_nothing_of_the_requests() -> None:
    n = 5_000
    texts = [f"secret {i}" for i in range(n)]
    truth = ["dog"] + ["cat"] * (n - 1)
    table = {
        "input": texts,
        "truth": truth,
        "small.value": ["cat"] * n,
        "small.confidence": [0.9] * n,
        "large.value": truth,
    }
    found = cascade.fit(table, costs=[1, 20], loss="gross", score="plain")
    arrivals = Arrivals(np.arange(float(n)), tenants=np.array(texts, dtype=object))
    shown = [
        found,
        found.recording,
        found.recording.tiers[0],
        cascade.replay(found.policy, table),
        cascade.Prediction(texts, confidences=np.ones(n)),
        arrivals,
    ]
    for each in map(repr, shown):
        assert len(each) < 400
        assert "secret 4999" not in each
    assert "secret" not in repr((found, found.recording, arrivals))
