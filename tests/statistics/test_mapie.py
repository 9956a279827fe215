"""The same points are certified as by MAPIE's learn-then-test, on 300 random sets."""

import numpy as np
import pytest

from cascade.fitting import fixed_sequence_test

controller = pytest.importorskip("mapie.risk_control._base_controller")


def test_the_same_prefix():
    rng = np.random.default_rng(0)
    for _ in range(300):
        n, max_loss = int(rng.choice([200, 500, 1_000])), float(rng.choice([0.02, 0.05, 0.1]))
        sure = rng.random((n, 1))
        lost = rng.random((n, 1)) < max_loss * rng.uniform(0.5, 4.0) * (1 - sure)
        path = np.r_[2.0, np.linspace(0.95, 0.0, 40)][:, None]
        tested = fixed_sequence_test(path, sure, lost, max_loss=max_loss, alpha=0.1)
        # its p-value takes the ceiling of risk times n: keep rounding from adding a loss
        risks = np.maximum(tested.losses - 1e-6, 0.0) / n
        (valid,), _ = controller.ltt_procedure(
            risks[None, 1:], np.array([[max_loss]]), 0.1, np.full((1, 40), n), binary=True,
            fwer_method="fixed_sequence",
        )  # fmt: skip
        assert len(valid) == tested.certified - 1
