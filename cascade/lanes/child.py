"""What a process of the process lane does: it opens its tier, and answers until it is told off."""

from __future__ import annotations

import pickle
import time
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from cascade.tiers.faults import as_tier_error

if TYPE_CHECKING:
    from cascade.protocols import BoundTier

__all__ = ["main"]


def main(descriptor: int) -> None:
    """Serve one tier over a socket until it is closed."""
    pipe = Connection(descriptor)
    tier: BoundTier | None = None
    try:
        tier = pickle.loads(pipe.recv_bytes())  # noqa: S301  from our own parent
        assert tier is not None  # noqa: S101
        tier.open()
        pipe.send((True, tier.inputs))
    except Exception as error:  # noqa: BLE001  the parent raises it
        _send(pipe, tier, error)
        return
    while True:
        try:
            what, *args, remaining, tenant, metadata = pipe.recv()
        except (EOFError, OSError, KeyboardInterrupt):
            return
        try:
            pipe.send((True, _answer(tier, what, args, _context(remaining, tenant, metadata))))
        except KeyboardInterrupt:
            return
        except BaseException as error:  # noqa: BLE001  a tier may raise anything
            _send(pipe, tier, error)


def _context(remaining: float, tenant: str | None, metadata: Any) -> Any:
    until = time.monotonic() + remaining
    return SimpleNamespace(
        tenant=tenant,
        metadata=metadata,
        remaining=lambda: until - time.monotonic(),
        cancelled=lambda: time.monotonic() >= until,
        row=None,
    )


def _answer(tier: BoundTier, what: str, args: list[Any], context: Any) -> Any:
    if what == "one":
        context.row = args[0]
        raw = tier.run(context)
        return (*tier.read(raw), [(True, None) if tier.silent else tier.remarks(raw)])
    rows, n = args
    if what == "probe":
        return tier.run_rows(rows, n, context)
    raw = tier.run_rows(rows, n, context)
    said = [(True, None)] * n if tier.silent else [tier.remarks(raw, i) for i in range(n)]
    return (*tier.read_rows(raw, n), said)


def _send(pipe: Connection, tier: BoundTier | None, error: BaseException) -> None:
    fault = as_tier_error("?" if tier is None else tier.name, error)
    fault.__cause__ = None  # it need not be picklable, nor its class known to the parent
    pipe.send((False, fault))
