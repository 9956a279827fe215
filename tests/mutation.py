"""Change the code in small ways, one at a time, and see whether a test notices.

``python -m tests.mutation cache`` (or others of the names below) prints the mutants that survive
their tests; docs/suite.md judges them. The repository itself is not touched: it is copied, and
changed in the copy. What is slow to import is imported once; each mutant is tested in a fork of it.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib
import multiprocessing
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[1]
POLICY = [
    "tests/policy/test_units.py",
    "tests/policy",
    "tests/test_strategies.py",
    "-k",
    "not takes_little_memory",
]
READING = [
    "tests/policy/test_hostile.py", "tests/policy/test_reading.py",
    "-k", "not takes_little_memory and not may_hold_anything",
]  # fmt: skip
CACHE = [
    "tests/test_cache.py", "tests/test_cache_hostile.py", "tests/test_holdings.py",
    "-k", "not resident_memory",
]  # fmt: skip
DECIDE = ["tests/test_decide.py", "tests/test_decide_edges.py", "tests/property/test_decide.py"]
CERTIFY = [
    "tests/fitting/test_certify.py", "tests/fitting/test_pvalues.py",
    "tests/fitting/test_betting.py", "tests/fitting/test_paths.py",
]  # fmt: skip
TARGETS = {
    "cache": ("cascade/cache.py", CACHE),
    "holdings": ("cascade/holdings.py", CACHE),
    "keys": ("cascade/keys.py", ["tests/test_keys.py", *CACHE]),
    "decide": ("cascade/decide.py", DECIDE),
    "certify": ("cascade/fitting/certify.py", CERTIFY),
    "pvalues": ("cascade/fitting/pvalues.py", CERTIFY),
    "betting": ("cascade/fitting/betting.py", CERTIFY),
    "paths": ("cascade/fitting/paths.py", CERTIFY),
    "loader": ("cascade/policy/loader.py", POLICY),
    "reading": ("cascade/policy/reading.py", READING),
    "beside": ("cascade/policy/beside.py", POLICY),
    "checks": ("cascade/policy/checks.py", POLICY),
    "walk": ("cascade/policy/walk.py", POLICY),
    "units": ("cascade/policy/units.py", POLICY),
    "constraints": ("cascade/policy/constraints.py", POLICY),
}
SLOW_IMPORTS = [
    "hypothesis.strategies", "jsonschema", "onnxruntime", "pytest", "rich.console",
    "ruamel.yaml", "scipy.stats", "xxhash", "yaml",
]  # fmt: skip
SECONDS = 90  # a mutant that takes longer is noticed

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATORS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
}  # fmt: skip


def variants(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what a node could have been by mistake."""
    if isinstance(node, ast.Compare):
        for i, operator in enumerate(node.ops):
            other = copy.deepcopy(node)
            other.ops[i] = COMPARISONS[type(operator)]()
            yield other
    elif isinstance(node, ast.BoolOp):
        other = copy.deepcopy(node)
        other.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield other
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield node.operand
    elif isinstance(node, (ast.BinOp, ast.AugAssign)) and type(node.op) in OPERATORS:
        changed = copy.deepcopy(node)
        changed.op = OPERATORS[type(node.op)]()
        yield changed
    elif isinstance(node, ast.IfExp):
        yield ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
        yield ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
    elif isinstance(node, (ast.Continue, ast.Break)):
        yield ast.Pass()


def mutants(source: str) -> Iterator[tuple[int, str, str]]:
    """Yield (line, what was changed, the whole module) for each change."""
    tree = ast.parse(source)
    places = [
        (parent, field, index, child)
        for parent in ast.walk(tree)
        for field, value in ast.iter_fields(parent)
        for index, child in enumerate(value if isinstance(value, list) else [value])
        if isinstance(child, ast.AST)
    ]
    for parent, field, index, child in places:
        for other in variants(child):
            ast.copy_location(other, child)
            held = getattr(parent, field)
            if isinstance(held, list):
                held[index] = other
            else:
                setattr(parent, field, other)
            what = f"{ast.unparse(child)}  →  {ast.unparse(other)}"
            yield getattr(child, "lineno", 0), what, ast.unparse(ast.fix_missing_locations(tree))
            if isinstance(held, list):
                held[index] = child
            else:
                setattr(parent, field, child)


def tested(folder: Path, tests: Sequence[str]) -> None:
    """Run the tests of a copy, in this process; it ends with the outcome."""
    import pytest

    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    os.chdir(folder)
    sys.path[:] = [str(folder), *(place for place in sys.path if place not in {"", str(ROOT)})]
    for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
        del sys.modules[name]  # the copy has its own
    sys.dont_write_bytecode = True
    few = ["-q", "-x", "-p", "no:cacheprovider", "--hypothesis-profile=few"]
    few += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # some plugins are imported already
    os._exit(pytest.main([*few, *tests]))


def survives(folder: Path, file: str, module: str, tests: Sequence[str]) -> bool:
    """Put a changed module into the copy, and run its tests and its examples."""
    (folder / file).write_text(module, encoding="utf-8")
    fork = multiprocessing.get_context("fork")
    child = fork.Process(target=tested, args=(folder, [*tests, file]))
    child.start()
    child.join(SECONDS)
    child.kill()
    child.join()
    return child.exitcode == 0


def copied(into: Path) -> Path:
    """Copy what the tests need."""
    for name in ("cascade", "tests", "examples"):
        shutil.copytree(ROOT / name, into / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "conftest.py"):
        shutil.copy(ROOT / name, into / name)
    return into


def run(name: str, folders: Sequence[Path]) -> None:
    """Print the survivors of one target; each folder holds one mutant at a time."""
    file, tests = TARGETS[name]
    source = (ROOT / file).read_text("utf-8")
    found = list(mutants(source))
    if not survives(folders[0], file, ast.unparse(ast.parse(source)), tests):
        sys.exit(f"{file}: the tests fail without a change")

    def share(i: int) -> list[tuple[int, str]]:
        left = [
            (line, what)
            for line, what, module in found[i :: len(folders)]
            if survives(folders[i], file, module, tests)
        ]
        (folders[i] / file).write_text(source, encoding="utf-8")
        return left

    with ThreadPoolExecutor(len(folders)) as pool:
        left = sorted(place for some in pool.map(share, range(len(folders))) for place in some)
    print(f"{file}: {len(found) - len(left)} of {len(found)} noticed", flush=True)
    for line, what in left:
        print(f"  {line}: {what}", flush=True)


def main(names: Sequence[str]) -> None:
    """Run the targets that are named, or all."""
    for module in SLOW_IMPORTS:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    with tempfile.TemporaryDirectory() as where:
        workers = len(os.sched_getaffinity(0))
        folders = [copied(Path(where) / str(i)) for i in range(workers)]
        for name in names or TARGETS:
            run(name, folders)


if __name__ == "__main__":
    main(sys.argv[1:])
