"""Change the code in small ways, one at a time, and see whether a test notices.

``python -m tests.mutation cache`` (or another of the names below) prints the mutants that survive
its tests; docs/mutants.md judges them. The repository itself is not touched: it is copied, and
changed in the copy.
"""

from __future__ import annotations

import ast
import copy
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[1]
POLICY = ["tests/policy", "tests/test_strategies.py"]
CACHE = ["tests/test_cache.py", "tests/test_cache_hostile.py"]
TARGETS = {
    "cache": ("cascade/cache.py", CACHE),
    "keys": ("cascade/keys.py", ["tests/test_keys.py", *CACHE]),
    "loader": ("cascade/policy/loader.py", POLICY),
    "reading": ("cascade/policy/reading.py", POLICY),
    "walk": ("cascade/policy/walk.py", POLICY),
    "units": ("cascade/policy/units.py", POLICY),
    "constraints": ("cascade/policy/constraints.py", POLICY),
}
SECONDS = 120  # a mutant that takes longer is noticed

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


def survives(folder: Path, file: str, module: str, tests: Sequence[str]) -> bool:
    """Put a changed module into the copy, and run its tests."""
    (folder / file).write_text(module, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def copied(into: Path) -> Path:
    """Copy what the tests need."""
    for name in ("cascade", "tests", "examples"):
        shutil.copytree(ROOT / name, into / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "conftest.py"):
        shutil.copy(ROOT / name, into / name)
    return into


def main(names: Sequence[str], workers: int = 2) -> None:
    """Print the survivors of each target, and how many were killed."""
    for name in names or TARGETS:
        file, tests = TARGETS[name]
        source = (ROOT / file).read_text("utf-8")
        found = list(mutants(source))
        with tempfile.TemporaryDirectory() as where:
            folders = [copied(Path(where) / str(i)) for i in range(workers)]
            if not survives(folders[0], file, ast.unparse(ast.parse(source)), tests):
                sys.exit(f"{file}: the tests fail without a change")

            def share(i: int, folders: list[Path] = folders) -> list[tuple[int, str]]:
                return [
                    (line, what)
                    for line, what, module in found[i::workers]  # noqa: B023  used at once
                    if survives(folders[i], file, module, tests)  # noqa: B023
                ]

            with ThreadPoolExecutor(workers) as pool:
                left = sorted(itertools.chain(*pool.map(share, range(workers))))
        print(f"{file}: {len(found) - len(left)} of {len(found)} noticed", flush=True)
        for line, what in left:
            print(f"  {line}: {what}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
