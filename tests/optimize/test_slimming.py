"""The gate and the choice, by scripted numbers: no test here looks at a clock."""

import numpy as np
import pytest
from scipy.stats import binom

from cascade.optimize.gate import accuracy_gate, gate_rows_needed
from cascade.optimize.slimming import ORIGINAL, select

N = 1_000
TRUTH = np.zeros(N, dtype=int)


def answers(losses):
    values = TRUTH.copy()
    values[:losses] = 1
    return values


def clock(noise=0.0, seed=0, **seconds):
    """Measure by script: moods that all share in a round, and noise of each one's own."""
    random = np.random.default_rng(seed)
    asked = []

    def measure(names, rounds):
        asked.append(tuple(names))
        moods = random.lognormal(0.0, 0.3, rounds)
        return {
            name: seconds[name] * moods * random.lognormal(0.0, noise, rounds) for name in names
        }

    measure.asked = asked
    return measure


def chosen(losses, measure, truth=TRUTH, max_loss=0.01, alpha=0.1):
    held = {ORIGINAL: answers(0), **{name: answers(k) for name, k in losses.items()}}
    kept, found = select(held, truth, measure, max_loss=max_loss, alpha=alpha)
    return kept, {one.name: one for one in found}


def test_the_fastest_that_passes_is_kept():
    measure = clock(original=1.0, fast=0.5, faster=0.4)
    kept, found = chosen({"fast": 0, "faster": 2}, measure)
    assert kept == "faster"
    assert found["faster"].verdict == "kept"
    assert found["fast"].verdict == "passes; another is as fast or faster"
    assert found["original"].gate is None
    assert found["faster"].accuracy == pytest.approx(0.998)


def test_a_slower_one_is_never_chosen_however_accurate():
    kept, found = chosen({"int8": 0}, clock(original=1.0, int8=4.0))
    assert kept is None
    assert found["int8"].verdict == "slower"
    assert found["int8"].gate.passes


def test_an_inaccurate_one_is_refused_with_its_p_value():
    kept, found = chosen({"tiny": 30, "small": 0}, clock(original=1.0, tiny=0.1, small=0.8))
    assert kept == "small"
    assert found["tiny"].gate.p_value == pytest.approx(binom.cdf(30, N, 0.01))
    assert found["tiny"].verdict == "refused by the gate, p = 1 > 0.05"


def test_those_that_are_faster_share_alpha():
    """Five losses in 1,000 pass alone at 0.1 (p = 0.066), and not as one of two."""
    kept, found = chosen({"a": 5}, clock(original=1.0, a=0.5))
    assert (kept, found["a"].gate.level) == ("a", 0.1)
    kept, found = chosen({"a": 5, "b": 5}, clock(original=1.0, a=0.5, b=0.6))
    assert (kept, found["a"].gate.level) == (None, 0.05)
    kept, found = chosen({"a": 5, "slow": 0}, clock(original=1.0, a=0.5, slow=2.0))
    assert (kept, found["a"].gate.level) == ("a", 0.1)  # one that is no choice takes no share


def test_among_equals_the_one_that_loses_least_is_kept_on_every_run():
    names = {"a": 2, "b": 1, "c": 2}
    runs = [
        chosen(names, clock(0.02, seed, original=1.0, a=0.5, b=0.505, c=0.5))[0]
        for seed in range(10)
    ]
    assert runs == ["b"] * 10


def test_luck_on_the_first_rounds_does_not_help():
    again = iter([0.5, 1.0])

    def measure(names, rounds):
        time = next(again)
        return {name: np.full(rounds, 1.0 if name == ORIGINAL else time) for name in names}

    kept, found = chosen({"lucky": 0}, measure)
    assert kept is None
    assert found["lucky"].verdict == "not measurably faster when measured again"


@pytest.mark.parametrize("seed", range(10))
def test_noise_is_no_gain(seed):
    assert chosen({"same": 0}, clock(0.2, seed, original=1.0, same=1.0))[0] is None


def test_too_few_rows_are_said():
    held = {ORIGINAL: np.zeros(50), "fast": np.zeros(50)}
    measure = clock(original=1.0, fast=0.5)
    kept, found = select(held, np.zeros(50), measure, max_loss=0.01, alpha=0.1)
    assert kept is None
    assert found[1].verdict.endswith("230 rows are the least that could")


def test_without_truth_the_answers_must_agree():
    gate = accuracy_gate(np.array([0, 1, 1]), np.array([0, 1, 0]), None, 0.5, 0.1)
    assert (gate.losses, gate.n) == (1, 3)
    right = accuracy_gate(np.array([0, 1, 1]), np.array([0, 1, 0]), np.zeros(3), 0.5, 0.1)
    assert right.losses == 0  # the original is wrong there


@pytest.mark.parametrize(("n", "max_loss"), [(300, 0.01), (300, 0.05), (1_000, 0.02)])
def test_the_gate_is_valid_by_enumeration(n, max_loss):
    """At a true loss of max_loss it passes with probability at most its level, whatever that is."""
    counts = np.arange(n + 1)
    values = np.zeros(n)
    p_values = np.array([
        accuracy_gate(values, (np.arange(n) < k).astype(float), values, max_loss, 0.1).p_value
        for k in counts
    ])  # fmt: skip
    chances = binom.pmf(counts, n, max_loss)
    for level in (0.01, 0.05, 0.1, 0.3):
        assert chances[p_values <= level].sum() <= level
    assert (p_values <= 0.1).any()


def test_rows_needed():
    assert binom.cdf(0, gate_rows_needed(0.02, 0.05), 0.02) <= 0.05
    assert binom.cdf(0, gate_rows_needed(0.02, 0.05) - 1, 0.02) > 0.05
