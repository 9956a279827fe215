"""The demo: train, certify, export, serve and judge a cascade on real data, in a minute."""

from cascade.demo.main import run
from cascade.demo.result import DemoResult

__all__ = ["DemoResult", "run"]
