"""Put a changed model into a policy: model, digest, temperature, certificate, profile, golden."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from cascade.cli.edits import Edits
from cascade.cli.profile import progress
from cascade.files import all_or_none, replace_file

if TYPE_CHECKING:
    from cascade.errors import CannotCertify
    from cascade.optimize.data import Data
    from cascade.optimize.running import Running
    from cascade.optimize.slimming import Slimming
    from cascade.policy import Certificate, Policy

__all__ = ["Change", "model_path"]


class Change:
    """Everything that changes with a model, made before any of it is written; the policy is last.

    ``said`` is what to tell, ``next`` the commands to run, ``certificate`` the one to write.
    """

    def __init__(self, path: Path, policy: Policy, found: Slimming) -> None:
        self.path, self.policy, self.found = path, policy, found
        self.edits = Edits(path)
        self.said: list[str] = []
        self.next: list[str] = []
        self.certificate: Certificate | None = None
        self._files: dict[Path, bytes] = {}
        self._changed = self._edited()

    def _edited(self) -> Any:
        """Edit the policy's text; return the policy as it will be, without certificate."""
        given: Any = self.policy
        index = [spec.name for spec in given.tiers].index(self.found.tier)
        spec, warmth = given.tiers[index], self.found.temperature
        digest = hashlib.sha256(self.found.model).hexdigest()
        name = str(Path(spec.model).with_name(f"{spec.name}-{digest[:8]}.onnx"))
        settings: dict[str, Any] = {"model": name, "sha256": digest}
        if warmth != spec.confidence.temperature:
            held = self.edits.keys(("tiers", index, "confidence"))
            score = {} if held else {"score": spec.confidence.score}
            settings["confidence"] = {**score, "temperature": warmth}
        self.edits.tier(index, settings)
        self._files[model_path(self.path, name)] = self.found.model
        confidence = attrs.evolve(spec.confidence, temperature=warmth)
        changed = attrs.evolve(spec, model=name, sha256=digest, confidence=confidence)
        tiers = (*given.tiers[:index], changed, *given.tiers[index + 1 :])
        return attrs.evolve(given, tiers=tiers, certificate=None, mode="top_only")

    def certify(self, rows: Data, seed: int) -> CannotCertify | None:
        """Renew the certificate, or put in its place what still holds and say what to run.

        Returns the problem if rows with truth certify nothing.
        """
        from cascade.optimize.certifying import certify_anew, strictest, why_not_certify
        from cascade.optimize.data import split
        from cascade.optimize.policy_text import promise_lines
        from cascade.optimize.running import load_models

        old, policy = self.policy.certificate, shlex.quote(str(self.path))
        if old is None:
            if self.policy.escalation.thresholds is not None:
                self.said.append("The thresholds promise nothing, and were made for the old model.")
                self.next.append(f"cascade fit RECORDING --policy {policy}")
            return None
        reason = why_not_certify(self._changed, old, rows)
        if reason is None:
            progress("certifying anew")
            models = {name: model for name, (_, model) in load_models(self.policy).items()}
            models[self.found.tier] = self.found.model
            made, problem = certify_anew(self._changed, old, split(rows, seed), models)
            if problem is not None:
                return problem
            self.said.append(f"Certified anew on {made.n:,} rows that had no say in the choice.")
        else:
            made = strictest(self._changed, old)
            self.said += [
                f"The certificate is void, and cannot be renewed here: {reason}.",
                "Until it is, every request goes to the top tier.",
            ]
            bounds = f"--max-loss {old.max_loss:g} --alpha {old.alpha:g}"
            self.next.append(f"cascade fit RECORDING --policy {policy} {bounds}")
        if self.found.tier == old.tiers[-1]:
            self.said.append(
                "The promise is against the top tier as it is now; what that lost against the old "
                "one, the gate bounds."
            )
        self.certificate = made
        self.edits.comment(promise_lines(old), promise_lines(made))
        return None

    @property
    def files(self) -> list[Path]:
        """Return what is written, in that order."""
        return [*self._files, self.path]

    def save(self) -> None:
        """Write the files and then the policy; if that is refused, all are as they were.

        Raises:
            PolicyError: what was made is not a valid policy.
        """
        self._beside()
        with all_or_none(self._files):
            for file, content in self._files.items():
                replace_file(file, content)
            self.edits.save()

    def _beside(self) -> None:
        """Make what stands beside the policy: certificate, golden answer and profile."""
        root, escalation = self.path.parent, self.policy.escalation
        if self.certificate is not None and escalation.certificate is not None:
            self._files[root / escalation.certificate] = _json(self.certificate.to_dict())
        golden, tier = self.policy.golden, self.found.tier
        if golden is None or tier not in (tree := _read(root / golden)):
            return
        self._files[root / golden] = _json({**tree, tier: self._golden()})
        if (file := self.policy.profile) is not None:
            self._files[root / file] = _json({**_read(root / file), tier: self._law()})

    def _golden(self) -> Any:
        """Have the new model answer the old one's golden input."""
        from cascade.bundle import load_golden

        held = load_golden(self.policy)[self.found.tier]
        columns: list[Any] = [*held.inputs.values()]
        rows: Any = columns[0] if len(columns) == 1 else dict(held.inputs)
        answers = self._open().tier.run_rows(rows, len(columns[0]), None)
        outputs = dict(zip(held.outputs, answers, strict=False))
        return attrs.evolve(held, outputs=outputs).to_dict()

    def _law(self) -> Any:
        """Measure the new model on the golden input, as an export does."""
        from cascade.optimize.data import golden_rows

        return self._open().law(golden_rows(self.policy)).to_dict()

    def _open(self) -> Running:
        from cascade.optimize.running import open_tier

        spec = next(spec for spec in self._changed.tiers if spec.name == self.found.tier)
        return open_tier(spec, self.found.model, self._changed)


def model_path(policy: Path, model: str) -> Path:
    """Return where a model of the policy at this path is kept."""
    return Path(os.environ.get("CASCADE_MODELS") or policy.parent) / model


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _json(tree: Any) -> bytes:
    return (json.dumps(tree, indent=1) + "\n").encode()
