"""What a value holds: counted without its own code, kept only where that can be done."""

import datetime as dt
import enum
import math
import re
import sys
import threading
import tracemalloc
import types
import uuid
from array import array
from collections import OrderedDict, defaultdict
from decimal import Decimal
from fractions import Fraction

import attrs
import numpy as np
import pytest

from cascade import TierOutputError
from cascade.cache import entry
from cascade.holdings import survey
from cascade.testing import router_for, scripted
from cascade.types import Disposition, Finish, Reason

HIT = Finish(Disposition.CACHED, Reason.CACHE, "small", rank=0)
CACHED = {
    "version": 1, "name": "p", "deadline": "60s", "cache": {},
    "tiers": [{"name": "small", "kind": "external"}],
}  # fmt: skip


class SubFloat(float):
    """Whose own comparison must not be asked."""

    def __ne__(self, other):
        raise ZeroDivisionError

    __hash__ = float.__hash__


def deep(levels, inside):
    for _ in range(levels):
        inside = [inside]
    return inside


@pytest.mark.parametrize(
    "value",
    [(math.nan,), [1, {"a": math.nan}], Decimal("nan"), Decimal("snan"), {math.nan: 1},
     [np.datetime64("NaT", "s")], SubFloat("nan"), array("d", [math.nan]), deep(30, math.nan),
     np.array([(1, math.nan)], dtype=[("a", "i4"), ("b", "f4")]),
     np.array([[1.0, math.nan], None], dtype=object), [np.array([1.0, math.nan])]],
    ids=repr,
)  # fmt: skip
def test_a_nan_is_found_wherever_it_is(value):
    assert entry(value, 0.9, HIT) is None


class Spiteful:
    """An answer whose own methods fail, all but those that copying needs."""

    def __init__(self):
        self.what = "x" * 1_000

    def fails(self, *_):
        raise ZeroDivisionError

    __sizeof__ = __eq__ = __ne__ = __hash__ = __len__ = __bool__ = __iter__ = __repr__ = fails


def test_an_answers_own_methods_are_not_asked():
    kept = entry([Spiteful()], 0.9, HIT)
    assert 1_000 < kept.size < 2_000
    assert kept.out()[0].what == "x" * 1_000


class Once:
    """An answer that can be copied once."""

    def __init__(self, left=1):
        self.left = left

    def __deepcopy__(self, memo):
        if not self.left:
            raise ZeroDivisionError
        return Once(self.left - 1)


def test_an_answer_that_fails_to_be_copied_is_the_libraries_own_error():
    with router_for(CACHED, small=scripted(lambda _: (Once(), 0.9))) as router:
        router.route("x")
        with pytest.raises(TierOutputError, match="'small': its answer from the cache"):
            router.route("x")


@pytest.mark.parametrize(
    "value",
    [iter([1]), threading.Lock(), types.SimpleNamespace(a=1), [0] * 100_000, re.compile("x"),
     np.zeros(2, dtype=[("a", "O")])],
    ids=["iterator", "lock", "namespace", "long", "pattern", "fields of objects"],
)  # fmt: skip
def test_what_cannot_be_counted_is_not_kept(value):
    assert entry(value, 0.9, HIT) is None


class Colour(enum.Enum):
    RED = "red"


@attrs.frozen
class Verdict:
    label: str
    scores: list


@pytest.mark.parametrize(
    "value",
    [Colour.RED, Verdict("cat", [0.25, 0.75]), Decimal("1.5"), dt.date(2026, 1, 1),
     uuid.UUID(int=5), OrderedDict(a=[1]), defaultdict(list, a=[1]), {"a", "b"}, bytearray(b"x"),
     Fraction(1, 3), np.ma.masked_array([1.0, 2.0], [False, True])],
    ids=repr,
)  # fmt: skip
def test_answers_of_known_kinds_and_of_classes_over_them_are_kept(value):
    kept = entry(value, 0.9, HIT)
    assert repr(kept.out()) == repr(value)
    assert sys.getsizeof(value) <= kept.size < 2_000


def test_what_is_met_twice_is_counted_once():
    part = "x" * 1_000
    assert survey([part])[0] + 8 == survey([part, part])[0]


def test_views_count_what_they_show():
    whole = np.zeros((100, 100))
    assert survey([whole[0]])[0] < 2_000
    assert survey([whole])[0] > 80_000


@pytest.mark.parametrize("n", [0, 1, 5, 20, 29, 60])
def test_objects_count_what_they_take(n):
    class Attributes:  # of each number its own: objects of a class share where attributes stand
        def __init__(self):
            for i in range(n):
                setattr(self, f"a{i}", None)

    kept = [Attributes() for _ in range(2)]  # what their class keeps is there from now on
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    kept += [Attributes() for _ in range(1_000)]
    taken = (tracemalloc.get_traced_memory()[0] - before) / 1_000 - 8  # of the list
    tracemalloc.stop()
    counted = survey(kept[-1])[0] - (sys.getsizeof(None) if n else 0)  # which all of them share
    assert taken / 1.25 <= counted <= taken * 1.25
