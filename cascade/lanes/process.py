"""The process lane's tier: it runs in a child, which can be killed; for what cannot be cancelled.

The child is a fresh interpreter, not a fork: it inherits no locks, threads or sessions. There are
as many as workers, never more: one that was killed or has died is replaced in the background.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import pickletools
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from cascade.confidence import OutputFault
from cascade.errors import PolicyError, TierUnavailable
from cascade.protocols import BoundTier
from cascade.tiers.faults import NotAsked

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
        self._name = name
        self._over = False
        self._pipe = Connection(ours.detach())
        try:
            self.inputs: tuple[InputSpec, ...] = self._exchange(recipe)
        except BaseException:
            self.close()
            raise

    def ask(self, what: str, *args: Any) -> Any:
        """Have the child do something, and wait for what comes of it."""
        return self._exchange(pickle.dumps((what, *args)))

    def _exchange(self, question: bytes) -> Any:
        self._over = True  # whoever is kept from reading the answer leaves it to nobody else
        try:
            self._pipe.send_bytes(question)
            answer = self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            msg = f"tier {self._name!r}: its process has ended"
            raise TierUnavailable(msg, tier=self._name) from error
        self._over = False
        good, found = pickle.loads(answer)  # noqa: S301  from our own child
        if not good:
            raise found
        return found

    def kill(self) -> None:
        """End it, whatever it is at."""
        self._over = True
        self.process.kill()

    @property
    def alive(self) -> bool:
        """Whether it can be asked again."""
        return not self._over and self.process.poll() is None

    def close(self) -> None:
        """End it, and wait until it has."""
        self._pipe.close()
        self.process.kill()
        self.process.wait()

    def let_go(self) -> None:
        """Leave it to the parent, in a forked child: else it would outlive that."""
        self._pipe.close()


class _Turn:
    """What one run has of the processes: the child that it is given, once there is one."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self.child: _Child | None = None
        self.stopped = False

    def take(self, child: _Child) -> None:
        """Have a child; under the lock."""
        self.child = child
        if self.stopped:  # while it was started
            child.kill()

    def stop(self) -> None:
        """End the run; once it is over, the child is another's and left alone."""
        with self._changed:
            self.stopped = True
            if self.child is not None:
                self.child.kill()
            self._changed.notify_all()


