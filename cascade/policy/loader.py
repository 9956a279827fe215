"""From YAML or plain types to a policy, with the place of every problem."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from cascade.calibration import calibration_of
from cascade.errors import PolicyError
from cascade.policy.certificate import Certificate
from cascade.policy.digest import entry_digest, tier_digest
from cascade.policy.reading import parse
from cascade.policy.walk import KEY, walk
from cascade.types import Issue

if TYPE_CHECKING:
    from pathlib import Path

    from cascade.calibration import Calibration

__all__ = ["build", "dump", "load"]

P = TypeVar("P")
Places = Mapping[tuple[Any, ...], tuple[int, int]]
Given = Mapping[tuple[Any, ...], str]
"""Path → the environment variable that its value came from."""

_ENVIRONMENT = {
    "CASCADE_MODE": ("mode",),
    "CASCADE_DEADLINE": ("deadline",),
    "CASCADE_CACHE_BYTES": ("cache", "bytes"),
}
_WHOLE = re.compile(r"[0-9]{1,20}")
_NO_TABLE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)


def build(
    cls: type[P], data: Any, *, path: Path | None = None, places: Places | None = None,
    earlier: list[Issue] | None = None, given: Given | None = None, bare: bool = False,
) -> P:  # fmt: skip
    """Make a policy of plain types; every problem goes into one PolicyError, in file order.

    With ``bare``, calibrations that are not there are left out.
    """
    name = None if path is None or places is None else str(path)
    problems: list[Any] = []
    if isinstance(data, Mapping) and "version" not in data:
        problems.append((("version",), "missing; expected version: 1"))
    values: dict[str, Any] = {}
    try:
        made = walk(cls, data, (), problems)
    except PolicyError as error:  # conflicts between fields
        made = None
        problems += [(tuple(_step(s) for s in i.path.split(".")), i.message) for i in error.issues]
    issues = list(earlier or [])
    noted = {(issue.line, issue.column) for issue in issues}
    places, given = places or {}, given or {}
    for where, text in problems:
        variable = given.get(where) if given else None
        issue = _issue(variable or name, where, text, {} if variable else places)
        # a number that could not be read is no "nothing"
        if not noted or (issue.line, issue.column) not in noted:
            issues.append(issue)
    if issues or made is None:
        issues.sort(key=lambda i: (i.line or 0, i.column or 0))
        raise PolicyError("\n".join(map(str, issues)), issues)
    file = made.escalation.certificate
    if path is not None:
        made = attrs.evolve(made, calibrations=_calibrations(made, path.parent, bare=bare))
    if file is not None and path is not None:
        values["certificate"] = _certified(made, path.parent / file)
    policy: P = attrs.evolve(made, path=path, **values)
    return policy


def _step(text: str) -> Any:
    return int(text) if text.isdigit() else text


def _issue(name: str | None, path: tuple[Any, ...], text: str, places: Places) -> Issue:
    named = path[:-1] if path and path[-1] == KEY else path
    shown = ".".join(map(str, named))
    place, at = places.get(path), path
    while place is None and at:
        at = at[:-1]
        place = places.get(at)
    line, column = place or (None, None)
    return Issue(name, line, column, shown, text)


def _calibrations(policy: Any, folder: Path, *, bare: bool) -> dict[str, Calibration]:
    """Read the tables that the tiers name: a JSON object of tables by tier."""
    found = {}
    for spec in policy.tiers:
        name = spec.confidence.calibration
        if name is None or (bare and not (folder / name).exists()):
            continue
        try:
            found[spec.name] = calibration_of(
                json.loads((folder / name).read_text("utf-8"))[spec.name]
            )
        except OSError as error:
            raise PolicyError(f"{folder / name}: cannot be read: {error.strerror}") from error
        except _NO_TABLE as error:
            raise PolicyError(
                f"{folder / name}: no calibration of tier {spec.name!r}: {error}"
            ) from error
    return found


def _certified(policy: Any, file: Path) -> Certificate:
    certificate = Certificate.load(file)
    names = tuple(spec.name for spec in policy.tiers)
    if certificate.tiers != names:
        raise PolicyError(
            f"{file}: certifies the tiers {certificate.tiers}, the policy has {names}"
        )
    for spec in policy.tiers:
        if spec.confidence.calibration is not None and spec.name not in policy.calibrations:
            continue  # left out
        want = certificate.digests.get(spec.name)
        if want is not None and want != tier_digest(policy, spec):
            raise PolicyError(
                f"{file}: tier {spec.name!r}: model, score or calibration differ from those "
                f"certified; fit again"
            )
    entry = certificate.digests.get("entry")
    if entry is not None and entry != entry_digest(policy):
        raise PolicyError(f"{file}: the entry rule differs from the one certified; fit again")
    return certificate


def load(
    cls: type[P], path: Path, env: Mapping[str, str] | None, *, bare: bool = False
) -> P:  # fmt: skip
    """Read a policy file; with ``bare``, calibrations that are not there are left out."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read: {error.strerror}") from error
    data, places, issues = parse(raw, str(path))
    given: Given = {}
    if isinstance(data, dict):
        given = _override(data, os.environ if env is None else env)
    return build(cls, data, path=path, places=places, earlier=issues, given=given, bare=bare)


def _override(data: dict[str, Any], env: Mapping[str, str]) -> Given:
    """Let the environment win over the file; say where it did."""
    given = {}
    for name, path in _ENVIRONMENT.items():
        if name not in env:
            continue
        *inside, last = path
        tree: Any = data
        for key in inside:
            tree = tree.setdefault(key, {})
        if isinstance(tree, dict):  # else the file is wrong there, and that is what is reported
            tree[last] = int(env[name]) if _WHOLE.fullmatch(env[name]) else env[name]
            given[path] = name
    return given


def dump(tree: Mapping[str, Any]) -> str:
    """Return plain types as YAML."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    stream = io.StringIO()
    yaml.dump(dict(tree), stream)
    return stream.getvalue()
