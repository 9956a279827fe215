"""A policy as a person would write it: in reading order, with what it promises on top."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cascade.fitting.words import LOST
from cascade.policy.reading import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cascade.policy import Certificate, Policy, TierSpec

__all__ = ["policy_text", "promise_lines"]

_WIDTH = 96


def policy_text(
    policy: Policy, certificate: Certificate, name: str, extras: Mapping[str, Any]
) -> str:
    """Return the text of ``policy.yaml``; ``extras`` are further top-level keys and their values.

    A number for ``deadline`` is in seconds.
    """
    extra = {key: _seconds(value) if key == "deadline" else value for key, value in extras.items()}
    lines = [
        "# yaml-language-server: $schema=policy.schema.json",
        "# A bundle, served by cascade.Router.from_yaml(this file).",
        *(f"# {line}" for line in promise_lines(certificate)),
        "version: 1  # of the format",
        f"name: {_scalar(name)}",
        *(f"{key}: {_flow(value)}" for key, value in extra.items()),
        *_wrapped("classes", policy.classes or ()),
        "tiers:  # cheapest first",
    ]
    for spec in policy.tiers:
        lines += _tier(spec)
    lines += [
        "escalation:",
        "  certificate: certificate.json  # thresholds, and the proof of what they promise",
        "profile: profile.json  # seconds per tier, measured where this was written",
        "golden: golden.json  # an input and its answer per model, replayed at load",
    ]
    return "\n".join(lines) + "\n"


def promise_lines(cert: Certificate) -> list[str]:
    """Return what a certificate promises, as a bundle's policy says it on top."""
    if cert.certified <= 1:
        return ["Nothing is certified: every request goes to the top tier."]
    return [
        f"Promise: with confidence {1.0 - cert.alpha:.4g}, at most {cert.max_loss:.4g} of the rows",
        f"are lost ({LOST.get(cert.loss, cert.loss)}); tested on {cert.n} rows.",
    ]


def _tier(spec: TierSpec) -> list[str]:
    settings = {"score": spec.confidence.score, "temperature": spec.confidence.temperature}
    outputs = {"kind": "probabilities"}
    if spec.outputs is not None and spec.outputs.name is not None:
        outputs["name"] = spec.outputs.name
    facts: dict[str, Any] = {"kind": spec.kind}
    for key in ("model", "sha256", "threads", "version"):
        if getattr(spec, key, None) is not None:
            facts[key] = getattr(spec, key)
    facts |= {"outputs": outputs, "confidence": settings}
    lines = [f"  - name: {_scalar(spec.name)}"]
    quoted = {"sha256", "version"}  # digits and an e would make a number
    for key, value in facts.items():
        lines.append(f"    {key}: {_label(value) if key in quoted else _flow(value)}")
    if spec.classes is not None:
        lines += [f"    {line}" for line in _wrapped("classes", spec.classes)]
    return lines


def _wrapped(key: str, values: Sequence[Any]) -> list[str]:
    """A flow list, broken into lines; labels are always quoted where they are text."""
    lines, last = [], f"{key}: ["
    for index, value in enumerate(values):
        word = _label(value) + ("]" if index == len(values) - 1 else ",")
        if len(last) + len(word) > _WIDTH:
            lines.append(last.rstrip())
            last = "  "
        last += word if last.endswith(("[", "  ")) else f" {word}"
    return [*lines, last] if values else []


def _flow(value: Any) -> str:
    if hasattr(value, "items"):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """A plain word where no reader could take it for something else."""
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*(\.[a-z]+)?", value)
    timed = isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?[A-Za-z]+", value)
    if (plain and value.lower() not in {"true", "false", "null", "yes", "no", "on", "off"}) or (
        timed and not re.fullmatch(r"[\d.]+[eE]\w*|0[xob].*", value)
    ):
        return str(value)
    return _label(value)


def _label(value: Any) -> str:
    """JSON is YAML: numbers, true and false as they are, text in quotes."""
    return quoted(value)


def _seconds(value: Any) -> Any:
    """Seconds as milliseconds with a unit; what is text already stays."""
    if isinstance(value, str) or not isinstance(value, (int, float)):
        return value
    return f"{value * 1e3:.12g}ms"
