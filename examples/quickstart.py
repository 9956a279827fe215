"""Two plain functions make a cascade: the second is asked when the first is not sure."""

import cascade


def rule(texts: list[str]) -> list[tuple[str, float]]:
    return [("spam", 0.99) if "prize" in text else ("ham", 0.60) for text in texts]


def model(texts: list[str]) -> list[str]:
    return ["spam" if "prize" in text or "winner" in text else "ham" for text in texts]


ladder = [{"name": "rule", "kind": "external"}, {"name": "model", "kind": "external"}]
settings = {"version": 1, "name": "spam", "deadline": "1s", "tiers": ladder}
policy = cascade.Policy.from_dict({**settings, "escalation": {"thresholds": [0.9]}})
tiers = {"rule": cascade.tier(rule, returns="pairs"), "model": model}
with cascade.Router(policy, tiers=tiers) as router:
    for text in ("claim your prize", "you are a winner", "lunch?"):
        outcome = router.route(text)
        print(f"{text!r}: {outcome.value} (by {outcome.tier}, {outcome.reason})")
