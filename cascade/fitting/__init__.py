"""Fitting: temperatures, paths, and certificates of what their thresholds promise."""

from cascade.fitting.certify import (
    TestedPath,
    cannot_certify,
    certificate_of,
    fixed_sequence_test,
)
from cascade.fitting.losses import LOSSES, loss_table
from cascade.fitting.paths import deciding_tiers, learned_path, midpoints, two_tier_path
from cascade.fitting.pvalues import binomial_p_values, rows_needed
from cascade.fitting.recording import Recording
from cascade.fitting.result import Fit, fit
from cascade.fitting.temperature import fit_temperature
from cascade.fitting.verify import redo_test, verify_certificate

__all__ = [
    "LOSSES",
    "Fit",
    "Recording",
    "TestedPath",
    "binomial_p_values",
    "cannot_certify",
    "certificate_of",
    "deciding_tiers",
    "fit",
    "fit_temperature",
    "fixed_sequence_test",
    "learned_path",
    "loss_table",
    "midpoints",
    "redo_test",
    "rows_needed",
    "two_tier_path",
    "verify_certificate",
]
