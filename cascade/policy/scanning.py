"""A scanner of YAML that takes long plain lists at once: a policy may hold thousands of numbers.

Token by token, a value costs 25 µs and more. A run of bare words and numbers in a list becomes one
token here, at a few µs per value; everything else is read as the scanner beneath reads it.
"""

from __future__ import annotations

import re
from typing import Any

from ruamel.yaml.scanner import Scanner
from ruamel.yaml.tokens import ScalarToken

from cascade.policy.reading import ITEM, Run

__all__ = ["PolicyScanner"]

_DEEP = 20  # deeper collections are refused, so that nobody need look for a key there
_LEAST = 8  # letters of a run that is worth it

_IN_FLOW = re.compile(rf"[ \n]*+({ITEM}(?:[ \n]*+,[ \n]*+{ITEM})*)(?=[ \n]*+[,\]])")


class PolicyScanner(Scanner):
    """Scans what a policy may hold; what it adds is no part of what YAML means."""

    def save_possible_simple_key(self) -> None:
        """Note that a key may begin here, but not where each bracket would be noted with it."""
        if len(self.flow_context) <= _DEEP:
            super().save_possible_simple_key()

    def fetch_flow_sequence_start(self) -> None:
        """Take a bracket, and the run behind it."""
        super().fetch_flow_sequence_start()
        self._take(_IN_FLOW)

    def fetch_flow_entry(self) -> None:
        """Take a comma, and in a list the run behind it."""
        super().fetch_flow_entry()
        if self.flow_context and self.flow_context[-1] == "[":
            self._take(_IN_FLOW)

    def fetch_block_entry(self) -> None:
        """Take a dash, and the run of lines with one at this column.

        The last line of a block is left to the scanner beneath: it may go on below.
        """
        column = self.reader.column
        super().fetch_block_entry()
        if not self.flow_level:
            after = rf" *+\n {{{column}}}- ++"
            self._take(re.compile(rf" ++({ITEM}(?:{after}{ITEM})*)(?={after}[^ ])"))

    def _take(self, pattern: re.Pattern[str]) -> None:
        reader: Any = self.reader
        found = pattern.match(reader.buffer, reader.pointer)
        if found is None or len(found[1]) < _LEAST:
            return
        reader.forward(found.start(1) - reader.pointer)
        begun = reader.get_mark()
        reader.forward(len(found[1]))
        self.allow_simple_key = False
        self.tokens.append(
            ScalarToken(Run(found[1]), plain=True, start_mark=begun, end_mark=reader.get_mark())
        )
