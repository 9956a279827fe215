"""Settings that all tests share."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

# A shared machine is no stopwatch: examples are not failed for being slow.
hypothesis.settings.register_profile("cascade", deadline=None, print_blob=True)
hypothesis.settings.register_profile(  # for tests/mutation.py, which runs them by the hundred
    "few", hypothesis.settings.get_profile("cascade"), max_examples=50, database=None,
    derandomize=True,
)  # fmt: skip
hypothesis.settings.load_profile("cascade")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real recordings beside the repository."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no shared recordings beside this repository")
    return folder
