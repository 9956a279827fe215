"""The table of faults in the documentation names tests that there are, and figures."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_row_names_tests_that_there_are():
    rows = [
        line.split("|")[1:-1]
        for line in (ROOT / "docs" / "faults.md").read_text("utf-8").splitlines()
        if line.startswith("| ") and line.count("|") == 5
    ]
    named = 0
    for fault, _, how, measured in rows[1:]:
        assert measured.strip() or fault.strip().startswith("**"), fault
        source = ""
        for word in re.findall(r"`([^`]+)`", how):
            if word.endswith(".py"):
                source = (ROOT / word.replace("…", "tests/faults")).read_text("utf-8")
            else:
                named_so = rf"def (test_)?\w*{word}|\n{word} ="
                assert re.search(named_so, source), (fault, word)
            named += 1
        assert source or fault.strip().startswith("**"), fault
    assert named > 60
