"""The plots: what they show, and that they need nothing open."""

import numpy as np
import pytest

import cascade
from cascade import Recording
from cascade.fitting.displays import CostLossDisplay, ReliabilityDisplay, RiskCoverageDisplay


@pytest.fixture(scope="module")
def held():
    rng, n = np.random.default_rng(0), 4_000
    sure = rng.random(n)
    return Recording.from_columns(
        {"small.correct": rng.random(n) < 0.5 + sure / 2, "small.confidence": 0.5 + sure / 2,
         "large.correct": rng.random(n) < 0.98, "small.cost": [1.0] * n, "large.cost": [20.0] * n}
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(held):
    return cascade.fit(held, max_loss=0.03)


def test_risk_and_coverage_are_those_of_the_certificate(found):
    shown = RiskCoverageDisplay.from_certificate(found.certificate).plot()
    assert shown.coverage[0] == shown.loss[0] == 0.0
    assert shown.loss[found.certificate.certified - 1] < 0.03
    assert "bound" in {line.get_label().split(",")[0] for line in shown.ax_.lines}
    assert shown.figure_ is shown.ax_.figure


def test_cost_and_loss_of_the_baselines(held, found):
    shown = CostLossDisplay.from_recording(held, found).plot()
    assert set(shown.marks) == {"small alone", "large alone", "oracle", "certified"}
    assert shown.marks["large alone"] == (20.0, 0.0)
    assert shown.marks["certified"][0] == found.cost
    assert shown.marks["oracle"][0] < shown.marks["certified"][0] < 20.0
    assert shown.curve[0].tolist() == [20.0, 0.0]
    assert shown.curve[-1] == pytest.approx(shown.marks["small alone"])


def test_reliability_is_near_the_line_for_an_honest_tier(held):
    bins = ReliabilityDisplay.from_recording(held).plot().bins["small"]
    assert np.abs(bins[:, 0] - bins[:, 1]).max() < 0.1


def test_drawing_on_given_axes(found):
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    assert RiskCoverageDisplay.from_certificate(found.certificate).plot(ax=axes).ax_ is axes


@pytest.mark.parametrize("display", [CostLossDisplay, ReliabilityDisplay])
def test_without_truth_there_is_nothing_to_show(display):
    with pytest.raises(ValueError, match="needs the truth"):
        display.from_recording(
            {"a.value": [1, 2], "a.confidence": [0.5, 0.6], "b.value": [1, 1], "a.cost": [1, 1],
             "b.cost": [2, 2]}
        )  # fmt: skip
