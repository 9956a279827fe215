"""``cascade simulate``: a policy under queueing, in virtual time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import cascade
from cascade.cli.edits import check_target
from cascade.cli.reply import Reply, table
from cascade.errors import PolicyError
from cascade.simulation import Arrivals, find_capacity, gamma, on_off, poisson
from cascade.types import finite

if TYPE_CHECKING:
    from pathlib import Path

    from cascade.simulation import Simulation

__all__ = ["simulate", "times"]

T = TypeVar("T", str, str | None)

_SHOWN = 10  # moves
_REQUESTS = 100_000
_SLO = 0.99


def simulate(  # noqa: PLR0913  a command's options
    policy: Path, recording: Path, *, trace: Path | None, process: str | None, requests: int | None,
    seed: int | None, capacity: bool, slo: float | None, plot: Path | None, seconds: str | None,
    deadline: str | None, speed: float | None, **settings: Any,
) -> Reply:  # fmt: skip
    """Simulate a policy and its baselines, or find the highest speed that holds the SLO."""
    from cascade.fitting.recording import Recording
    from cascade.optimize.displays import check_plot

    if capacity:
        _unused("--find-capacity", **{"--speed": speed, "--plot": plot})
    else:
        _unused("a simulation at one speed", **{"--slo": slo})
    if plot is not None:
        check_target(plot)
        plot = check_plot(plot)
    complete_only = settings.pop("complete_only")
    given = cascade.Policy.from_yaml(policy)
    held = Recording.read(recording, complete_only=complete_only)
    when = _arrivals(trace, process, requests, seed)
    settings |= {"seconds": times(seconds), "deadline": _time(deadline)}
    if capacity:
        return _capacity(given, held, when, _SLO if slo is None else slo, settings)
    speed = 1.0 if speed is None else speed
    run = cascade.simulate(given, held, when, speed=speed, **settings)
    lines = [_title(when, speed), table(_rows(run), indent=""), *_moves(run)]
    if plot is not None:
        from cascade.simulation.display import LoadDisplay

        plot.parent.mkdir(parents=True, exist_ok=True)
        LoadDisplay.from_simulation(run).save(plot)
        lines.append(f"Plot: {plot}")
    return Reply("\n".join(lines), run.to_dict())


def _unused(beside: str, **options: object) -> None:
    """Refuse options that would change nothing."""
    for name, given in options.items():
        if given is not None:
            raise PolicyError(f"{name}: means nothing to {beside}")


def _capacity(
    policy: cascade.Policy, held: Any, when: Arrivals, slo: float, settings: dict[str, Any]
) -> Reply:
    speed = find_capacity(policy, held, when, slo=slo, **settings)
    rate = when.rate * speed
    upto = f"up to speed {speed:.4g} ({rate:.4g} / s)"
    if math.isinf(speed):
        upto = f"at any speed that was tried: {len(when.times):,} arrivals are too few to tell"
    text = f"{slo:.2%} of the answers are in time {upto}"
    return Reply(text, {"speed": finite(speed), "rate": finite(rate), "slo": slo})


def _arrivals(
    trace: Path | None, process: str | None, requests: int | None, seed: int | None
) -> Arrivals:
    if trace is not None:
        if process is not None:
            raise PolicyError("simulate: give --trace or --arrivals, one of them, not both")
        _unused("--trace", **{"--requests": requests, "--seed": seed})
        return Arrivals.read(trace)
    if process is None:
        raise PolicyError("simulate: give --trace FILE, or --arrivals such as poisson:20")
    n = _REQUESTS if requests is None else requests
    for name, number, least in (("requests", n, 1), ("seed", seed or 0, 0)):
        if number < least:
            raise PolicyError(f"--{name}: expected {least} or more, got {number}")
    return _process(process, n, seed or 0)


def _process(text: str, n: int, seed: int) -> Arrivals:
    """Make arrivals of ``poisson:RATE``, ``gamma:RATE,CV`` or ``on_off:RATE,ON,OFF[,LOW]``."""
    kind, _, rest = text.partition(":")
    try:
        numbers = [float(part) for part in rest.split(",")]
        if min(numbers) < 0 or numbers[0] <= 0:
            raise ValueError  # noqa: TRY301  one message for all
        if kind == "poisson" and len(numbers) == 1:
            return poisson(numbers[0], n, seed)
        if kind == "gamma" and len(numbers) == 2:
            return gamma(numbers[0], n, numbers[1], seed)
        if kind == "on_off" and len(numbers) in {3, 4}:
            low = numbers[3] if len(numbers) == 4 else 0.0
            return on_off(numbers[0], n, on=numbers[1], off=numbers[2], low=low, seed=seed)
        raise ValueError  # noqa: TRY301
    except (ValueError, ZeroDivisionError):
        raise PolicyError(
            "--arrivals: expected poisson:RATE, gamma:RATE,CV or on_off:RATE,ON,OFF[,LOW], "
            f"got {text!r}"
        ) from None


def times(text: str | None) -> dict[str, float | str]:
    """Read ``small=2ms,large=0.1``; a plain number is seconds.

    >>> times("small=2ms,large=0.1")
    {'small': '2ms', 'large': 0.1}
    """
    found: dict[str, float | str] = {}
    for part in (text or "").split(",") if text else ():
        name, sign, time = part.partition("=")
        if not sign or not name.strip() or not time.strip():
            raise PolicyError(f"--seconds: expected TIER=TIME such as small=2ms, got {part!r}")
        found[name.strip()] = _time(time.strip())
    return found


def _time(text: T) -> T | float:
    """Return plain seconds as the number that they are; else what was given."""
    try:
        return float(text or "")
    except ValueError:
        return text


def _title(when: Arrivals, speed: float) -> str:
    rate = when.rate * speed
    return f"{len(when.times):,} arrivals at {rate:.4g} / s (speed {speed:g})\n"


def _moves(run: Simulation) -> list[str]:
    """Tell what followed the load, the first and the last of it."""
    moves = () if run.log is None else run.log.moves
    told = [f"{move.at / 1e9:8.1f} s  {move}" for move in moves]
    if len(told) > _SHOWN:
        told[_SHOWN // 2 : -_SHOWN // 2] = [f"          … {len(told) - _SHOWN} more"]
    return ["", *told] if told else []


def _rows(run: Simulation) -> list[tuple[str, ...]]:
    tiers = [*run.calls]
    head = ("", "in time", "accuracy", "forced", "shed", "p50, ms", "p99, ms")
    rows = [(*head, *(f"{name} busy" for name in tiers))]
    shown = {"this policy": run} | {name.replace("_", "-"): b for name, b in run.baselines.items()}
    for name, one in shown.items():
        shares = (one.slo_attainment, one.accuracy, one.forced_accepts, one.shed)
        cells = [f"{share:.2%}" for share in shares]
        cells += ["-" if time is None else f"{time * 1e3:.3g}" for time in (one.p50, one.p99)]
        rows.append((name, *cells, *(f"{one.utilization[tier]:.1%}" for tier in tiers)))
    return rows
