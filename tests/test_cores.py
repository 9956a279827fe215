from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cascade import PolicyError
from cascade.cores import Cores, find_cores, quota
from cascade.load import ServiceTime

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("cores", "usable"),
    [
        (Cores(affinity=8), 8),
        (Cores(affinity=8, quota=2.5), 2),
        (Cores(affinity=2, quota=16.0), 2),
        (Cores(affinity=8, workers=3), 2),
        (Cores(affinity=8, cap=3), 3),
        (Cores(affinity=2, cap=64), 2),
        (Cores(affinity=1, quota=0.1, workers=4), 1),
    ],
)
def test_usable_is_the_tightest_limit_and_at_least_one(cores: Cores, usable: int) -> None:
    assert cores.usable == usable
    assert cores.to_dict()["usable"] == usable


def test_environment_is_read_and_the_nonsense_of_others_ignored() -> None:
    cores = find_cores({"WEB_CONCURRENCY": "4", "CASCADE_CORES": "2"})
    assert (cores.workers, cores.cap) == (4, 2)
    assert find_cores({"WEB_CONCURRENCY": "many"}).workers == 1
    assert find_cores({}).cap is None


@pytest.mark.parametrize("text", ["-1", "0", "two", "", "1.5", "9" * 5_000])
def test_nonsense_of_our_own_is_refused(text: str) -> None:
    with pytest.raises(PolicyError, match="CASCADE_CORES: expected a whole number above 0, got"):
        find_cores({"CASCADE_CORES": text})


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_unified_quota_is_the_tightest_of_the_groups_above(tmp_path: Path) -> None:
    _write(tmp_path / "self", "0::/app/worker\n")
    _write(tmp_path / "fs/app/worker/cpu.max", "max 100000\n")
    _write(tmp_path / "fs/app/cpu.max", "150000 100000\n")
    assert quota(tmp_path / "fs", tmp_path / "self") == 1.5


def test_quota_of_version_one(tmp_path: Path) -> None:
    _write(tmp_path / "self", "4:memory:/x\n3:cpu,cpuacct:/x\n")
    _write(tmp_path / "fs/cpu,cpuacct/x/cpu.cfs_quota_us", "50000\n")
    _write(tmp_path / "fs/cpu,cpuacct/x/cpu.cfs_period_us", "100000\n")
    _write(tmp_path / "fs/memory/x/cpu.max", "1 100000\n")
    assert quota(tmp_path / "fs", tmp_path / "self") == 0.5


@pytest.mark.parametrize("content", ["max 100000", "-1 100000", "0 0", "", "one two"])
def test_no_limit_and_unreadable_limits(tmp_path: Path, content: str) -> None:
    _write(tmp_path / "self", "0::/\n")
    _write(tmp_path / "fs/cpu.max", content)
    assert quota(tmp_path / "fs", tmp_path / "self") is None
    assert quota(tmp_path / "fs", tmp_path / "absent") is None


def test_no_rows_teach_nothing_of_a_tiers_speed():
    service = ServiceTime()
    before = service.eta()
    service.observe_rows(5_000_000_000, 0)
    assert service.eta() == before
