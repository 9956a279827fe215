"""The offline drivers: replay and simulation of recordings through the decision core."""

from cascade.simulation.arrivals import Arrivals, gamma, on_off, poisson
from cascade.simulation.replaying import Replay, replay
from cascade.simulation.simulating import Simulation, find_capacity, simulate

__all__ = [
    "Arrivals", "Replay", "Simulation", "find_capacity", "gamma", "on_off", "poisson", "replay",
    "simulate",
]  # fmt: skip
