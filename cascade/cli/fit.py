"""``cascade fit``: certify thresholds from a recording."""

from __future__ import annotations

import contextlib
import difflib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cascade.cli.edits import Edits, check_target
from cascade.cli.reply import Reply
from cascade.errors import CannotCertify, PolicyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cascade.fitting import Fit
    from cascade.policy import Certificate, Policy

__all__ = ["fit", "numbers"]


def fit(
    recording: Path, tiers: str | None, out: Path | None, policy: Path | None,
    plots: Path | None = None, **settings: Any,
) -> Reply:  # fmt: skip
    """Fit, and write what was found: to the folder ``out``, or into the user's own policy.

    What cannot be written is said before anything is fitted, and the plots come before the policy.

    Raises:
        CannotCertify: no point holds.
        RecordingError: the recording cannot be used.
        PolicyError: the policy has other tiers than those that were fitted, or a file cannot be
            written.
    """
    import cascade

    if policy is not None and out is not None:
        raise PolicyError("--out and --policy: give one of them")
    target = out or Path("cascade-policy")
    for path in (policy or target / "policy.yaml", *([] if plots is None else [plots / "x.png"])):
        check_target(path)
    names = None if tiers is None else [name.strip() for name in tiers.split(",")]
    before = None if policy is None else _before(policy)
    if before is not None:
        names = _tiers_of(before, names)
        settings |= {"ladder": "all", "entry": False}
        if settings["score"] == "auto" and _goes_by_margins(before):
            settings["score"] = "margin"
    try:
        with _progress() as progress:
            found = cascade.fit(recording, tiers=names, progress=progress, **settings)
    except CannotCertify as error:
        return _nothing(error, settings)
    drawn = [] if plots is None else [f"Plot: {path}" for path in _draw(found, plots)]
    said = [found.report(), ""]
    if policy is not None and before is not None:
        said += _merge(found, policy, before.certificate)
        written = policy
    else:
        written = found.save(target)
        said.append(f"Written: {written}")
    return Reply("\n".join([*said, *drawn]), {**found.to_dict(), "policy": str(written)})


def _merge(found: Fit, policy: Path, old: Certificate | None) -> list[str]:
    """Put a fit into the user's own policy, and return the lines that differ."""
    from cascade.fitting.files import merged
    from cascade.optimize.policy_text import promise_lines

    before, _ = merged(found, policy)
    edits = Edits(policy)
    if old is not None:  # a bundle says on top what it promises
        edits.comment(promise_lines(old), promise_lines(found.certificate))
        edits.save()
    return _difference(before, edits.text, policy)


def _before(policy: Path) -> Policy:
    """Read the policy as it is; certificate and tables may be of what was there before."""
    from cascade.policy import Policy
    from cascade.policy.loader import load

    return load(Policy, policy, {}, absent_ok=True, stale_ok=True)


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, float], None] | None]:
    """Show a bar where somebody looks at it: on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)


def _draw(found: Fit, folder: Path) -> list[Path]:
    """Save the plots that the recording allows."""
    from cascade.fitting.displays import CostLossDisplay, ReliabilityDisplay, RiskCoverageDisplay

    folder.mkdir(parents=True, exist_ok=True)
    shown: dict[str, Any] = {"risk": RiskCoverageDisplay.from_certificate(found.certificate)}
    if found.accuracy is not None:
        shown["cost"] = CostLossDisplay.from_recording(found.recording, found)
        shown["reliability"] = ReliabilityDisplay.from_recording(found.recording)
    for name, display in shown.items():
        display.plot().figure_.savefig(folder / f"{name}.png", dpi=130)
    return [folder / f"{name}.png" for name in shown]


def _tiers_of(policy: Policy, names: list[str] | None) -> list[str]:
    held = [spec.name for spec in policy.tiers]
    if names is not None and held != names:
        raise PolicyError(f"{policy.path}: has the tiers {held}, --tiers says {names}")
    return held


def _goes_by_margins(policy: Policy) -> bool:
    return any(spec.confidence.score == "margin" for spec in policy.tiers[:-1])


def _difference(before: str, after: str, path: Path) -> list[str]:
    lines = difflib.unified_diff(
        before.splitlines(),
        after.splitlines(),
        f"{path} (before)",
        f"{path} (now)",
        lineterm="",
        n=1,
    )
    return list(lines) or [f"{path}: only the certificate changed"]


def _nothing(error: CannotCertify, settings: dict[str, Any]) -> Reply:
    data = {
        "certified": False, "max_loss": settings["max_loss"], "alpha": settings["alpha"],
        "n": None, "losses": None, "thresholds": None, "escalation": None, "cost": None,
        "cost_top": None, "cost_oracle": None, "needed": error.needed, "policy": None,
    }  # fmt: skip
    return Reply("", data, (f"cannot certify: {error}",), 1)


def numbers(text: str | None) -> Sequence[float] | None:
    """Read ``0.01,1``.

    >>> numbers("0.01,1")
    [0.01, 1.0]
    """
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise PolicyError(f"--costs: expected numbers such as 0.01,1, got {text!r}") from None
