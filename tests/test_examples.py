from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_EXAMPLES = Path(__file__).parents[1] / "examples"


def _run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(_EXAMPLES / script), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=_EXAMPLES.parent,
        env={"PYTHONPATH": str(_EXAMPLES.parent), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_quickstart_says_who_answered() -> None:
    assert _run("quickstart.py").splitlines() == [
        "'claim your prize': spam (by rule, confident)",
        "'you are a winner': spam (by model, top)",
        "'lunch?': ham (by model, top)",
    ]


def test_quickstart_is_short() -> None:
    lines = (_EXAMPLES / "quickstart.py").read_text("utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) <= 15


def test_a_policy_on_a_bundle_is_made_once_and_served_twice(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    first = _run("onnx_policy/serve.py", str(bundle)).splitlines()[-1]
    assert first.startswith("297 requests: ")
    made = (bundle / "certificate.json").stat().st_mtime_ns
    assert _run("onnx_policy/serve.py", str(bundle)).splitlines()[-1] == first
    assert (bundle / "certificate.json").stat().st_mtime_ns == made
