"""What a process of the process lane does: it opens its tier, and answers until it is told off."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import threading
import time
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

from cascade.confidence import OutputFault
from cascade.tiers.faults import as_tier_error

if TYPE_CHECKING:
    from cascade.protocols import BoundTier

__all__ = ["main"]

_LAST = 0.5  # s that a run has to end once nobody waits for it
_Asked: TypeAlias = "queue.SimpleQueue[bytes | None]"


def main(descriptor: int) -> None:
    """Serve one tier over a socket until it is closed."""
    pipe, over = Connection(descriptor), threading.Event()
    asked: _Asked = queue.SimpleQueue()
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        recipe = pipe.recv_bytes()
        threading.Thread(target=_listen, args=(pipe, asked, over), daemon=True).start()
        try:
            _serve(pipe, recipe, asked)
        finally:
            over.set()


def _listen(pipe: Connection, asked: _Asked, over: threading.Event) -> None:
    """Take questions in; when nobody is left to answer to, the process ends, whatever it is at."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            asked.put(pipe.recv_bytes())
    asked.put(None)
    if not over.wait(_LAST):
        os._exit(1)


def _serve(pipe: Connection, recipe: bytes, asked: _Asked) -> None:
    tier: BoundTier | None = None
    try:
        tier = pickle.loads(recipe)  # noqa: S301  from our own parent
        assert tier is not None  # noqa: S101
        tier.open()
    except Exception as error:  # noqa: BLE001  the parent raises it
        _send(pipe, tier, error)
        return
    pipe.send((True, tier.inputs))
    while (question := asked.get()) is not None:
        try:
            what, *args, remaining, tenant, metadata = pickle.loads(question)  # noqa: S301  as above
            found = _answer(tier, what, args, _context(remaining, tenant, metadata))
            reply = pickle.dumps((True, found))
        except KeyboardInterrupt:
            return
        except BaseException as error:  # noqa: BLE001  a tier may raise anything
            _send(pipe, tier, error)
        else:
            pipe.send_bytes(reply)


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
    said = [(True, None)] * n if tier.silent else [_remarks(tier, raw, i) for i in range(n)]
    return (*tier.read_rows(raw, n), said)


def _remarks(tier: BoundTier, raw: Any, i: int) -> Any:
    """Return what a tier reports of a row, or what is wrong with it: no fault of the others."""
    try:
        return tier.remarks(raw, i)
    except OutputFault as fault:
        return fault


def _send(pipe: Connection, tier: BoundTier | None, error: BaseException) -> None:
    fault = as_tier_error("?" if tier is None else tier.name, error)
    fault.__cause__ = None  # it need not be picklable, nor its class known to the parent
    pipe.send((False, fault))
