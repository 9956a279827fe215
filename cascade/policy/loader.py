"""From YAML or plain types to a policy, with the place of every problem."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from cascade.calibration import calibration_of
from cascade.errors import PolicyError
from cascade.policy.certificate import Certificate
from cascade.policy.digest import entry_digest, tier_digest
from cascade.policy.walk import KEY, walk
from cascade.types import Issue

if TYPE_CHECKING:
    from pathlib import Path

    from cascade.calibration import Calibration

__all__ = ["build", "dump", "load"]

P = TypeVar("P")
Places = Mapping[tuple[Any, ...], tuple[int, int]]
_ENVIRONMENT = {
    "CASCADE_MODE": ("mode",),
    "CASCADE_DEADLINE": ("deadline",),
    "CASCADE_CACHE_BYTES": ("cache", "bytes"),
}
_MAX_BYTES, _MAX_DEPTH, _MAX_NODES, _MAX_DIGITS = 64 * 1024, 20, 10_000, 20


def build(
    cls: type[P], data: Any, *, path: Path | None = None, places: Places | None = None,
    earlier: list[Issue] | None = None,
) -> P:  # fmt: skip
    """Make a policy of plain types; every problem goes into one PolicyError, in file order."""
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
    issues = [*(earlier or []), *(_issue(name, p, text, places or {}) for p, text in problems)]
    if issues or made is None:
        issues.sort(key=lambda i: (i.line or 0, i.column or 0))
        raise PolicyError("\n".join(map(str, issues)), issues)
    file = made.escalation.certificate
    if path is not None:
        made = attrs.evolve(made, calibrations=_calibrations(made, path.parent))
    if file is not None and path is not None:
        values["certificate"] = _certified(made, path.parent / file)
    policy: P = attrs.evolve(made, path=path, **values)
    return policy


def _step(text: str) -> Any:
    return int(text) if text.isdigit() else text


def _issue(name: str | None, path: tuple[Any, ...], text: str, places: Places) -> Issue:
    shown = ".".join(str(s) for s in path if s != KEY)
    at = path
    while at and at not in places:
        at = at[:-1]
    line, column = places.get(at, (None, None))
    return Issue(name, line, column, shown, text)


def _calibrations(policy: Any, folder: Path) -> dict[str, Calibration]:
    """Read the tables that the tiers name: a JSON object of tables by tier."""
    found = {}
    for spec in policy.tiers:
        name = spec.confidence.calibration
        if name is None:
            continue
        try:
            found[spec.name] = calibration_of(
                json.loads((folder / name).read_text("utf-8"))[spec.name]
            )
        except OSError as error:
            raise PolicyError(f"{folder / name}: cannot be read: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
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


def load(cls: type[P], path: Path, env: Mapping[str, str] | None) -> P:
    """Read a policy file."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise PolicyError(f"{path}: cannot be read: {error.strerror}") from error
    data, places, issues = parse(raw, str(path))
    if isinstance(data, dict):
        _override(data, os.environ if env is None else env)
    return build(cls, data, path=path, places=places, earlier=issues)


def _override(data: dict[str, Any], env: Mapping[str, str]) -> None:
    """Let the environment win over the file."""
    for name, path in _ENVIRONMENT.items():
        if name in env:
            *inside, last = path
            tree = data
            for key in inside:
                tree = tree.setdefault(key, {})
            tree[last] = int(env[name]) if env[name].isdigit() else env[name]


