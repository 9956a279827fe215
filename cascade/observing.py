"""What runs after the answer: shadows of mode ``observe``, and what is recorded.

One daemon thread per router takes jobs off a queue, into which nobody waits to put one: a request
that finds it full is dropped and counted, a label is always taken.
"""

from __future__ import annotations

import contextlib
import copy
import queue
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import numpy as np

from cascade.decide import Call, Decision
from cascade.engine import Request
from cascade.errors import CascadeError, PolicyError
from cascade.facts import Failed, Replied
from cascade.recorder import Answer, Recorder
from cascade.tiers.faults import NotAsked, as_tier_error
from cascade.types import Mode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cascade.outcome import Outcome
    from cascade.plan import Plan
    from cascade.protocols import Lane
    from cascade.service import Service

__all__ = ["Aftermath", "Watched"]

_QUEUED = 256  # jobs; beyond, requests are dropped


@attrs.frozen
class _Job:
    """What is to be done; one to ``keep`` is done even when there is no time for the others."""

    work: Callable[[], None]
    keep: bool = False


_Jobs: TypeAlias = "queue.SimpleQueue[_Job | None]"


class Aftermath:
    """The thread, its queue, and what it does for one request."""

    def __init__(self) -> None:
        self.recorder: Recorder | None = None
        self.dropped = 0
        self._jobs: _Jobs = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._queueing = threading.RLock()  # nothing is put behind the end of a thread
        self._closed = False

    def take(self, plan: Plan, outcome: Outcome[Any], x: Any, *, record: bool) -> None:
        """Queue what is to be done for a request that was answered, or drop it."""
        try:
            kept, value = copy.deepcopy((x, outcome.value))  # the caller may change them
        except Exception:  # noqa: BLE001  not of every kind of object
            self.dropped += 1
            return
        if self._jobs.qsize() < _QUEUED:
            self._put(_Job(lambda: self._complete(plan, outcome, kept, value, record=record)))
        else:
            self.dropped += 1

    def label(self, outcome_id: str, truth: Any) -> None:
        """Queue a label; unlike a row it is never dropped, because it cannot be had again."""
        recorder = self.recorder
        assert recorder is not None  # noqa: S101  the router has looked
        self._put(_Job(lambda: recorder.label(outcome_id, truth), keep=True))

    def drain(self) -> None:
        """Wait until everything queued is done."""
        done = threading.Event()
        with self._queueing:
            if self._thread is None:
                return
            self._jobs.put(_Job(done.set, keep=True))
        done.wait()

    def close(self, grace: float) -> None:
        """Drain for at most ``grace`` seconds, stop the thread, close the files.

        What a hung tier has held up is dropped and counted; labels are written all the same.
        """
        with self._queueing:
            self._closed = True
            thread, self._thread = self._thread, None
            jobs, self._jobs = self._jobs, queue.SimpleQueue()
            jobs.put(None)
        if thread is not None:
            thread.join(grace)
            if thread.is_alive():
                self._leave(jobs)
        if self.recorder is not None:
            self.recorder.close()

    def _leave(self, jobs: _Jobs) -> None:
        """Take from a thread that hangs what it has not begun; it ends when it comes back."""
        self.dropped += 1  # what it is at
        with contextlib.suppress(queue.Empty):
            while True:
                job = jobs.get_nowait()
                if job is not None and job.keep:
                    self._do(job)
                elif job is not None:
                    self.dropped += 1
        jobs.put(None)

    def in_child(self) -> _Jobs:
        """Begin anew after a fork; return what was queued in the parent, which does it."""
        jobs, self._jobs = self._jobs, queue.SimpleQueue()
        self._thread, self._queueing = None, threading.RLock()
        return jobs

    # -- the queue -------------------------------------------------------------------------------

    def _put(self, job: _Job) -> None:
        """Queue a job, for a thread that is started if there is none.

        Once it is closed a label is written here and now, and what else comes is dropped.
        """
        with self._queueing:
            if self._closed and job.keep:
                self._do(job)
                return
            if self._closed:
                self.dropped += 1
                return
            self._jobs.put(job)
            if self._thread is None:
                thread = threading.Thread(
                    target=self._work, args=(self._jobs,), name="cascade-aftermath", daemon=True
                )
                with contextlib.suppress(RuntimeError, MemoryError):  # the next one tries again
                    thread.start()
                    self._thread = thread

    def _work(self, jobs: _Jobs) -> None:
        while (job := jobs.get()) is not None:
            self._do(job)

    def _do(self, job: _Job) -> None:
        try:
            job.work()
        except Exception:  # noqa: BLE001  what runs after the answer must not stop the rest
            self.dropped += 1

    # -- one request -----------------------------------------------------------------------------

    def _complete(
        self, plan: Plan, outcome: Outcome[Any], x: Any, value: Any, *, record: bool
    ) -> None:
        row = plan.row(x)
        answers = list(self._answers(plan, outcome, row, value))
        if plan.site.mode is Mode.OBSERVE:
            hard = 0.0 if plan.complexity is None else plan.complexity(x if plan.by_name else row)
            outcome.add_shadow(_shadow(plan, row, hard, answers, value))
        if record and self.recorder is not None:
            prepared = plan.prepare.common is not None
            self.recorder.write(outcome, x, answers, prepared=prepared)

    def _answers(self, plan: Plan, outcome: Outcome[Any], row: Any, said: Any) -> Iterator[Answer]:
        """Ask the tiers that did not run for this; the one that answered is taken at its word."""
        recorder = self.recorder
        complete = recorder is None or recorder.complete or plan.site.mode is Mode.OBSERVE
        ran = (step for step in outcome.steps if step.result != "shared")
        took = {step.tier: step.latency.compute for step in ran}
        for lane, spec in zip(plan.lanes, plan.policy.tiers, strict=True):
            score = spec.confidence.score
            plain = plan.post is None and lane.calibration is None
            if spec.name == outcome.tier and spec.name in took and plain:
                seconds = took[spec.name]
                yield Answer(spec.name, score, said, outcome.confidence, seconds)
            elif not complete:
                yield Answer(spec.name, score, error=LookupError("not asked"))
            else:
                yield _ask(lane, spec.name, score, plan, row)


