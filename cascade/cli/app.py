"""The commands and their arguments; what they do is in a module each, imported when asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import attrs
from cyclopts import App, Parameter

import cascade

__all__ = ["app"]

AsJson = Annotated[bool, Parameter(name="--json", negative="")]

app = App(
    name="cascade",
    version=cascade.__version__,
    help="Answer with the cheapest model that can be trusted to answer in time.",
    help_format="plaintext",
)


@app.command
def demo(*, out: Path = Path("cascade-demo"), seed: int = 0, as_json: AsJson = False) -> int:
    """Train, certify and serve a cascade on real data; print what it measured.

    Args:
        out: Folder for the bundle and the plots.
        seed: Seed of the split and of the training.
        as_json: Print one JSON object instead of the tables.
    """
    from cascade.cli.demo import demo as run

    return run(out, seed).print(as_json=as_json)


@app.command
def fit(  # noqa: PLR0913  a command's options
    recording: Path,
    /,
    *,
    tiers: str | None = None,
    max_loss: float = 0.01,
    alpha: float = 0.1,
    loss: str = "auto",
    score: str = "auto",
    covers: str = "auto",
    costs: str | None = None,
    same: str | None = None,
    complete_only: bool = False,
    seed: int = 0,
    out: Path | None = None,
    policy: Path | None = None,
    plots: Path | None = None,
    as_json: AsJson = False,
) -> int:
    """Certify thresholds from a recording; exit status 1 when nothing can be certified.

    Args:
        recording: CSV, CSV.gz or Parquet; a folder or a glob of them.
        tiers: Names, cheapest first, separated by commas; all of the recording's by default.
        max_loss: The bound on the loss against the last tier.
        alpha: The risk that the bound does not hold.
        loss: gross, net, disagreement or auto.
        score: plain, margin, by_label, learned or auto.
        covers: adaptive, fixed_point or auto: whether load may move among the points.
        costs: Of a call per tier, such as 0.01,1; by default what was recorded.
        same: When two answers agree: casefold, strip, number:1e-6 or json.
        complete_only: Leave out rows that lack a tier's value, or the truth that others have.
        seed: Seed of the split.
        out: Folder for a policy of external tiers (default: cascade-policy).
        policy: A policy of yours: only its escalation and confidence are rewritten.
        plots: Folder for plots of risk, cost and reliability.
        as_json: Print one JSON object.
    """
    from cascade.cli.fit import fit as run
    from cascade.cli.fit import numbers

    return run(
        recording, tiers, out, policy, plots,
        max_loss=max_loss, alpha=alpha, loss=loss, score=score, covers=covers,
        costs=numbers(costs), same=same, complete_only=complete_only, seed=seed,
    ).print(as_json=as_json)  # fmt: skip


@app.command
def label(
    recording: Path,
    labels: Path,
    /,
    *,
    on: str = "id",
    out: Path = Path("labelled.csv"),
    as_json: AsJson = False,
) -> int:
    """Join what a router recorded with the truth that came later; write a recording to fit from.

    Args:
        recording: A recording, or the folder of several.
        labels: A table with the columns id and truth, or a folder of several.
        on: The column to join on.
        out: The file to write.
        as_json: Print one JSON object.
    """
    from cascade.cli.label import label as run

    return run(recording, labels, on, out).print(as_json=as_json)


@app.command
def replay(  # noqa: PLR0913  a command's options
    policy: Path,
    recording: Path,
    /,
    *,
    decisions: Path | None = None,
    against: Path | None = None,
    max_loss: float | None = None,
    max_cost: float | None = None,
    costs: str | None = None,
    same: str | None = None,
    complete_only: bool = False,
    as_json: AsJson = False,
) -> int:
    """Show what a policy would have done with a recording; with bounds, exit 1 if they break.

    Args:
        policy: The policy's YAML file; its models are not opened.
        recording: CSV, CSV.gz or Parquet; a folder or a glob of them.
        decisions: Write row, tier and disposition to this CSV file.
        against: Another policy to compare with; the bounds then say how much worse is allowed.
        max_loss: Bound on the loss of accuracy against the top tier.
        max_cost: Bound on the mean cost of a request.
        costs: Of a call per tier, such as 0.01,1; by default what was recorded.
        same: When two answers agree: casefold, strip, number:1e-6 or json.
        complete_only: Leave out rows that lack a tier's value, or the truth that others have.
        as_json: Print one JSON object.
    """
    from cascade.cli.fit import numbers
    from cascade.cli.replay import replay as run

    return run(
        policy, recording, decisions=decisions, against=against, max_loss=max_loss,
        max_cost=max_cost, costs=numbers(costs), same=same, complete_only=complete_only,
    ).print(as_json=as_json)  # fmt: skip


@app.command
def simulate(  # noqa: PLR0913  a command's options
    policy: Path,
    recording: Path,
    /,
    *,
    trace: Path | None = None,
    arrivals: str | None = None,
    requests: int | None = None,
    seed: int | None = None,
    speed: float | None = None,
    deadline: str | None = None,
    seconds: str | None = None,
    find_capacity: bool = False,
    slo: float | None = None,
    plot: Path | None = None,
    same: str | None = None,
    complete_only: bool = False,
    as_json: AsJson = False,
) -> int:
    """Show how a policy fares under load: a trace of arrivals, queues and deadlines.

    Args:
        policy: The policy's YAML file; its models are not opened.
        recording: CSV, CSV.gz or Parquet; a folder or a glob of them; request i takes row i mod n.
        trace: CSV with arrival_s, and deadline_s where requests name one.
        arrivals: Instead of a trace: poisson:RATE, gamma:RATE,CV or on_off:RATE,ON,OFF[,LOW].
        requests: How many of them (default 100,000).
        seed: Of the arrivals (default 0).
        speed: How many times as fast the arrivals come (default 1).
        deadline: For requests that name none, such as 50ms (default: the policy's).
        seconds: A tier's time, such as small=2ms,large=0.1 (default: recorded, else the profile).
        find_capacity: Find the highest speed at which the SLO still holds; simulate nothing else.
        slo: The share of requests to be answered in time (default 0.99).
        plot: Save a plot over time to this file.
        same: When two answers agree: casefold, strip, number:1e-6 or json.
        complete_only: Leave out rows that lack a tier's value, or the truth that others have.
        as_json: Print one JSON object.
    """
    from cascade.cli.simulate import simulate as run

    return run(
        policy, recording, trace=trace, process=arrivals, requests=requests, seed=seed,
        capacity=find_capacity, slo=slo, plot=plot, seconds=seconds, speed=speed,
        deadline=deadline, same=same, complete_only=complete_only,
    ).print(as_json=as_json)  # fmt: skip


@app.command
def check(
    policy: Path,
    /,
    *,
    models: bool = True,
    recording: Path | None = None,
    same: str | None = None,
    complete_only: bool = False,
    as_json: AsJson = False,
) -> int:
    """Validate a policy, its models and its certificate; warn of known pitfalls.

    Args:
        policy: The policy's YAML file.
        models: Read the models' digests and open them.
        recording: Redo the certificate's test on the recording that it was fitted from.
        same: When two answers agree, as in that fit.
        complete_only: Leave out rows that lack something, as in that fit.
        as_json: Print one JSON object: ok, issues, warnings.
    """
    from cascade.cli.check import check as run

    return run(
        policy, models=models, recording=recording, same=same, complete_only=complete_only
    ).print(as_json=as_json)


@app.command
def explain(policy: Path, /, *, workers: int | None = None, as_json: AsJson = False) -> int:
    """Show every effective value of a policy and where it came from.

    Args:
        policy: The policy's YAML file.
        workers: Estimate the memory of so many processes.
        as_json: Print one JSON object: path to value and source.
    """
    from cascade.cli.explain import explain as run

    return run(policy, workers=workers).print(as_json=as_json)


@app.command
def schema(*, as_json: AsJson = False) -> int:
    """Print the JSON Schema (draft-07) of policies, for editors and other checkers.

    Args:
        as_json: Print it on one line.
    """
    from cascade.cli.schema import schema as run

    return run().print(as_json=as_json)


@app.command
def pin(policy: Path, /, *, as_json: AsJson = False) -> int:
    """Write the digests of the models into a policy, keeping its comments.

    Args:
        policy: The policy's YAML file; rewritten in place.
        as_json: Print one JSON object: the digest per tier, and which changed.
    """
    from cascade.cli.pin import pin as run

    return run(policy).print(as_json=as_json)


@app.command
def profile(
    policy: Path,
    /,
    data: Path | None = None,
    *,
    plot: Path | None = None,
    report: Path | None = None,
    as_json: AsJson = False,
) -> int:
    """Measure every tier, find the bottleneck, and write the profile that lanes start from.

    Args:
        policy: The policy's YAML file; only its ``profile`` may be added, comments stay.
        data: Rows as .npy, or .npz with X and y (default: the golden inputs of the bundle).
        plot: Save a plot over batch sizes to this file.
        report: Try every smaller model of every tier; write tables, a plot and the fastest ladder
            that keeps the promise to this folder. The policy itself does not change.
        as_json: Print one JSON object.
    """
    from cascade.cli.profile import profile as run

    return run(policy, data, plot=plot, report=report).print(as_json=as_json)


@app.command
def tune(
    policy: Path,
    /,
    data: Path | None = None,
    *,
    objective: str,
    rate: float | None = None,
    tiers: str | None = None,
    providers: str | None = None,
    dry_run: bool = False,
    as_json: AsJson = False,
) -> int:
    """Find how each model runs best here, and write it into the policy; answers do not change.

    Args:
        policy: The policy's YAML file; comments stay.
        data: Rows as .npy or .npz (default: the golden inputs of the bundle).
        objective: p50, p99 (under --rate), throughput or cpu (per call).
        rate: Requests per second.
        tiers: Names, separated by commas; all ONNX tiers by default.
        providers: Execution providers to try, separated by commas (default: all that run here).
        dry_run: Show the difference, and write nothing.
        as_json: Print one JSON object.
    """
    from cascade.cli.tune import tune as run

    return run(
        policy, data, objective, rate=rate, tiers=tiers, providers=providers, dry_run=dry_run
    ).print(as_json=as_json)


@Parameter(name="*")
@attrs.frozen(kw_only=True)
class Smaller:
    """What quantising and pruning have in common."""

    data: Path
    "Rows as .npy, or .npz with X and y, that the model was not trained on."
    max_loss: float = 0.01
    "The share of its right answers that the new model may lose."
    alpha: float = 0.1
    "The risk that it loses more."
    seed: int = 0
    "Seed of the split into rows to calibrate, to choose by and to certify on."
    dry_run: bool = False
    "Measure and show, and write nothing."
    as_json: AsJson = False
    "Print one JSON object."

    def make(self, policy: Path, tier: str, way: str) -> int:
        """Make a tier's model smaller in this way, and print what came of it."""
        from cascade.cli.smaller import smaller as run

        given = attrs.asdict(self)
        as_json, data = given.pop("as_json"), given.pop("data")
        return run(policy, tier, data, way, **given).print(as_json=as_json)


@app.command
def quantize(policy: Path, tier: str, /, *, how: Smaller) -> int:
    """Quantise a tier's model where that is faster and loses little; certify anew.

    Args:
        policy: The policy's YAML file; comments stay.
        tier: The tier's name.
        how: The rows, the gate, and whether to write.
    """
    return how.make(policy, tier, "quantize")


@app.command
def prune(policy: Path, tier: str, /, *, how: Smaller) -> int:
    """Prune a tier's model where that is faster and loses little; certify anew.

    Args:
        policy: The policy's YAML file; comments stay.
        tier: The tier's name.
        how: The rows, the gate, and whether to write.
    """
    return how.make(policy, tier, "prune")


@app.command
def doctor(*, as_json: AsJson = False) -> int:
    """Show what is installed, providers and cores, what is missing, and name clashes.

    Args:
        as_json: Print one JSON object.
    """
    from cascade.cli.doctor import doctor as run

    return run().print(as_json=as_json)
