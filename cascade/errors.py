"""The exceptions of cascade: each carries data, and inherits the builtin a caller would catch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cascade.outcome import Outcome
    from cascade.types import Issue

__all__ = [
    "Abstained",
    "CannotCertify",
    "CascadeError",
    "DeadlineExceeded",
    "Degraded",
    "ExportError",
    "InputTypeError",
    "InputValueError",
    "MissingExtra",
    "ModelIntegrityError",
    "Overloaded",
    "PolicyError",
    "RecordingError",
    "TierError",
    "TierOutputError",
    "TierTimeout",
    "TierUnavailable",
]


class CascadeError(Exception):
    """Base of every exception that cascade raises.

    >>> issubclass(PolicyError, CascadeError)
    True
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by message and state, so that keyword-only data survives a process boundary."""
        return (_rebuild, (type(self), self.args, dict(self.__dict__)))


def _rebuild(cls: type[CascadeError], args: tuple[Any, ...], state: dict[str, Any]) -> CascadeError:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class PolicyError(CascadeError, ValueError):
    """A policy cannot be used; ``.issues`` holds every problem that was found, in file order.

    >>> PolicyError("policy.yaml:3:5: deadline: must be positive").issues
    ()
    """

    def __init__(self, message: str, issues: Sequence[Issue] = ()) -> None:
        super().__init__(message)
        self.issues: tuple[Issue, ...] = tuple(issues)


class InputTypeError(CascadeError, TypeError):
    """A request's input has the wrong type or dtype; the message names the declared input.

    >>> issubclass(InputTypeError, TypeError)
    True
    """


class InputValueError(CascadeError, ValueError):
    """A request's input has the wrong shape or content; the message names the declared input.

    >>> issubclass(InputValueError, ValueError)
    True
    """


class _WithOutcome(CascadeError):
    """An exception that carries the outcome of its request."""

    def __init__(self, message: str, outcome: Outcome[Any] | None = None) -> None:
        super().__init__(message)
        self.outcome = outcome


class _Refused(_WithOutcome):
    """An exception that may say when to come back, in seconds."""

    def __init__(
        self,
        message: str,
        outcome: Outcome[Any] | None = None,
        *,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, outcome)
        self.retry_after = retry_after


class DeadlineExceeded(_Refused, TimeoutError):
    """No answer could be had before the deadline; ``.outcome`` is the SHED or FAILED outcome.

    Of one that was refused beforehand (SHED), ``.retry_after`` is when it might be answered (s).

    >>> issubclass(DeadlineExceeded, TimeoutError)
    True
    """


class Overloaded(_Refused):
    """The request was refused because a bound was reached; retry after ``.retry_after`` seconds.

    >>> Overloaded("queue full", retry_after=0.5).retry_after
    0.5
    """


class Abstained(_WithOutcome):
    """``Outcome.unwrap()`` on an ABSTAINED outcome.

    >>> Abstained("confidence 0.1 is under 0.2").outcome is None
    True
    """


class Degraded(_WithOutcome):
    """``Outcome.unwrap()`` on a DEGRADED outcome.

    >>> Degraded("deadline").outcome is None
    True
    """


class TierError(_WithOutcome):
    """A tier did not answer; ``.tier`` names it and ``__cause__`` is what it raised.

    >>> TierError("tier 'small' raised KeyError", tier="small").tier
    'small'
    """

    def __init__(
        self,
        message: str,
        outcome: Outcome[Any] | None = None,
        *,
        tier: str | None = None,
    ) -> None:
        super().__init__(message, outcome)
        self.tier = tier


class TierTimeout(TierError, TimeoutError):
    """A tier ran past its time.

    >>> issubclass(TierTimeout, TimeoutError)
    True
    """


class TierUnavailable(TierError):
    """A tier's lane takes no more work (closed, or its breaker is open).

    >>> issubclass(TierUnavailable, TierError)
    True
    """


class TierOutputError(TierError, ValueError):
    """A tier returned something that cannot be an answer (NaN, wrong row count, bad probabilities).

    >>> issubclass(TierOutputError, ValueError)
    True
    """


class ModelIntegrityError(TierError):
    """A model file is missing, damaged, or not the one that the policy names.

    >>> error = ModelIntegrityError("digest differs", expected="9c", found="1f")
    >>> error.expected, error.found
    ('9c', '1f')
    """

    def __init__(
        self,
        message: str,
        *,
        tier: str | None = None,
        expected: str | None = None,
        found: str | None = None,
    ) -> None:
        super().__init__(message, tier=tier)
        self.expected = expected
        self.found = found


class RecordingError(CascadeError, ValueError):
    """A recording cannot be used; the message names the row and the column.

    >>> issubclass(RecordingError, ValueError)
    True
    """


class CannotCertify(CascadeError, ValueError):
    """No operating point can be certified; ``.needed`` is the number of rows that could suffice.

    >>> CannotCertify("200 rows, 230 needed", needed=230).needed
    230
    """

    def __init__(self, message: str, *, needed: int | None = None) -> None:
        super().__init__(message)
        self.needed = needed


class ExportError(CascadeError):
    """A tier cannot be exported; ``.tier`` and ``.step`` say what does not convert.

    >>> ExportError("no converter", tier="large", step="HistGradientBoosting").step
    'HistGradientBoosting'
    """

    def __init__(self, message: str, *, tier: str | None = None, step: str | None = None) -> None:
        super().__init__(message)
        self.tier = tier
        self.step = step


class MissingExtra(CascadeError, ImportError):
    """An optional dependency is absent; the message is the exact line that installs it.

    >>> print(MissingExtra.for_extra("plot", "matplotlib"))
    matplotlib is not installed; run: pip install "cascade-router[plot]"
    """

    @classmethod
    def for_extra(cls, extra: str, package: str) -> MissingExtra:
        """Build the error for ``package``, which the extra named ``extra`` installs."""
        return cls(f'{package} is not installed; run: pip install "cascade-router[{extra}]"')