class Watched:
    """The part of a router that has something run after its answers."""

    _aftermath: Aftermath
    _service: Service
    _watching = False

    route: Callable[..., Any]

    def on_their_way(self) -> int:
        """Count the requests that are on their way up, where that is known: not in threads."""
        return 0

    def in_child(self) -> Any:
        """Begin anew after a fork; return what must not be destroyed here."""
        return self._aftermath.in_child()

    def watch_again(self) -> None:
        """See whether anything is to run after the answers, now that something has changed."""
        with self._service.guard:
            self._watch()

    def _watch(self) -> None:
        """Have requests watched where something is to run after them; else it costs nothing."""
        observed = self._service.mode is Mode.OBSERVE
        wanted = observed or self._aftermath.recorder is not None
        if wanted:
            self.route = self._watched_route
        elif self._watching:
            del self.route
        self._watching = wanted

    def _watched_route(self, x: Any, **settings: Any) -> Any:
        """Route, and have the other tiers asked in the background."""
        plan, record, wanted = self._drawn()
        try:
            outcome = type(self).route(self, x, **settings)
        except CascadeError as error:
            self._take_lost(plan, error, x, record=record, wanted=wanted)
            raise
        if wanted:
            self._aftermath.take(plan, outcome, x, record=record)
        return outcome

    def _drawn(self) -> tuple[Plan, bool, bool]:
        """Return the plan, and whether to record and to watch; drawn before it is routed."""
        after, plan = self._aftermath, self._service.plan or self._service.open()
        record = after.recorder is not None and after.recorder.draw()
        return plan, record, record or self._service.mode is Mode.OBSERVE

    def _take_lost(
        self, plan: Plan, error: CascadeError, x: Any, *, record: bool, wanted: bool
    ) -> None:
        lost = getattr(error, "outcome", None)
        if wanted and lost is not None:
            self._aftermath.take(plan, lost, x, record=record)

    def record(
        self, folder: str | Path, rate: float = 0.01, *, complete: bool = True, inputs: bool = False
    ) -> None:
        """Record a share of the requests from now on, with what every tier answers to them.

        They are sampled before routing; with ``complete`` the tiers that were not asked are asked
        in the background, on a bounded queue (what finds it full is dropped and counted). One file
        per process is written to ``folder``, and one more for each policy with other columns that
        is swapped in; ``inputs`` adds the inputs. ``cascade fit`` reads the folder.

        Raises:
            ValueError: ``rate`` is not in (0, 1].
        """
        if not 0.0 < rate <= 1.0:
            raise ValueError(f"rate: expected a number in (0, 1], got {rate!r}")
        after = self._aftermath
        after.drain()
        recorder = Recorder(Path(folder), rate, inputs=inputs, complete=complete)
        with self._service.guard:
            before, after.recorder = after.recorder, recorder
            self._watch()
        if before is not None:
            before.close()

    def feedback(self, outcome_id: str, truth: Any) -> None:
        """Write down what the right answer to a request was; ``cascade label`` joins the two.

        Raises:
            PolicyError: nothing is recorded.
        """
        if self._aftermath.recorder is None:
            raise PolicyError("feedback: call record(folder) first")
        self._aftermath.label(outcome_id, truth)

    def end_aftermath(self, grace: float) -> None:
        """End what runs after the answers, in at most ``grace`` seconds."""
        self._aftermath.close(grace)

    def flush(self) -> None:
        """Wait until what runs after the answers so far is done and written."""
        self._aftermath.drain()


