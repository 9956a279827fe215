import numpy as np
import pytest

from cascade.calibration import log_probabilities, temper
from cascade.fitting.temperature import fit_temperature


def drawn(rng, n, temperature):
    """Rows whose classes follow softmax(z), reported as softmax(z · temperature)."""
    scale = rng.normal(0, 2, (n, 4))
    honest = temper(scale, 1.0)
    truth = (honest.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1)
    return temper(scale, 1.0 / temperature), truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_finds_the_temperature_that_was_used(temperature):
    reported, truth = drawn(np.random.default_rng(0), 20_000, temperature)
    assert fit_temperature(reported, truth) == pytest.approx(temperature, rel=0.05)


def test_logits_and_probabilities_give_the_same():
    reported, truth = drawn(np.random.default_rng(1), 500, 2.0)
    logits = log_probabilities(reported) + 3.0
    assert fit_temperature(logits, truth, logits=True) == fit_temperature(reported, truth)


def test_rows_without_an_error_do_not_saturate_the_confidence():
    rng = np.random.default_rng(2)
    shares = rng.uniform(0.6, 0.95, 100)
    rows = np.column_stack([shares, 1 - shares])
    confidences = temper(log_probabilities(rows), fit_temperature(rows, np.zeros(100, int)))[:, 0]
    assert len(np.unique(confidences)) == 100
    assert confidences.max() < 1.0


def test_nothing_to_learn_from():
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, int)) == 1.0
    assert fit_temperature(np.ones((5, 1)), np.zeros(5, int)) == 1.0
    assert fit_temperature(np.full((5, 2), np.nan), np.zeros(5, int)) == 1.0
