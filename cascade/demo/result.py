"""What the demo found, as numbers and as a page of text."""

from __future__ import annotations

from typing import Any

import attrs

__all__ = ["DemoResult", "Held", "Run"]

_CONTRACT = ("tiers", "runs", "certificate", "ledger", "bundle", "seconds")


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
class DemoResult:
    """Everything that ``cascade demo`` prints."""

    tiers: list[dict[str, Any]]
    runs: dict[str, Run]
    certificate: dict[str, Any]
    held_out: Held
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
                f"Should you cascade here? {self.verdict}", "", *self._usage(),
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
        sure, bound = f"{1 - c['alpha']:.0%}", f"{c['max_loss']:.1%}"
        found = f"{held.losses} of {held.n:,} lost ({held.losses / held.n:.2%})"
        return [
            f"The certificate: with {sure} confidence, at most {bound} of the requests lose a",
            f"right answer of the top tier; {c['losses']} of {c['n']:,} test rows were lost.",
            f"On the held-out rows: {found}; p = {held.p_value:.2f} for {bound} or less,",
            f"which {verb} the certificate (one-sided exact binomial test at 1 %).",
        ]

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
        return ["The stream, one request at a time", *_table([head, *rows])]

    def _ledger(self) -> list[str]:
        total = sum(self.ledger.values())
        parts = ", ".join(
            f"{part} {_time(spent)} ({spent / total:.0%})" for part, spent in self.ledger.items()
        )
        return [f"Where the cascade's time went, per request: {parts}"]

    def _usage(self) -> list[str]:
        return [
            f"Plots: {', '.join(self.plots)}",
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
