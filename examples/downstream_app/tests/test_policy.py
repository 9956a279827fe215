"""The application's own suite: its policy under test, without models. Run it with ``pytest``."""

import sys
from pathlib import Path

import pytest

from cascade.testing import (
    assert_disposition,
    assert_tier,
    async_router_for,
    check_tier,
    run_virtual,
    scripted,
)

sys.path.insert(0, str(Path(__file__).parents[1]))
import app

POLICY = Path(app.POLICY)


def test_a_sure_keyword_needs_no_model(cascade_router):
    classifier = scripted(default="never asked")
    router = cascade_router("../policy.yaml", keywords=("billing", 0.8), classifier=classifier)
    assert_tier(router.route("my invoice"), "keywords")
    assert classifier.calls == []


def test_an_unsure_one_is_escalated(cascade_router):
    router = cascade_router("../policy.yaml", keywords=("support", 0.79), classifier="accounts")
    outcome = router.route("help")
    assert_tier(outcome, "classifier")
    assert_disposition(outcome, "accepted", "top")


def test_the_second_asker_is_served_from_the_cache(cascade_router):
    router = cascade_router("../policy.yaml", keywords=("billing", 0.9))
    router.route("my invoice")
    assert_disposition(router.route("my invoice"), "cached")


def test_a_broken_classifier_leaves_the_keywords_or_a_person(cascade_router):
    broken = scripted(error=ConnectionError())
    unsure = cascade_router("../policy.yaml", keywords=("support", 0.5), classifier=broken)
    assert_disposition(unsure.route("help"), "degraded", "fault")
    clueless = cascade_router("../policy.yaml", keywords=("support", 0.1), classifier=broken)
    assert app.assign(clueless, "help") == "a person"


def test_a_slow_classifier_is_left_at_the_deadline(cascade_router):
    slow = scripted(default="accounts", seconds=1.0)
    router = cascade_router("../policy.yaml", keywords=("support", 0.5), classifier=slow)
    outcome = router.route("help")
    assert_disposition(outcome, "degraded", "deadline")
    assert outcome.latency.total == pytest.approx(0.2)


def test_a_hanging_classifier_is_left_at_the_deadline_in_an_event_loop():
    async def main(loop):
        keywords = scripted(default=("support", 0.5), asynchronous=True)
        classifier = scripted(hangs=True)
        router = async_router_for(POLICY, loop=loop, keywords=keywords, classifier=classifier)
        return await router.route("help")

    outcome = run_virtual(main)
    assert_disposition(outcome, "degraded", "deadline")
    assert outcome.latency.total == pytest.approx(0.2)


def test_the_tiers_are_fit_to_serve():
    import cascade

    rows = ["the invoice", "my password", "hello"]
    check_tier(cascade.tier(app.keywords, returns="pairs"), rows)
    check_tier(app.classifier, rows)
