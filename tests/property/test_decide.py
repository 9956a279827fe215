"""What holds for every way through the decision."""

import math

from hypothesis import given
from hypothesis import strategies as st

from cascade.decide import Call, Decision, Finish, Ladder
from cascade.facts import Failed, Refused, Replied, TimedOut
from cascade.types import Disposition, OperatingPoint, Reason

UNTIL = 1_000
confidences = st.one_of(st.floats(0, 1), st.sampled_from([math.nan, math.inf, -1.0, 2.0, None]))
facts = st.one_of(
    st.tuples(st.just("replied"), confidences),
    st.tuples(st.just("failed"), st.none()),
    st.tuples(st.just("timed out"), st.none()),
    st.tuples(st.just("refused"), st.sampled_from([Reason.OVERLOAD, Reason.BREAKER])),
)
etas_of = st.one_of(st.integers(0, 300), st.sampled_from([-1, -2, -3, 5_000]))


@st.composite
def worlds(draw):
    tiers = draw(st.integers(1, 4))
    thresholds = tuple(
        draw(
            st.lists(
                st.one_of(st.floats(0, 1), st.just(2.0)), min_size=tiers - 1, max_size=tiers - 1
            )
        )
    )
    skip = tuple(sorted(draw(st.lists(st.floats(0, 1), max_size=tiers - 1))))
    return {
        "tiers": tiers,
        "point": OperatingPoint(0, thresholds, skip, certified=draw(st.booleans())),
        "floor": draw(st.integers(0, tiers - 1)),
        "hard": draw(st.floats(0, 1)),
        "facts": draw(st.lists(facts, min_size=2 * tiers, max_size=2 * tiers)),
        "etas": draw(st.lists(etas_of, min_size=tiers, max_size=tiers)),
        "abstain": draw(st.one_of(st.none(), st.floats(0, 1))),
        "first_only": draw(st.booleans()),
    }


def fact_of(kind, detail, tier, now):
    if kind == "replied":
        return Replied(tier, f"value {tier}", detail, now, now, now + 10)
    if kind == "failed":
        return Failed(tier, ValueError(), now, now, now + 10)
    if kind == "timed out":
        return TimedOut(tier, now, now, now + 10)
    return Refused(tier, detail, now)


def play(world):
    ladder = Ladder(
        tuple(f"t{i}" for i in range(world["tiers"])), world["abstain"], world["first_only"]
    )
    decision = Decision(ladder, world["floor"])
    etas = [lambda eta=eta: eta for eta in world["etas"]]
    move = decision.start(world["point"], world["hard"], 0, UNTIL, etas)
    now, asked, replies = 0, [], {}
    for kind, detail in world["facts"]:
        if not isinstance(move, Call):
            break
        asked.append(move.tier)
        fact = fact_of(kind, detail, move.tier, now)
        if isinstance(fact, Replied):
            replies[move.tier] = fact
        now = fact.finished
        move = decision.step(fact, now, etas)
    return decision, move, asked, replies


@given(worlds())
def test_every_request_ends_once_within_2k_steps(world):
    decision, move, asked, _ = play(world)
    assert isinstance(move, Finish)
    assert len(decision.steps) <= 2 * world["tiers"]
    assert len(set(asked)) == len(asked)


@given(worlds())
def test_the_floor_is_never_undercut(world):
    decision, move, asked, _ = play(world)
    assert all(tier >= world["floor"] for tier in asked)
    assert move.rank == -1 or move.rank >= world["floor"]
    assert move.rank == (-1 if decision.best is None else decision.best.tier)


@given(worlds())
def test_only_sound_replies_answer_and_only_sure_ones_are_accepted(world):
    decision, move, _, replies = play(world)
    if decision.best is None:
        assert move.disposition in {Disposition.SHED, Disposition.FAILED}
        return
    answer, top = decision.best, world["tiers"] - 1
    assert answer is replies[answer.tier]
    assert answer.confidence is None or 0.0 <= answer.confidence <= 1.0
    if move.disposition is Disposition.ACCEPTED and answer.tier != top:
        assert answer.confidence >= world["point"].thresholds[answer.tier]


@given(worlds())
def test_covered_means_that_the_certified_rule_answers_the_same(world):
    _, move, _, replies = play(world)
    if not move.covered or move.rank == world["tiers"] - 1:
        return
    assert world["point"].certified
    point, tier = world["point"], world["floor"]
    for cut in point.skip_above[tier:]:
        if world["hard"] < cut:
            break
        tier += 1
    while replies.get(tier) is None or replies[tier].confidence < point.thresholds[tier]:
        assert point.thresholds[tier] > 1.0 or tier in replies
        tier += 1
    assert move.rank == tier


@given(worlds())
def test_a_replay_of_the_same_facts_is_the_same_decision(world):
    first, second = play(world), play(world)
    assert first[0].steps == second[0].steps or any(step[3] != step[3] for step in first[0].steps)
    assert (first[1].disposition, first[1].reason, first[2]) == (
        second[1].disposition, second[1].reason, second[2],
    )  # fmt: skip
