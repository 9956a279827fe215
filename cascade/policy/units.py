"""Durations, sizes and fractions as people write them."""

from __future__ import annotations

import math
import re

__all__ = ["parse_duration", "parse_fraction", "parse_size", "respelt"]

NAMED = {"instant": 0.1, "reaction": 0.2, "conversation": 1.0}
"""Deadlines by human reaction time, in seconds (Nielsen, 1993)."""

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES = {
    "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30,
}  # fmt: skip
_NUMBER = r"([0-9]+(?:_[0-9]+)*(?:\.[0-9]+)?)"
DURATION = re.compile(rf"^(?:{_NUMBER} ?({'|'.join(_SECONDS)})|{'|'.join(NAMED)})$")
SIZE = re.compile(rf"^{_NUMBER} ?({'|'.join(_BYTES)})$")
FRACTION = re.compile(rf"^{_NUMBER} ?%$")
_WORDS = (*_SECONDS, *NAMED, *_BYTES)
_LONGEST = 40  # letters
SUCH = (
    f"duration such as 20ms, 1s or 5m ({', '.join(filter(str.isascii, _SECONDS))}), "
    f"or {', '.join(NAMED)}"
)
"""What a duration may be, in words."""


def parse_duration(text: str | float) -> float:
    """Return seconds; a plain number is seconds already.

    Raises:
        ValueError: not a duration.

    >>> parse_duration("20ms"), parse_duration("5m"), parse_duration("reaction")
    (0.02, 300.0, 0.2)
    """
    if isinstance(text, str) and text in NAMED:
        return NAMED[text]
    return _parse(text, DURATION, _SECONDS, f"a {SUCH}")


def parse_size(text: str | float) -> int:
    """Return bytes.

    Raises:
        ValueError: not a size.

    >>> parse_size("64MB"), parse_size("1KiB")
    (64000000, 1024)
    """
    return round(_parse(text, SIZE, _BYTES, "a size such as 64MB or 64MiB"))


def parse_fraction(text: str | float) -> float:
    """Return a fraction; ``60%`` and ``0.6`` are the same.

    Raises:
        ValueError: not a fraction.

    >>> parse_fraction("60%")
    0.6
    """
    if isinstance(text, str):
        return _parse(text, FRACTION, {}, "a percentage such as 60%") / 100.0
    return float(text)


def respelt(text: str, pattern: re.Pattern[str]) -> str | None:
    """Return the text of a pattern that differs from this one in the case of its unit alone.

    >>> respelt("64mb", SIZE), respelt("Instant", DURATION), respelt("64 bytes", SIZE)
    ('64MB', 'instant', None)
    """
    for word in _WORDS if len(text) <= _LONGEST else ():
        made = text[: -len(word)] + word
        if made.casefold() == text.casefold() and pattern.fullmatch(made):
            return made
    return None


def _parse(
    text: str | float,
    pattern: re.Pattern[str],
    units: dict[str, float] | dict[str, int],
    expected: str,
) -> float:
    if isinstance(text, bool):
        raise ValueError(f"expected {expected}, got {text!r}")
    if isinstance(text, (int, float)):
        if math.isfinite(text):
            return float(text)
    elif (match := pattern.fullmatch(text)) is not None and match[1]:
        unit = match[2] if pattern.groups > 1 else None
        value = float(match[1].replace("_", "")) * (units[unit] if unit else 1)
        if math.isfinite(value):
            return float(f"{value:.12g}")  # 20 × 1e-3 is meant to be 0.02
    raise ValueError(f"expected {expected}, got {text!r}")
