import attrs
import numpy as np
import pytest

from cascade.optimize.halving import FULL, SHARE, changed, choose, halve


@attrs.frozen
class Setting:
    threads: int = 1
    level: str = "all"
    cap: int = 1


class Script:
    """Measures by a function of the setting, with noise of its own and moods that all share."""

    def __init__(self, cost, noise=0.0, seed=0):
        self.cost, self.noise, self.random = cost, noise, np.random.default_rng(seed)
        self.asked = []

    def __call__(self, settings, rounds):
        self.asked.append((len(settings), rounds))
        moods = self.random.lognormal(0.0, 0.3, rounds)
        jitter = self.random.lognormal(0.0, self.noise, (len(settings), rounds))
        return [list(self.cost(s) * moods * j) for s, j in zip(settings, jitter, strict=True)]


SPACE = [Setting(t, level, c) for t in (1, 2) for level in ("all", "off") for c in (1, 2, 4, 8, 16)]


def test_finds_what_is_faster_and_measures_it_anew():
    script = Script(lambda s: 1.0 / s.threads)
    found = choose(Setting(), SPACE, script)
    assert found.after == Setting(threads=2)
    assert found.comparison.ratio == pytest.approx(0.5)
    assert found.seconds[1] == pytest.approx(found.seconds[0] / 2)
    assert script.asked == [(20, 1), (7, 2), (3, 4), (2, 15)]
    assert found.measurements == 20 + 14 + 12 + 30


def test_what_is_in_force_stays_when_all_are_alike():
    found = choose(Setting(), SPACE, Script(lambda s: 1.0))
    assert (found.after, found.comparison) == (Setting(), None)


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_no_gain(seed):
    found = choose(Setting(), SPACE, Script(lambda s: 1.0, noise=0.1, seed=seed))
    assert found.after == Setting()


def test_luck_in_the_search_does_not_help():
    """The first time it is looked at, everything but what is in force looks fast."""
    fresh = []

    def measure(settings, rounds):
        lucky = rounds < 15
        fresh.append(lucky)
        return [[0.1 if lucky and s != Setting() else 1.0] * rounds for s in settings]

    found = choose(Setting(), SPACE, measure)
    assert found.after == Setting()
    assert not found.comparison.faster
    assert fresh[-1] is False


def test_a_small_gain_is_not_worth_it():
    assert choose(Setting(), SPACE, Script(lambda s: 0.97 if s.threads == 2 else 1.0)).after == (
        Setting()
    )


def test_each_change_has_to_pay_for_itself():
    """The level gains 3 %: enough to rank by, and not enough to be changed for."""
    cost = {"all": 1.0, "off": 0.97}
    script = Script(lambda s: cost[s.level] * (0.5 if s.cap == 4 else 1.0))
    assert choose(Setting(), SPACE, script).after == Setting(cap=4)


def test_changes_that_need_each_other_stay_together():
    script = Script(lambda s: 0.4 if (s.threads, s.cap) == (2, 4) else 1.0)
    assert choose(Setting(), SPACE, script).after == Setting(threads=2, cap=4)


def test_the_same_best_is_found_nine_times_in_ten_on_a_noisy_machine():
    cost = {1: 1.0, 2: 0.7, 4: 0.55, 8: 0.4, 16: 0.6}
    levels = [attrs.evolve(s, level=s.level + str(i)) for i in range(2) for s in SPACE]
    runs = [
        choose(
            Setting(level="all0"),
            levels,
            Script(lambda s: cost[s.cap] * (0.85 if s.threads == 2 else 1.0), 0.05, seed),
        )
        for seed in range(20)
    ]
    assert sum(run.after == Setting(2, "all0", 8) for run in runs) >= 18
    exhaustive = len(levels) * (1 + 2 + 4 + 15)
    assert max(run.measurements for run in runs) <= 0.25 * exhaustive


def test_what_is_nearly_alike_is_told_apart_by_a_rule():
    """Another level gains 3 %, which is not worth a change: nobody's luck decides."""
    level = {"all": 1.0, "off": 0.97}

    def price(s):
        return (0.75 if s.cap == 2 else 1.0) * level[s.level]

    some = [*SPACE[:10], *SPACE[15:17]]
    runs = [choose(Setting(), some, Script(price, 0.02, seed)).after for seed in range(20)]
    assert runs.count(Setting(cap=2)) >= 18


@pytest.mark.parametrize("n", [8, 12, 16, 20, 40, 96, 200])
def test_a_quarter_of_an_exhaustive_search_is_the_most(n):
    """Whatever wins, and however much it changes."""
    settings = [Setting(i % 3, str(i % 5), i) for i in range(n)]
    for best in (settings[0], settings[1], settings[-1]):
        script = Script(lambda s, best=best: 0.5 if s == best else 1.0)
        found = choose(settings[0], settings, script)
        assert found.after == best
        assert found.measurements == sum(a * b for a, b in script.asked)
        assert found.measurements <= SHARE * n * FULL


def test_halving_keeps_a_third_and_ends():
    script = Script(lambda s: s.cap)
    assert halve(SPACE, script).cap == 1
    assert [count for count, _ in script.asked] == [20, 7, 3]
    assert halve(SPACE[:1], script) == SPACE[0]


def test_changed_names_the_fields():
    assert changed(Setting(), Setting(cap=2)) == {"cap": (1, 2)}
