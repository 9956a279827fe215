"""Runs every snippet of README.md and docs/: Python as it stands, YAML as a policy."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from sybil import Sybil
from sybil.evaluators.doctest import NUMBER
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser


def _policy(example: Any) -> None:
    """Load a policy that is shown; models need not be there for that."""
    from cascade import Policy

    path = Path("shown.yaml")
    path.write_text(example.parsed, encoding="utf-8")
    Policy.from_yaml(path, env={})


def _enter(namespace: dict[str, Any]) -> None:
    """Run a document in a folder of its own: snippets may write files."""
    namespace["_folder"] = tempfile.TemporaryDirectory()
    namespace["_before"] = Path.cwd()
    os.chdir(namespace["_folder"].name)


def _leave(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["_before"])
    namespace["_folder"].cleanup()


pytest_collect_file = Sybil(
    parsers=[
        PythonCodeBlockParser(doctest_optionflags=NUMBER),
        CodeBlockParser(language="yaml", evaluator=_policy),
    ],
    patterns=["README.md", "docs/*.md"],
    setup=_enter,
    teardown=_leave,
).pytest()
