from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
    shares = re.fullmatch(r"297 requests: .*% right, (.*)% answered by .*, (.*)% by .*", first)
    assert shares is not None
    assert min(map(float, shares.groups())) > 5.0  # it is a cascade: both of them answer
    made = (bundle / "certificate.json").stat().st_mtime_ns
    assert _run("onnx_policy/serve.py", str(bundle)).splitlines()[-1] == first
    assert (bundle / "certificate.json").stat().st_mtime_ns == made


def test_another_policy_is_told_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("version: 1\n")
    script = str(_EXAMPLES / "onnx_policy" / "serve.py")
    done = subprocess.run(  # noqa: PLW1510  the status is what is tested
        [sys.executable, script, str(tmp_path)],
        capture_output=True, text=True, timeout=60, env={"PYTHONPATH": str(_EXAMPLES.parent)},
    )  # fmt: skip
    said = "expected a bundle that this example made; it has no requests.npz"
    assert (done.returncode, done.stderr) == (1, f"{tmp_path}: {said}\n")


def test_a_service_answers_over_http_and_stops_when_it_is_told(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    folder = _EXAMPLES / "asyncio_service"
    service = subprocess.Popen(
        [sys.executable, str(folder / "service.py"), str(tmp_path / "bundle"), port],
        cwd=_EXAMPLES.parent,
        env={"PYTHONPATH": str(_EXAMPLES.parent), "PATH": ""},
    )
    try:
        _wait_until_ready(port)
        said = _run("asyncio_service/load.py", port, "400").splitlines()
        assert said[0] == "400 of 400 answered, by large and small"
        assert said[1].startswith("over HTTP: p50 ")
        for status, text, body, headers in _REQUESTS:
            assert _asked(port, body, headers) == (status, text), (body, headers)
        service.send_signal(signal.SIGTERM)
        assert service.wait(30) in {0, -signal.SIGTERM}  # uvicorn passes the signal on
    finally:
        service.kill()
        service.wait()


_DIGIT = json.dumps([0.0] * 64)
_LATE = "no tier can answer in time: budget 0.001 µs"
_BODY = "body: expected a JSON list of 64 numbers"
_HEADER = "X-Deadline-Ms: expected a positive number of milliseconds"
_REQUESTS = [
    (200, None, _DIGIT, {}),
    (200, None, _DIGIT, {"X-Deadline-Ms": "1e3"}),
    *((400, _HEADER, _DIGIT, {"X-Deadline-Ms": x}) for x in ("soon", "", "0", "-5", "nan", "inf")),
    *((422, _BODY, x, {}) for x in ("", "{", "[1, 2", '{"x": 1}', '["a"]', "[null]", "[" * 9_999)),
    (422, "input 'input': float32 row of shape (64,) expected, got shape (3,)", "[1, 2, 3]", {}),
    (504, _LATE, _DIGIT, {"X-Deadline-Ms": "1e-6"}),
]


def _asked(port: str, body: str, headers: dict[str, str]) -> tuple[int, str | None]:
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
    connection.request("POST", "/predict", body, headers)
    response = connection.getresponse()
    said = json.loads(response.read()).get("error")
    connection.close()
    return response.status, said


def _wait_until_ready(port: str) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.05)
        finally:
            connection.close()
    pytest.fail("the service never came up")
