"""Optimising: models exported, measured and written down as bundles."""
