"""From YAML or plain types to a policy, with the place of every problem."""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from cascade.calibration import calibration_of
from cascade.errors import PolicyError
from cascade.policy.beside import place, read_file, read_object
from cascade.policy.certificate import Certificate
from cascade.policy.checks import conflicts
from cascade.policy.digest import entry_digest, tier_digest
from cascade.policy.reading import bare, parse
from cascade.policy.walk import SAID, UNREAD, Draft, Unread, dotted, nearest, read, refusal, shown
from cascade.types import Issue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cascade.calibration import Calibration
    from cascade.policy.beside import Beside
    from cascade.policy.walk import Problem

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
_CERTIFICATE = ("escalation", "certificate")
_TABLES = 16_000_000  # bytes of a file: tens of thousands of labels
_NAMED = 100  # tiers of a file that a misspelt name is compared with: as many as a ladder may have
_READ = 1_000_000  # bytes; of a file up to here it is said how long it is


def build(
    cls: type[P], data: Any, *, path: Path | None = None, places: Places | None = None,
    earlier: list[Issue] | None = None, given: Given | None = None, absent_ok: bool = False,
    stale_ok: bool = False,
) -> P:  # fmt: skip
    """Make a policy of plain types; every problem goes into one PolicyError, in file order.

    What stands beside it is read too, and held against it where the policy itself is sound.
    With ``absent_ok``, calibrations that are not there are left out; with ``stale_ok`` the
    certificate may be of other tiers, or still to come.
    """
    name = None if path is None or places is None else str(path)
    problems: list[Problem] = []
    values = read(cls, data, (), problems)
    if isinstance(data, Mapping) and "version" not in data and "version" in values:
        problems.append((("version",), "missing; expected version: 1"))
    wrong = _Wrong()
    if path is not None:
        held = Draft(values)
        values |= _beside(held, path.parent, wrong, absent_ok=absent_ok, stale_ok=stale_ok)
    problems += [*wrong.problems, *conflicts(Draft({"certificate": None, **values}))]
    issues = list(earlier or [])
    for where, said in problems:
        if said != SAID:
            issues.append(_issue(name, where, said, places or {}, given or {}))
    issues.sort(key=lambda i: (i.line or 0, i.column or 0))
    issues += dict.fromkeys(wrong.issues)
    if not issues:
        make: Any = cls
        made: P = make(**values, path=path)
        differing = [] if stale_ok else _differing(made)
        issues += [_issue(name, _CERTIFICATE, said, places or {}, {}) for said in differing]
    if issues:
        raise refusal(issues)
    return made


def _issue(
    name: str | None, path: tuple[Any, ...], said: str, places: Places, given: Given
) -> Issue:
    variable = given.get(path)
    line, column = (None, None) if variable else place(places, path)
    return Issue(variable or name, line, column, dotted(path), said)


class _Wrong:
    """What is wrong with the files that a policy names: in one of them, or with one as a whole."""

    def __init__(self) -> None:
        self.issues: list[Issue] = []  # each has a place in its file
        self.problems: list[Problem] = []  # each is told at the key that names the file

    def add(self, key: tuple[Any, ...], error: PolicyError) -> None:
        """Take what is wrong with the file that ``key`` names."""
        for issue in error.issues:
            if issue.line is None:
                self.problems.append((key, str(issue)))
            else:
                self.issues.append(issue)


def _beside(
    draft: Any, folder: Path, wrong: _Wrong, *, absent_ok: bool, stale_ok: bool
) -> dict[str, Any]:
    """Read the certificate and the tables that the tiers name, of a policy that may hold problems.

    Each file is read once, and all that is wrong goes to ``wrong``.
    """
    calibrations: dict[str, Calibration] = {}
    found: dict[str, Any] = {"calibrations": calibrations}
    files: dict[str, Beside | PolicyError] = {}
    for index, table, name in _tables(draft):
        if absent_ok and not (folder / table).exists():
            continue
        try:
            if table not in files:
                files[table] = _opened(folder / table)
            calibrations[name] = _calibration(files[table], name)
        except PolicyError as error:
            wrong.add(("tiers", index, "confidence", "calibration"), error)
    try:
        file = draft.escalation.certificate
        if file is not None and not (stale_ok and not (folder / file).exists()):
            found["certificate"] = Certificate.load(folder / file)
    except PolicyError as error:
        wrong.add(_CERTIFICATE, error)
    except Unread:
        pass
    return found


