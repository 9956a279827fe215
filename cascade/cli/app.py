"""The commands and their arguments; what they do is in a module each, imported when asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
def check(policy: Path, /, *, models: bool = True, as_json: AsJson = False) -> int:
    """Validate a policy, its models and its certificate; warn of known pitfalls.

    Args:
        policy: The policy's YAML file.
        models: Read the models' digests and open them.
        as_json: Print one JSON object: ok, issues, warnings.
    """
    from cascade.cli.check import check as run

    return run(policy, models=models).print(as_json=as_json)


@app.command
def explain(policy: Path, /, *, as_json: AsJson = False) -> int:
    """Show every effective value of a policy and where it came from.

    Args:
        policy: The policy's YAML file.
        as_json: Print one JSON object: path to value and source.
    """
    from cascade.cli.explain import explain as run

    return run(policy).print(as_json=as_json)


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
def doctor(*, as_json: AsJson = False) -> int:
    """Show what is installed, providers and cores, what is missing, and name clashes.

    Args:
        as_json: Print one JSON object.
    """
    from cascade.cli.doctor import doctor as run

    return run().print(as_json=as_json)
