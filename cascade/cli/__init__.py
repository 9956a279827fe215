"""The command line: ``cascade``, ``cascade-router`` and ``python -m cascade``."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import cascade
from cascade.errors import CannotCertify, CascadeError, MissingExtra, PolicyError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_UNREAD = 141  # 128 + SIGPIPE: what a shell shows of any tool whose reader left


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0 done, 1 a check failed, 2 bad arguments, policy or data.

    >>> main(["doctor", "--jsn"])
    2
    """
    _open_streams()
    try:
        status = _answer([*(sys.argv[1:] if argv is None else argv)])
        print(end="", flush=True)  # what cannot be written shows here, not when Python ends
    except OSError as error:  # of stdout or stderr: what a command raises was told
        status = _unheard(error)
    return status


def _open_streams() -> None:
    """Have what is closed take anything, and what a stream cannot encode be written as escapes."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _answer(arguments: list[str]) -> int:
    try:
        status = _run(arguments)
    except BrokenPipeError:
        raise
    except CannotCertify as error:
        status = _fail(error, arguments, 1)
    except (CascadeError, OSError, ValueError) as error:  # ValueError: an argument, said why
        status = _fail(error, arguments, 2)
    return status


def _unheard(error: OSError) -> int:
    """Write no more to what takes no more; a reader that left, as ``head`` does, is no error."""
    left = isinstance(error, BrokenPipeError)
    if not left:
        with contextlib.suppress(OSError):
            print(error, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
    return _UNREAD if left else 2


def _run(arguments: list[str]) -> int:
    try:
        return _dispatch(arguments)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in {"cyclopts", "rich"}:
            raise
        status = _without_cyclopts(arguments)
        if status is None:
            raise MissingExtra.for_extra("cli", missing) from error
        return status


def _without_cyclopts(arguments: list[str]) -> int | None:
    """Say what is installed, and what is missing, also where the extra is; None: not asked."""
    if arguments == ["--version"]:
        print(cascade.__version__)
        return 0
    if arguments in (["doctor"], ["doctor", "--json"]):
        from cascade.cli.doctor import doctor

        return doctor().print(as_json="--json" in arguments)
    return None


def _dispatch(arguments: list[str]) -> int:
    from cyclopts import CycloptsError

    from cascade.cli.app import app

    try:
        status = app(
            arguments, exit_on_error=False, print_error=False, result_action="return_value"
        )
    except CycloptsError as error:
        raise ValueError(f"cascade: {error}") from error
    return int(status or 0)


def _fail(error: Exception, arguments: list[str], status: int) -> int:
    """Print an error to stderr, each problem of a policy on its own line."""
    issues = error.issues if isinstance(error, PolicyError) else ()
    for line in map(str, issues) if issues else [str(error)]:
        print(line, file=sys.stderr)
    if "--json" in arguments:
        from cascade.cli.reply import Reply

        listed = [issue._asdict() for issue in issues]
        Reply("", {"error": str(error), "issues": listed}).print(as_json=True)
    return status