def _tables(draft: Any) -> Iterator[tuple[int, str, str]]:
    try:
        tiers = draft.tiers
    except Unread:
        return
    for index, spec in enumerate(tiers):
        try:
            if spec.confidence.calibration is not None:
                yield index, spec.confidence.calibration, spec.name
        except Unread:
            continue


def _opened(path: Path) -> Beside | PolicyError:
    try:
        return read_object(path, "calibrations by tier", _TABLES)
    except PolicyError as error:
        return error


def _calibration(held: Beside | PolicyError, name: str) -> Calibration:
    """Return a tier's table of a file: a JSON object of tables by tier."""
    if isinstance(held, PolicyError):
        raise held
    if name not in held.tree:
        near = nearest(name, itertools.islice(held.tree, _NAMED))
        said = f"no calibration of tier {shown(name)}; {near}"
        raise held.refusal([((), said)])
    try:
        return calibration_of(held.tree[name])
    except (ValueError, TypeError, OverflowError) as error:
        said = f"no calibration of tier {shown(name)}: {error}"
        raise held.refusal([((name,), said)]) from None


def _differing(policy: Any) -> Iterator[str]:
    """Say where a certificate is of other tiers than these."""
    certificate = policy.certificate
    if certificate is None or policy.path is None:
        return
    file = policy.path.parent / policy.escalation.certificate
    for said in _uncertified(policy, certificate):
        yield f"{file}: {said}"


def _uncertified(policy: Any, certificate: Certificate) -> Iterator[str]:
    names = tuple(spec.name for spec in policy.tiers)
    if certificate.tiers != names:
        yield (
            f"certifies the tiers {', '.join(map(shown, certificate.tiers))}, "
            f"the policy has {', '.join(map(shown, names))}"
        )
        return
    digests = certificate.digests
    for spec in policy.tiers:
        if spec.confidence.calibration is not None and spec.name not in policy.calibrations:
            continue  # left out
        want = digests.get(spec.name)
        if want is None and any(name in digests for name in names):
            yield f"digests: none of tier {shown(spec.name)}, but of others; fit again"
        elif want is not None and want != tier_digest(policy, spec):
            remedy = "fit again"
            if spec.kind == "onnx" and spec.sha256 is None:
                remedy = "if it is only that sha256 is missing: cascade pin; else fit again"
            yield (
                f"tier {shown(spec.name)}: model, score or calibration differ from those "
                f"certified; {remedy}"
            )
    entry = digests.get("entry")
    cuts = any(point.skip_above for point in policy.points)
    if entry is None and cuts and len(names) > 2 and digests:  # of two, the other one is the top
        yield (
            "was tested without an entry rule, and the policy's complexity enters above the first "
            "tier (skip_above); take it out"
        )
    if entry is not None and entry != entry_digest(policy):
        yield "the entry rule differs from the one certified; fit again"


def load(
    cls: type[P], path: Path, env: Mapping[str, str] | None, *, absent_ok: bool = False,
    stale_ok: bool = False,
) -> P:  # fmt: skip
    """Read a policy file.

    With ``absent_ok``, calibrations that are not there are left out; with ``stale_ok`` the
    certificate may be of other tiers or still to come, as where one is about to be written.
    """
    try:
        raw = read_file(path, _READ)
    except OSError as error:
        raise refusal(
            [Issue(str(path), None, None, "", f"cannot be read: {error.strerror}")]
        ) from None
    data, places, issues = parse(raw, str(path))
    given: Given = {}
    if isinstance(data, dict):
        given, more = _override(data, os.environ if env is None else env)
        issues = more + issues
    return build(
        cls, data, path=path, places=places, earlier=issues, given=given, absent_ok=absent_ok,
        stale_ok=stale_ok,
    )  # fmt: skip


def _override(data: dict[str, Any], env: Mapping[str, str]) -> tuple[Given, list[Issue]]:
    """Let the environment win over the file; say where it did, and what could not be read.

    A variable says what the same words in the file would say, and makes no section of its own: the
    size of a cache is that of a cache which the policy has.
    """
    given, issues = {}, []
    for name, path in _ENVIRONMENT.items():
        *inside, last = path
        tree: Any = data
        for key in inside:
            tree = tree.get(key)
        if name not in env or not isinstance(tree, dict):  # a section that is none is the file's
            continue
        try:
            tree[last] = bare(env[name])
        except ValueError as error:
            tree[last] = UNREAD
            issues.append(Issue(name, None, None, dotted(path), str(error)))
        given[path] = name
    return given, issues


def dump(tree: Mapping[str, Any]) -> str:
    """Return plain types as YAML."""
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    stream = io.StringIO()
    yaml.dump(dict(tree), stream)
    return stream.getvalue()
