"""The process lane's tier: it runs in a child, which can be killed; for what cannot be cancelled.

The child is a fresh interpreter, not a fork: it inherits no locks, threads or sessions. One child
per worker; one that was killed is replaced before the next run.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections import deque
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from cascade.errors import PolicyError, TierUnavailable
from cascade.protocols import BoundTier

if TYPE_CHECKING:
    from collections.abc import Hashable

    from cascade.protocols import Context, InputSpec, Rows

__all__ = ["ProcessTier"]

_MAIN = "from cascade.lanes.child import main; main({})"


class _Child:
    """One process that has the tier open; ``ask`` is used by one thread at a time."""

    def __init__(self, name: str, recipe: bytes) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603  our own interpreter and module
                [sys.executable, "-c", _MAIN.format(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL,
            )
        self.pid = os.getpid()  # whose child it is
        self._name = name
        self._over = False
        self._pipe = Connection(ours.detach())
        self._pipe.send_bytes(recipe)
        self.inputs: tuple[InputSpec, ...] = self._reply()

    def ask(self, what: str, *args: Any) -> Any:
        """Have the child do something, and wait for what comes of it."""
        try:
            self._pipe.send((what, *args))
        except (BrokenPipeError, ConnectionError) as error:
            raise self._gone() from error
        return self._reply()

    def _reply(self) -> Any:
        try:
            good, found = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._gone() from error
        if not good:
            raise found
        return found

    def _gone(self) -> TierUnavailable:
        self._over = True
        return TierUnavailable(f"tier {self._name!r}: its process has ended", tier=self._name)

    def kill(self) -> None:
        """End it, whatever it is at."""
        self._over = True
        self.process.kill()

    @property
    def alive(self) -> bool:
        """Whether it can be asked again; one that was just killed may still seem to run."""
        return not self._over and self.process.poll() is None

    def close(self) -> None:
        """End it, and wait until it has."""
        self._pipe.close()
        self.process.kill()
        self.process.wait()


class ProcessTier(BoundTier):
    """A tier as the lanes run it, in ``workers`` processes of its own."""

    silent = False
    can_stop = True
    batches = True

    def __init__(self, tier: BoundTier, workers: int = 1) -> None:
        self.name = tier.name
        self._tier = tier
        self.inputs: tuple[InputSpec, ...] = ()
        self._workers = workers
        self._free: deque[_Child] = deque()
        self._open = False
        self._inherited: deque[_Child] = self._free
        try:
            self._recipe = pickle.dumps(tier)
        except Exception as error:
            raise PolicyError(
                f"tier {tier.name!r}: execution: process needs something that can be pickled, "
                f"such as a function at the top of a module; {type(error).__name__}: {error}"
            ) from error

    def open(self) -> None:
        """Start the processes."""
        self._open = True
        self._tier.identify()  # what it is now, the children open
        while len(self._free) < self._workers:
            self._free.append(_Child(self.name, self._recipe))
        self.inputs = self._free[0].inputs

    def close(self) -> None:
        """End the processes."""
        self._open = False
        while self._free:
            self._free.popleft().close()

    def retire(self) -> None:
        """End the processes that are idle; one that is busy, or needed once more, ends after."""
        self.close()

    def reset(self) -> None:
        """Let go of the parent's processes, in a forked child."""
        self._inherited, self._free = self._free, deque()

    def _take(self) -> _Child:
        while True:
            try:
                child = self._free.popleft()
            except IndexError:
                return _Child(self.name, self._recipe)
            if child.alive:
                return child

    def _ask(self, what: str, context: Any, *args: Any) -> Any:
        child = self._take()
        say_how = getattr(context, "stop_with", None)
        if say_how is not None:
            say_how(child.kill)
        try:
            return child.ask(what, *args, context.remaining(), context.tenant, context.metadata)
        finally:
            if not self._open or not child.alive:
                child.close()
            else:
                self._free.append(child)

    def identify(self) -> Hashable:
        """Name what the tier is made from."""
        return self._tier.identify()

    def run(self, job: Any) -> Any:
        """Run one row in a child, and read the answer there."""
        return self._ask("one", job, job.row)

    run_stoppable = run

    def read(self, raw: Any) -> tuple[Any, float | None]:
        """Return what the child has read."""
        return raw[0], raw[1]

    read_stoppable = read

    def remarks(self, raw: Any, i: int = 0) -> tuple[bool, float | None]:
        """Return what the tier has reported."""
        found: tuple[bool, float | None] = raw[2][i]
        return found

    def run_rows(self, rows: Any, n: int, context: Context) -> Any:
        """Run n rows in a child."""
        return self._ask("rows", context, rows, n)

    def read_rows(self, raw: Any, n: int) -> Rows:  # noqa: ARG002  the protocol
        """Return what the child has read."""
        return raw[0], raw[1]

    def probe(self, rows: Any, n: int, context: Context) -> Any:
        """Return the model's own outputs, for the golden input."""
        return self._ask("probe", context, rows, n)
