"""Files are replaced whole; those that belong together all or none."""

from __future__ import annotations

import pytest

from cascade.files import all_or_none, replace_file


def test_a_file_keeps_its_mode_and_a_new_one_can_be_read_by_all(tmp_path):
    held, fresh = tmp_path / "held", tmp_path / "fresh"
    held.write_text("before")
    held.chmod(0o640)
    for path in (held, fresh):
        replace_file(path, b"after")
        assert path.read_bytes() == b"after"
    assert [path.stat().st_mode & 0o777 for path in (held, fresh)] == [0o640, 0o644]


def test_what_cannot_be_replaced_leaves_no_draft(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "folder", b"")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_files_that_belong_together_come_back(tmp_path, error):
    old, new, same = (tmp_path / name for name in ("old", "new", "same"))
    old.write_text("before")
    same.write_text("same")

    def write() -> None:
        replace_file(old, b"after")
        replace_file(new, b"after")
        raise error

    with pytest.raises(error), all_or_none([old, new, same]):
        write()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "old": "before", "same": "same",
    }  # fmt: skip


def test_what_succeeds_stays(tmp_path):
    with all_or_none([tmp_path / "new"]):
        replace_file(tmp_path / "new", b"after")
    assert (tmp_path / "new").read_bytes() == b"after"