def parse(raw: bytes, name: str) -> tuple[Any, dict[tuple[Any, ...], tuple[int, int]], list[Issue]]:
    """Return plain data, the place of every path, and the problems of the YAML itself."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    text = _decode(raw, name)
    yaml = YAML(typ="safe", pure=True)
    try:
        _refuse_events(yaml, text, name)
        node = yaml.compose(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (None, None) if mark is None else (mark.line + 1, mark.column + 1)
        issue = Issue(name, line, column, "", f"not YAML: {error.problem}")
        raise PolicyError(str(issue), [issue]) from None
    except YAMLError as error:
        raise PolicyError(f"{name}: not YAML") from error
    places: dict[tuple[Any, ...], tuple[int, int]] = {}
    issues: list[Issue] = []
    if node is None:
        raise PolicyError(
            f"{name}:1:1: empty; expected a policy",
            [Issue(name, 1, 1, "", "empty; expected a policy")],
        )
    return _plain(node, (), places, issues, name), places, issues


def _decode(raw: bytes, name: str) -> str:
    if len(raw) > _MAX_BYTES:
        raise PolicyError(f"{name}: {len(raw)} bytes; expected at most {_MAX_BYTES}")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise PolicyError(f"{name}: not UTF-8") from None
    if "\0" in text:
        raise PolicyError(f"{name}: holds a NUL byte")
    return text


def _refuse_events(yaml: Any, text: str, name: str) -> None:
    depth = nodes = documents = 0
    for event in yaml.parse(io.StringIO(text)):
        kind = type(event).__name__
        at = event.start_mark
        wrong = None
        if kind == "AliasEvent" or getattr(event, "anchor", None):
            wrong = "anchors and aliases are refused"
        elif getattr(event, "tag", None) or getattr(event, "ctag", None):
            wrong = "tags are refused"
        documents += kind == "DocumentStartEvent"
        nodes += kind in {"ScalarEvent", "MappingStartEvent", "SequenceStartEvent"}
        depth += kind in {"MappingStartEvent", "SequenceStartEvent"}
        depth -= kind in {"MappingEndEvent", "SequenceEndEvent"}
        if documents > 1:
            wrong = "one document expected"
        if depth > _MAX_DEPTH or nodes > _MAX_NODES:
            wrong = "nested too deeply, or too large"
        if wrong is not None:
            issue = Issue(name, at.line + 1, at.column + 1, "", wrong)
            raise PolicyError(str(issue), [issue])


def _plain(node: Any, path: tuple[Any, ...], places: Any, issues: list[Issue], name: str) -> Any:
    places[path] = at = (node.start_mark.line + 1, node.start_mark.column + 1)
    kind = type(node).__name__
    if kind == "MappingNode":
        found: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            where = (key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            dotted = ".".join(map(str, (*path, key)))
            if key == "<<":
                issues.append(Issue(name, *where, dotted, "merge keys are refused"))
                continue
            if key in found:
                issues.append(Issue(name, *where, dotted, "duplicate key"))
                continue
            places[*path, key, KEY] = where
            found[key] = _plain(value_node, (*path, key), places, issues, name)
        return found
    if kind == "SequenceNode":
        return [_plain(v, (*path, i), places, issues, name) for i, v in enumerate(node.value)]
    try:
        return _scalar(node)
    except ValueError as error:
        issues.append(Issue(name, *at, ".".join(map(str, path)), str(error)))
        return None


def _scalar(node: Any) -> Any:
    text, tag = node.value, str(node.tag).rpartition(":")[2]
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true" if text.lower() in {"true", "false"} else text
    if tag in {"int", "float"}:
        if sum(ch.isdigit() for ch in text) > _MAX_DIGITS:
            raise ValueError(f"expected a number of at most {_MAX_DIGITS} digits")
        bare = text.replace("_", "")
        try:
            return int(bare) if tag == "int" and bare.lstrip("+-").isdigit() else float(bare)
        except ValueError:
            return float("nan") if "nan" in text.lower() else text
    return text


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Yield (path, value) of every leaf."""
    items = (
        tree.items()
        if isinstance(tree, Mapping)
        else enumerate(tree)
        if isinstance(tree, list)
        else None
    )
    if items is None:
        yield path, tree
        return
    for key, value in items:
        yield from leaves(value, (*path, key))


def dump(tree: Mapping[str, Any]) -> str:
    """Return plain types as YAML."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    stream = io.StringIO()
    yaml.dump(dict(tree), stream)
    return stream.getvalue()
