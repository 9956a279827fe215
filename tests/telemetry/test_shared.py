"""Metrics of several processes: nothing that befalls their folder reaches a caller."""

import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import cascade
from cascade import Policy, PolicyError, Router
from cascade.telemetry.shared import SharedMetrics, merge

COUNTER = "# HELP a text\n# TYPE a counter\na 1\n"


def router(folder, function=lambda x: x):
    tree = {
        "version": 1, "name": "p", "deadline": "5s", "tiers": [{"name": "it", "kind": "external"}],
    }  # fmt: skip
    tiers = {"it": cascade.tier(function, rows="one")}
    return Router(Policy.from_dict(tree), tiers=tiers, env={"CASCADE_METRICS_DIR": str(folder)})


def test_a_folder_that_cannot_be_written_to_is_named_and_nothing_is_opened(tmp_path):
    (tmp_path / "file").write_text("")
    it = router(tmp_path / "file" / "metrics")
    with pytest.raises(PolicyError, match=r"CASCADE_METRICS_DIR: .*file.metrics cannot be written"):
        it.warmup()
    assert not it.ready
    with pytest.raises(PolicyError, match="CASCADE_METRICS_DIR"):
        it.route("x")


def test_a_folder_that_is_removed_comes_back_and_closing_needs_none(tmp_path):
    folder = tmp_path / "metrics"
    with router(folder) as it:
        it.route("x")
        shutil.rmtree(folder)
        assert "cascade_requests_total{" in it.metrics()
        assert len(list(folder.glob("*.prom"))) == 1
        shutil.rmtree(folder)
        folder.write_text("no folder any more")
        assert "cascade_requests_total{" in it.metrics()
        assert it.route("y").value == "y"
    assert folder.is_file()


@pytest.mark.parametrize(
    "other",
    [
        "# TYPE a counter\na",
        "# TYPE a counter\na 1",  # perhaps of 12
        "# TYPE a counter\na x\n",
        "# TYPE a counter\na nan\n",
        "# TYPE a\na 1\n",
        "# TYPE\n",
    ],
)
def test_what_is_not_whole_is_left_out(other):
    assert merge(COUNTER, [other, COUNTER]) == COUNTER.replace("a 1", "a 2")


def test_files_that_are_unreadable_or_vanish_are_left_out(tmp_path):
    shared = SharedMetrics(tmp_path)
    (tmp_path / "1.prom").write_text(COUNTER)
    (tmp_path / "2.prom").write_bytes(b"\xff\xfe")
    (tmp_path / "3.prom").symlink_to(tmp_path / "gone")  # listed, and not there
    (tmp_path / "4.prom").mkdir()
    assert shared.all(COUNTER) == COUNTER.replace("a 1", "a 2")


def test_threads_that_ask_at_once_write_one_file(tmp_path):
    shared, gate = SharedMetrics(tmp_path), threading.Barrier(4)

    def scrape(_):
        gate.wait()
        return {shared.all(COUNTER) for _ in range(100)}

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(scrape, range(4))) == [{COUNTER}] * 4
    assert [path.suffix for path in tmp_path.iterdir()] == [".prom"]


def test_nothing_is_written_after_the_last_time(tmp_path):
    shared = SharedMetrics(tmp_path)
    shared.close(COUNTER)
    shared.write("older")
    (path,) = tmp_path.iterdir()
    assert path.read_text() == COUNTER


def test_what_ends_while_a_router_closes_is_in_its_file(tmp_path):
    begun, go = threading.Event(), threading.Event()

    def held(x):
        begun.set()
        assert go.wait(30.0)
        return x

    it = router(tmp_path, held)
    asking = threading.Thread(target=it.route, args=("x",))
    asking.start()
    assert begun.wait(30.0)
    closing = threading.Thread(target=it.close)
    closing.start()
    go.set()
    asking.join()
    closing.join()
    (path,) = tmp_path.glob(f"{os.getpid()}-*.prom")
    assert 'disposition="accepted",reason="top"} 1' in path.read_text()
