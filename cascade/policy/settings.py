"""The settings of a policy, section by section: one class each, for the walker and the schema."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

import attrs

from cascade.errors import PolicyError
from cascade.policy import constraints as c
from cascade.policy.constraints import field, settings
from cascade.policy.walk import SAID, UNREAD, fields_of, hint, shown, slips
from cascade.registry import TIERS, plugin, plugin_names

__all__ = [
    "KINDS",
    "AllowanceSettings",
    "BatchSettings",
    "BreakerSettings",
    "CacheSettings",
    "ComplexityRule",
    "ConfidenceSettings",
    "Escalation",
    "ExternalSpec",
    "FunctionVersion",
    "InputSettings",
    "LoadSettings",
    "OnnxSpec",
    "OutputSettings",
    "TierSpec",
    "WorkerSettings",
    "any_kind",
    "kind_settings",
    "known_kinds",
    "spec_class",
]


@settings
class OutputSettings:
    """Which outputs of a model to fetch, and what they are; a bare word is the kind."""

    SHORTHAND: ClassVar[str] = "kind"
    kind: str = field(
        c.choice(("probabilities", "logits", "sigmoid", "label", "value")), "What the output is."
    )
    name: str | None = field(c.text(), "The model's output.", default=None)
    confidence: str | None = field(c.text(), "The output that holds the confidence.", default=None)


@settings
class ConfidenceSettings:
    """How confidence is computed; a bare word is the score."""

    SHORTHAND: ClassVar[str] = "score"
    score: str = field(
        c.choice(("auto", "max_probability", "margin", "supplied")), "The score.", default="auto"
    )
    temperature: float = field(
        c.number(0.0, open_low=True), "Divides log-probabilities or logits.", default=1.0
    )
    calibration: str | None = field(
        c.text(), "File of what a confidence means, label by label.", default=None
    )


@settings
class BatchSettings:
    """How requests that wait for one tier are run together."""

    max_size: int = field(c.integer(1, 4096), "Rows per run, at most.")
    pad: Any = field(
        c.numbers_by_name(), "Fills up rows of unequal length, per input.", default=None
    )


@settings
class WorkerSettings:
    """How many runs of a tier go on at a time; a bare number is both bounds.

    >>> OnnxSpec(name="a", model="a.onnx", workers=2).workers.low
    2
    """

    SHORTHAND: ClassVar[str] = "max"
    BARE: ClassVar[bool] = True  # written as the bare number where that says it all
    min: int | None = field(c.integer(1, 256), "At least.", default=None)
    max: int = field(c.integer(1, 256), "At most.")

    @property
    def low(self) -> int:
        """The lower bound."""
        return self.max if self.min is None else self.min


@settings
class BreakerSettings:
    """When a tier that mostly fails is left alone."""

    rate: float = field(c.fraction(), "The share of calls that failed.", default=0.5)
    minimum: int = field(c.integer(1, 500), "Of so many calls at least.", default=20)
    window: float = field(c.duration(), "Within this time.", default=10.0)
    pause: float = field(c.duration(), "Until one call is let through.", default=5.0)


@settings
class TierSpec:
    """One tier of the ladder, cheapest first.

    >>> OnnxSpec(name="small", model="small.onnx").kind
    'onnx'
    """

    kind: ClassVar[str] = ""
    TAGS: ClassVar[tuple[str, ...]] = ("kind",)
    name: str = field(
        c.text(r"^[A-Za-z0-9_.-]+$", "a name of letters, digits, _ . -"), "The tier's name."
    )
    outputs: OutputSettings | None = field(
        c.section(OutputSettings), "The outputs to fetch.", default=None
    )
    confidence: ConfidenceSettings = field(
        c.section(ConfidenceSettings), "Score and temperature.", factory=ConfidenceSettings
    )
    classes: tuple[Any, ...] | None = field(
        c.label_list(), "Where its order differs.", default=None
    )
    execution: str = field(
        c.choice(("auto", "inline", "worker", "process")), "Where it runs.", default="auto"
    )
    workers: WorkerSettings | None = field(
        c.section(WorkerSettings), "Runs at a time, when not inline.", default=None
    )
    queue: int = field(c.integer(1, 100_000), "Requests that may wait for it.", default=256)
    batch: BatchSettings | None = field(
        c.section(BatchSettings), "Rows run together.", default=None
    )
    breaker: BreakerSettings | None = field(
        c.section(BreakerSettings), "Leaves a failing tier alone.", default=None
    )


@settings
class OnnxSpec(TierSpec):
    """An ONNX model."""

    kind: ClassVar[str] = "onnx"
    model: str = field(c.text(), "The model file.")
    sha256: str | None = field(
        c.text(r"^[0-9a-f]{64}$", "64 hexadecimal digits in lower case, as text (in quotes)"),
        "Its digest.",
        default=None,
    )
    threads: int = field(c.integer(1, 1024), "Intra-op threads.", default=1)
    provider: str | None = field(
        c.text(), "Execution provider; the CPU's by default.", default=None
    )
    spinning: bool = field(c.boolean(), "Idle threads spin, and burn CPU.", default=False)
    optimization: str = field(
        c.choice(("all", "extended", "basic", "off")), "Of the graph, at load.", default="all"
    )


@settings
class ExternalSpec(TierSpec):
    """A tier that is bound by name in Python."""

    kind: ClassVar[str] = "external"
    version: str | None = field(c.text(), "Stands in key and certificate.", default=None)


KINDS: dict[str, type[TierSpec]] = {"onnx": OnnxSpec, "external": ExternalSpec}


@functools.cache
def any_kind() -> type[Any]:
    """Return settings with the keys of all built-in kinds; only what each kind needs is needed."""
    fields = {name: f for kind in KINDS.values() for name, f in fields_of(kind).items()}
    common = fields_of(TierSpec)
    made = {}
    for name, f in fields.items():
        absent = None if f.default is attrs.NOTHING and name not in common else f.default
        made[name] = field(f.metadata["kind"], f.metadata["doc"], default=absent)
    return attrs.make_class("AnyKind", made, kw_only=True, class_body={"TAGS": TierSpec.TAGS})


def spec_class(tree: Any, path: tuple[Any, ...], problems: list[Any]) -> type[Any]:
    """Choose a tier's settings class by its ``kind``; where that is unknown, one of any kind's."""
    if isinstance(tree, TierSpec):  # made in Python
        return type(tree)
    if not isinstance(tree, Mapping):
        return any_kind()
    kind, known = tree.get("kind"), known_kinds()
    try:
        found = kind_settings(kind)
    except PolicyError as error:
        problems.append(((*path, "kind"), str(error)))
        return any_kind()
    if found is not None:
        return found
    absent = "kind" not in tree
    if kind is UNREAD or (absent and slips("kind", tree, fields_of(any_kind()), problems)):
        said = SAID
    elif kind is None:
        said = f"missing; expected one of {', '.join(known)}"
    else:
        word = shown(kind)
        said = f"unknown kind {word}{hint(word[1:-1], known, problems)}"
    problems.append(((*path, "kind"), said))
    return any_kind()


def known_kinds() -> list[str]:
    """Name the kinds of tiers: those built in, and those of installed packages."""
    return [*KINDS, *plugin_names(TIERS)]


def kind_settings(kind: Any) -> type[TierSpec] | None:
    """Return the settings class of a kind of tier; a package's own is imported only now.

    Raises:
        PolicyError: what the package brings cannot be imported, or is no kind of that name.
    """
    if not isinstance(kind, str):
        return None
    if kind in KINDS:
        return KINDS[kind]
    brought = plugin(TIERS, kind)
    if brought is None:
        return None
    found = getattr(brought, "settings", None)
    if not (isinstance(found, type) and issubclass(found, TierSpec) and found.kind == kind):
        wanted = f"`settings`, a subclass of cascade.TierSpec whose `kind` is {kind!r}"
        raise PolicyError(f"kind {kind!r}: what an installed package brings lacks {wanted}")
    return found


@settings
class AllowanceSettings:
    """Escalations per request, saved up to a burst."""

    overall: float | None = field(c.fraction(), "Of all requests.", default=None)
    per_tenant: float | None = field(c.fraction(), "Of each tenant's.", default=None)
    burst: int = field(c.integer(1, 1_000_000), "That a tenant may save up.", default=20)


@settings
class Escalation:
    """When a request goes on to a larger tier."""

    certificate: str | None = field(c.text(), "The certificate file.", default=None)
    thresholds: tuple[float, ...] | None = field(
        c.fraction_list(), "One per tier below the top; without promise.", default=None
    )
    abstain_below: float | None = field(c.fraction(), "Below it: no answer.", default=None)
    spare_budget: bool = field(
        c.boolean(), "Go on sooner where the deadline and the load leave room.", default=False
    )
    allowance: AllowanceSettings | None = field(
        c.section(AllowanceSettings), "How many escalations there may be.", default=None
    )


@settings
class ComplexityRule:
    """Difficulty from the input alone: sigmoid(intercept + weights·x)."""

    intercept: float = field(c.number(), "The intercept.", default=0.0)
    weights: Any = field(c.weights(), "Per element, or by feature name.")
    skip_above: tuple[float, ...] = field(
        c.fraction_list(), "Complexities from which tiers are skipped.", default=()
    )


@settings
class FunctionVersion:
    """What a function does cannot be digested, so it is named."""

    version: str = field(c.text(), "Changes whenever the function does.")


@settings
class InputSettings:
    """How inputs are checked."""

    cast: str = field(
        c.choice(("same_kind", "none")), "Which casts are allowed.", default="same_kind"
    )
    validate: str = field(c.choice(("shape", "finite")), "What is checked.", default="shape")


@settings
class LoadSettings:
    """How the operating point follows the load."""

    target_utilization: float = field(c.fraction(), "Of the busiest tier.", default=0.7)
    target_delay: float = field(c.duration(), "Of the shortest queue.", default=0.005)
    interval: float = field(c.duration(), "Between two looks.", default=1.0)
    brownout: bool = field(c.boolean(), "May go beyond the promise, flagged.", default=False)


@settings
class CacheSettings:
    """The result cache."""

    entries: int = field(c.integer(1), "At most so many.", default=10_000)
    bytes: int = field(c.size(), "At most so large.", default=64_000_000)
    ttl: float | None = field(c.duration(), "How long an answer stays.", default=None)
    per_tenant: float | None = field(
        c.fraction(), "At most so much of it for one tenant's answers.", default=None
    )
    digest: str = field(
        c.choice(("auto", "blake2b")), "How large inputs are keyed.", default="auto"
    )
