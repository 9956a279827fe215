"""``cascade doctor``: what is installed, what the machine offers, what is missing."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

from cascade.cli.owners import DISTRIBUTION, find_clashes
from cascade.cli.reply import DONE, FAILED, Reply, table
from cascade.cores import find_cores

if TYPE_CHECKING:
    from cascade.cores import Cores

__all__ = ["CORE", "EXTRAS", "doctor"]

CORE = (
    "attrs",
    "numpy",
    "onnxruntime",
    "pyyaml",
    "ruamel.yaml",
    "scikit-learn",
    "xxhash",
)
EXTRAS = {
    "cli": ("cyclopts", "rich"),
    "export": ("onnx", "skl2onnx"),
    "parquet": ("pyarrow",),
    "plot": ("matplotlib",),
    "quantize": ("onnx",),
    "serve": ("starlette", "uvicorn"),
    "demo": ("cyclopts", "matplotlib", "mlxtend", "onnx", "rich", "skl2onnx"),
}


def doctor() -> Reply:
    """Look at packages, providers, cores and the owners of the import name; change nothing."""
    core = {name: _version(name) for name in CORE}
    extras = {extra: {name: _version(name) for name in names} for extra, names in EXTRAS.items()}
    missing = _missing(core, extras)
    providers = [] if core["onnxruntime"] is None else _providers()
    cores = find_cores()
    clashes = find_clashes()
    broken = bool(clashes) or None in core.values()
    data: dict[str, Any] = {
        "ok": not broken,
        "cascade": _version(DISTRIBUTION),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": core,
        "extras": extras,
        "missing": missing,
        "providers": providers,
        "cores": cores.to_dict(),
        "clashes": clashes,
    }
    errors = tuple(f"import name clash: {clash}" for clash in clashes)
    return Reply(_text(data, cores), data, errors, FAILED if broken else DONE)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _providers() -> list[str]:
    from cascade.tiers.sessions import available_providers

    return available_providers()


def _missing(
    core: dict[str, str | None], extras: dict[str, dict[str, str | None]]
) -> dict[str, str]:
    """Map each incomplete set of packages to the line that installs it."""
    lines = {}
    if None in core.values():
        lines["core"] = f"pip install {DISTRIBUTION}"
    for extra, versions in extras.items():
        if None in versions.values():
            lines[extra] = f'pip install "{DISTRIBUTION}[{extra}]"'
    return lines


def _text(data: dict[str, Any], cores: Cores) -> str:
    optional = {
        name: version for group in data["extras"].values() for name, version in group.items()
    }
    limits = [
        f"{cores.affinity} by affinity",
        "no cgroup quota" if cores.quota is None else f"{cores.quota:g} by cgroup quota",
        f"÷ {cores.workers} workers (WEB_CONCURRENCY)" if cores.workers > 1 else "",
        f"at most {cores.cap} (CASCADE_CORES)" if cores.cap else "",
    ]
    rows = [
        ("cascade", data["cascade"] or "not installed as a distribution"),
        ("python", data["python"]),
        ("platform", data["platform"]),
        ("providers", ", ".join(data["providers"]) or "none"),
        ("cores", f"{cores.usable} usable: {', '.join(filter(None, limits))}"),
    ]
    parts = [
        table(rows, indent=""),
        "packages\n" + table([(n, v or "missing") for n, v in data["packages"].items()]),
        "optional\n" + table([(n, v or "missing") for n, v in sorted(optional.items())]),
    ]
    if data["missing"]:
        parts.append("to complete\n" + table([*data["missing"].items()]))
    name = "nobody else owns the import name 'cascade'"
    parts.append(
        name if not data["clashes"] else "uninstall what clashes, then reinstall cascade-router"
    )
    return "\n\n".join(parts)