def _ask(lane: Lane, name: str, score: str, plan: Plan, row: Any) -> Answer:
    """Ask one tier, with all the time it needs and no calibration.

    Raises:
        NotAsked: nobody could; what is said of the tier would be wrong.
    """
    now = plan.clock()
    request = Request(plan, row, 0, now, now + 2**62)
    started = time.perf_counter()
    try:
        value, confidence = lane.plain(request)
    except NotAsked:
        raise
    except Exception as error:  # noqa: BLE001  a tier may raise anything; its cell stays empty
        return Answer(name, score, seconds=time.perf_counter() - started, error=error)
    return Answer(name, score, value, confidence, time.perf_counter() - started)


def _shadow(
    plan: Plan, row: Any, hard: float, answers: Sequence[Answer], said: Any
) -> dict[str, Any]:
    """Say what the cascade would have done with these answers, had there been time."""
    decision, etas = Decision(plan.ladder), [int] * len(answers)  # int() is 0: time for all
    move = decision.start(plan.point, hard, 0, 1, etas)
    while type(move) is Call:
        answer, lane = answers[move.tier], plan.lanes[move.tier]
        fact: Any = Replied(move.tier, answer.value, answer.confidence, 0, 0, 0)
        if answer.error is not None:
            fact = Failed(move.tier, as_tier_error(answer.tier, answer.error), 0, 0, 0)
        elif lane.calibration is not None:
            fact.confidence = lane.calibration.one(answer.value, answer.confidence, row)
        move = decision.step(fact, 0, etas)
    best = decision.best
    value = None if best is None else best.value
    if best is not None and plan.post is not None:
        value = plan.post(best.tier, value)
    return {
        "tier": move.tier,
        "disposition": str(move.disposition),  # type: ignore[union-attr]
        "value": value,
        "confidence": None if best is None else best.confidence,
        "agrees": _agree(value, said),
    }


def _agree(value: Any, other: Any) -> bool:
    return bool(np.array_equal(value, other) if isinstance(value, np.ndarray) else value == other)
