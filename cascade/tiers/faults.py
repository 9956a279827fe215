"""The one place where foreign exceptions become the library's own."""

from __future__ import annotations

from cascade.confidence import OutputFault
from cascade.errors import TierError, TierOutputError, TierTimeout, TierUnavailable

__all__ = ["Misreturned", "NotAsked", "as_post_error", "as_tier_error"]


class NotAsked(TierUnavailable):
    """Nobody was free to ask the tier in time: no fault of its own."""


class Misreturned(TierOutputError):
    """A function did not return what it is said to; it is named where it is bound.

    >>> str(as_tier_error("small", Misreturned("returned tuples")))
    "tier 'small': returned tuples"
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"tier: {what}")
        self.what = what


def as_tier_error(tier: str, error: BaseException) -> TierError:
    """Wrap what a tier raised; its own message may hold inputs, so only its type is named.

    >>> str(as_tier_error("small", KeyError("the input")))
    "tier 'small' raised KeyError"
    """
    if isinstance(error, Misreturned):
        return TierOutputError(f"tier {tier!r}: {error.what}", tier=tier)
    if isinstance(error, TierError):
        if error.tier is None:
            error.tier = tier
        return error
    if isinstance(error, OutputFault):
        wrapped: TierError = TierOutputError(f"tier {tier!r}: {error}", tier=tier)
    elif isinstance(error, TimeoutError):
        wrapped = TierTimeout(f"tier {tier!r} timed out by itself", tier=tier)
    else:
        wrapped = TierError(f"tier {tier!r} raised {type(error).__name__}", tier=tier)
    wrapped.__cause__ = error
    return wrapped


def as_post_error(tier: str, error: BaseException) -> TierError:
    """Wrap what the postprocessing of a tier's answer raised, or what is wrong with what it made.

    >>> str(as_post_error("small", KeyError("the answer")))
    "tier 'small': its postprocess raised KeyError"
    """
    whose = f"tier {tier!r}: its postprocess"
    if isinstance(error, OutputFault):
        wrapped: TierError = TierOutputError(f"{whose}: {error}", tier=tier)
    else:
        wrapped = TierError(f"{whose} raised {type(error).__name__}", tier=tier)
    wrapped.__cause__ = error
    return wrapped
