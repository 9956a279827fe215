"""The offline drivers: replay of recordings through the decision core."""

from cascade.simulation.replaying import Replay, replay

__all__ = ["Replay", "replay"]