class ProcessTier(BoundTier):
    """A tier as the lanes run it, in ``workers`` processes of its own."""

    silent = False
    can_stop = True
    batches = True

    def __init__(self, tier: BoundTier, workers: int = 1) -> None:
        self.name, self.classes = tier.name, tier.classes
        self.inputs: tuple[InputSpec, ...] = ()
        self._tier = tier
        self._workers = workers
        self._recipe = _recipe(tier)
        self._inherited: list[Any] = []
        self._took = 0.0  # s that the latest process needed to start
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition()  # guards everything below
        self._free: deque[_Child] = deque()
        self._turns: set[_Turn] = set()  # of those that have a child
        self._made = 0  # children that there are, or are being started
        self._starting = 0  # in the background
        self._due = 0.0  # when the latest of them should be ready
        self._open = False

    # -- life ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Start the processes."""
        self._tier.identify()  # what it is now, the children open
        self._open = True
        while self._made < self._workers:
            self._made += 1
            self._free.append(self._make())

    def close(self) -> None:
        """End the processes, whatever they are at."""
        with self._changed:
            for turn in self._turns:
                if turn.child is not None:
                    turn.child.kill()
        self.retire()

    def retire(self) -> None:
        """End the processes that are idle; one that is busy, or needed once more, ends after."""
        with self._changed:
            self._open = False
            idle = list(self._free)
            self._free.clear()
            self._made -= len(idle)
            self._changed.notify_all()
        for child in idle:
            child.close()

    def reset(self) -> None:
        """Let go of the parent's processes, in a forked child."""
        taken = [turn.child for turn in self._turns if turn.child is not None]
        for child in (*self._free, *taken):
            child.let_go()
            self._inherited.append(child)  # what is left of it is the parent's to clear away
        self._begin()

    def identify(self) -> Hashable:
        """Name what the tier is made from."""
        return self._tier.identify()

    # -- the processes ---------------------------------------------------------------------------

    def _make(self) -> _Child:
        """Start a process that is counted already."""
        begun = time.monotonic()
        try:
            child = _Child(self.name, self._recipe)
        except BaseException:
            with self._changed:
                self._made -= 1
                self._changed.notify_all()
            raise
        self._took = time.monotonic() - begun
        self.inputs = child.inputs
        return child

    def _take(self, turn: _Turn, context: Any) -> _Child:
        """Return a free process, or one that becomes free while there is time."""
        with self._changed:
            while (child := None if turn.stopped else self._ready()) is None:
                if self._made < self._workers and not turn.stopped:
                    self._made += 1
                    break
                left = context.remaining()
                hopeless = self._starting >= self._workers and left < self._due - time.monotonic()
                if turn.stopped or hopeless or not self._changed.wait(max(0.0, left)):
                    msg = f"tier {self.name!r}: no process is free in time"
                    raise NotAsked(msg, tier=self.name)
            if child is not None:
                turn.take(child)
                self._turns.add(turn)
                return child
        child = self._make()  # it could not be replaced before: whoever asks hears why
        with self._changed:
            turn.take(child)
            self._turns.add(turn)
        return child

    def _ready(self) -> _Child | None:
        """Return a free process that lives; those that have died are replaced."""
        while self._free:
            child = self._free.popleft()
            if child.alive:
                return child
            self._replace(child)
        return None

    def _give_back(self, turn: _Turn, child: _Child) -> None:
        with self._changed:
            self._turns.discard(turn)
            turn.child = None
            if self._open:
                if child.alive:
                    self._free.append(child)
                    self._changed.notify_all()
                else:
                    self._replace(child)
                return
            self._made -= 1
            self._changed.notify_all()
        child.close()

    def _replace(self, dead: _Child) -> None:
        """Have another process started in the background; under the lock."""
        self._starting += 1
        self._due = time.monotonic() + self._took
        name = f"cascade-{self.name}-start"
        try:
            threading.Thread(target=self._restart, args=(dead,), name=name, daemon=True).start()
        except (RuntimeError, MemoryError):  # no thread is to be had: who asks next starts one
            self._starting -= 1
            self._made -= 1
            self._changed.notify_all()
            dead.close()

    def _restart(self, dead: _Child) -> None:
        dead.close()
        child = None
        with contextlib.suppress(Exception):  # the next who asks tries, and hears why not
            child = self._make()
        with self._changed:
            self._starting -= 1
            if child is None or self._open:
                self._free.extend(() if child is None else (child,))
                self._changed.notify_all()
                return
            self._made -= 1
        child.close()

    def _ask(self, what: str, context: Any, *args: Any) -> Any:
        turn = _Turn(self._changed)
        say_how = getattr(context, "stop_with", None)
        if say_how is not None:
            say_how(turn.stop)
        child = self._take(turn, context)
        try:
            return child.ask(what, *args, context.remaining(), context.tenant, context.metadata)
        finally:
            self._give_back(turn, child)

    # -- a tier ----------------------------------------------------------------------------------

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
        found: tuple[bool, float | None] | OutputFault = raw[2][i]
        if isinstance(found, OutputFault):
            raise found
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


def _recipe(tier: BoundTier) -> bytes:
    """Return the tier as it travels.

    Raises:
        PolicyError: it cannot, or another process could not make it again.
    """
    what = f"tier {tier.name!r}: execution: process needs something that can be pickled, such as "
    try:
        recipe = pickle.dumps(tier)
    except Exception as error:
        raise PolicyError(
            f"{what}a function at the top of a module; {type(error).__name__}: {error}"
        ) from error
    if any(arg == "__main__" for _, arg, _ in pickletools.genops(recipe)):
        raise PolicyError(
            f"{what}a function of a module that another process can import; this one is defined in "
            f"the script that is run (__main__): move it to a module of its own, and import it"
        )
    return recipe
