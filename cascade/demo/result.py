"""What the demo found, as numbers and as a page of text."""

from __future__ import annotations

from textwrap import wrap
from typing import Any

import attrs

__all__ = ["DemoResult", "Held", "Run", "Timely"]

_CONTRACT = ("tiers", "runs", "certificate", "ledger", "bundle", "seconds")
_WIDTH = 92


@attrs.frozen
class Run:
    """One contender on the stream: accuracy in [0, 1], times in seconds, calls as shares."""

    accuracy: float
    mean: float
    p50: float
    p99: float
    calls: dict[str, float]


@attrs.frozen
class Held:
    """The held-out check: losses among n distinct rows, and the p-value of 'loss ≤ max_loss'."""

    losses: int
    n: int
    p_value: float


@attrs.frozen
class Timely:
    """The deadline in seconds, and how many of n requests were late or degraded by it."""

    deadline: float
    n: int
    late: int
    degraded: int


@attrs.frozen
class DemoResult:
    """Everything that ``cascade demo`` prints."""

    tiers: list[dict[str, Any]]
    runs: dict[str, Run]
    certificate: dict[str, Any]
    held_out: Held
    timely: Timely
    ledger: dict[str, float]
    verdict: str
    plots: list[str]
    bundle: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the contract's keys and no others, JSON-ready."""
        found = attrs.asdict(self)
        return {key: found[key] for key in _CONTRACT}

    def render(self) -> str:
        """Return the page."""
        return "\n".join(
            [
                *self._tiers(), "", *self._promise(), "", *self._runs(), "", *self._ledger(), "",
                *self._verdict(), "", *self._usage(),
            ]
        )  # fmt: skip

    def _tiers(self) -> list[str]:
        head = ("tier", "accuracy", "p50", "p99", "size")
        rows = [
            (t["name"], f"{t['accuracy']:.2%}", _time(t["p50"]), _time(t["p99"]), _size(t["bytes"]))
            for t in self.tiers
        ]
        return ["The tiers, each alone on the held-out stream", *_table([head, *rows])]

    def _promise(self) -> list[str]:
        c, held = self.certificate, self.held_out
        verb = "contradicts" if held.p_value < 0.01 else "does not contradict"
        bound, share = f"{c['max_loss']:.1%}", f"{held.losses / held.n:.2%}"
        promise = (
            f"The certificate: with {1 - c['alpha']:.0%} confidence, at most {bound} of requests "
            f"like these lose a right answer of the top tier; {c['losses']} of {c['n']:,} test "
            "rows did."
        )
        check = (
            f"On the {held.n:,} held-out rows the loss is {share} ({held.losses} rows), the bound "
            f"{bound}. At a true loss of {bound}, as many or more come with p = "
            f"{held.p_value:.3f}: this {verb} the certificate (exact one-sided binomial test "
            "at 1%)."
        )
        return [*wrap(promise, _WIDTH), *wrap(check, _WIDTH)]

    def _runs(self) -> list[str]:
        names = [t["name"] for t in self.tiers]
        head = ("run", "accuracy", "mean", "p50", "p99", *(f"calls {name}" for name in names))
        rows = [
            (
                label.replace("_", " "), f"{r.accuracy:.2%}", _time(r.mean), _time(r.p50),
                _time(r.p99), *(f"{r.calls.get(name, 0.0):.1%}" for name in names),
            )
            for label, r in self.runs.items()
        ]  # fmt: skip
        t = self.timely
        note = (
            f"The deadline was {_time(t.deadline)} per request: of the cascade's {t.n:,} answers "
            f"{t.late} came late or never, and {t.degraded} were from a smaller tier for want of "
            "time. The oracle knows which tier will be right."
        )
        return ["The stream, one request at a time", *_table([head, *rows]), *wrap(note, _WIDTH)]

    def _ledger(self) -> list[str]:
        total = sum(self.ledger.values())
        parts = ", ".join(
            f"{part} {_time(spent)} ({spent / total:.0%})" for part, spent in self.ledger.items()
        )
        return ["Where the cascade's time went, on average per request:", f"  {parts}"]

    def _verdict(self) -> list[str]:
        return wrap(f"Should you cascade here? {self.verdict}", _WIDTH)

    def _usage(self) -> list[str]:
        return [
            *(f"Plot: {path}" for path in self.plots),
            "",
            "Use the bundle from your own code:",
            "    from cascade import Router",
            f'    with Router.from_yaml("{self.bundle}/policy.yaml") as router:',
            "        print(router.route(row).explain())  # row: 784 floats in [0, 1]",
            f"Took {self.seconds:.0f} s.",
        ]


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"


def _size(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
