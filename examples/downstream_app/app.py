"""A small service: which team gets a support ticket. Its policy is ``policy.yaml``.

python examples/downstream_app/app.py "the invoice is wrong"
"""

import sys
from pathlib import Path
from typing import Any

import cascade

POLICY = Path(__file__).parent / "policy.yaml"
WORDS = {"invoice": "billing", "refund": "billing", "password": "accounts", "crash": "engineering"}


def keywords(texts: list[str]) -> list[tuple[str, float]]:
    """Sure where exactly one team is named, unsure of everything else."""
    found = [{team for word, team in WORDS.items() if word in text.lower()} for text in texts]
    return [(teams.pop(), 0.95) if len(teams) == 1 else ("support", 0.3) for teams in found]


def classifier(texts: list[str]) -> list[str]:
    """Stand in for a large model: the team most of whose words occur."""
    return [max(WORDS.values(), key=lambda team: _score(team, text)) for text in texts]


def _score(team: str, text: str) -> int:
    return sum(word in text.lower() for word, owner in WORDS.items() if owner == team)


def assign(router: cascade.Router[str, str], text: str) -> str:
    """Return the team, or 'a person' where the router would rather not say."""
    try:
        outcome = router.route(text)
    except (cascade.DeadlineExceeded, cascade.Overloaded, cascade.TierError):
        return "a person"
    return outcome.value or "a person"


def main(text: str) -> None:
    """Assign one ticket."""
    tiers: dict[str, Any] = {
        "keywords": cascade.tier(keywords, returns="pairs", version="3"),
        "classifier": cascade.tier(classifier, version="1"),
    }
    with cascade.Router.from_yaml(POLICY, tiers=tiers) as router:
        print(assign(router, text))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "the invoice is wrong")
