from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import cascade
from cascade.cli.owners import find_clashes


def _install(site: Path, name: str, files: dict[str, str], top_level: str = "") -> None:
    """Lay out a distribution as an installer would."""
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    written = {**files, f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"}
    if top_level:
        written[f"{info}/top_level.txt"] = top_level
    record = []
    for path, text in written.items():
        target = site / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        record.append(f"{path},sha256={digest.decode()},{len(text)}")
    (site / info / "RECORD").write_text("\n".join([*record, f"{info}/RECORD,,"]))


def _ours(site: Path) -> Path:
    _install(
        site, "cascade-router", {"cascade/__init__.py": "", "cascade/cli/__init__.py": "x = 1"}
    )
    return (site / "cascade").resolve()


def test_alone_there_is_no_clash(tmp_path: Path) -> None:
    here = _ours(tmp_path)
    _install(tmp_path, "numpy-like", {"numpy_like/__init__.py": ""}, top_level="numpy_like\n")
    assert find_clashes([str(tmp_path)], here) == []


def test_another_distribution_with_files_in_the_package(tmp_path: Path) -> None:
    here = _ours(tmp_path)
    _install(tmp_path, "cascade-ml", {"cascade/ml.py": ""})
    assert find_clashes([str(tmp_path)], here) == [
        "cascade-ml 1.0 also ships an import package 'cascade'"
    ]


def test_another_distribution_that_says_so_in_top_level(tmp_path: Path) -> None:
    here = _ours(tmp_path)
    _install(tmp_path, "cascade_llm", {}, top_level="cascade\n")
    (clash,) = find_clashes([str(tmp_path)], here)
    assert clash.startswith("cascade_llm 1.0 ")


def test_an_editable_install_elsewhere(tmp_path: Path) -> None:
    here = _ours(tmp_path / "site")
    source = tmp_path / "elsewhere"
    (source / "cascade").mkdir(parents=True)
    (source / "cascade" / "__init__.py").write_text("")
    _install(tmp_path / "site", "cascade-inference", {"_inference.pth": f"{source}\n"})
    (clash,) = find_clashes([str(tmp_path / "site")], here)
    assert clash.startswith("cascade-inference 1.0 ")


def test_our_own_editable_install_is_no_clash(tmp_path: Path) -> None:
    here = _ours(tmp_path / "source")
    site = tmp_path / "site"
    _install(site, "Cascade_Router", {"_cascade_router.pth": f"{here.parent}\n"})
    assert find_clashes([str(site), str(here.parent)], here) == []


def test_files_of_ours_that_another_install_overwrote(tmp_path: Path) -> None:
    here = _ours(tmp_path)
    (tmp_path / "cascade" / "__init__.py").write_text("print('someone else')")
    (tmp_path / "cascade" / "cli" / "__init__.py").unlink()
    (clash,) = find_clashes([str(tmp_path)], here)
    assert clash.startswith("2 files of cascade-router, overwritten or removed by another")
    (tmp_path / "cascade" / "__init__.py").write_text("")
    (clash,) = find_clashes([str(tmp_path)], here)
    assert clash.startswith("1 file of cascade-router, overwritten or removed by another")
    assert clash.endswith("install: cascade/cli/__init__.py")


def test_a_stray_module_on_the_path(tmp_path: Path) -> None:
    here = _ours(tmp_path / "site")
    stray = tmp_path / "work" / "cascade.py"
    stray.parent.mkdir()
    stray.write_text("")
    (clash,) = find_clashes([str(tmp_path / "work"), str(tmp_path / "site")], here)
    assert clash.startswith(str(stray))


def test_this_very_environment() -> None:
    assert Path(cascade.__file__).resolve().parent.name == "cascade"
    assert find_clashes() == []


def test_a_record_without_sha256_is_not_doubted(tmp_path: Path) -> None:
    here = _ours(tmp_path)
    record = tmp_path / "cascade_router-1.0.dist-info" / "RECORD"
    lines = [line.split(",") for line in record.read_text().splitlines()]
    record.write_text("\n".join(f"{name},md5=abc,{size}" for name, _, size in lines))
    (tmp_path / "cascade" / "__init__.py").write_text("print('someone else')")
    assert find_clashes([str(tmp_path)], here) == []
