"""The result cache: bounds, expiry, floors, and values that no caller can change."""

import sys
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cascade.cache import DIGIT, INT, Entry, FairCache, ResultCache, entry
from cascade.types import Disposition, Finish, Reason

HIT = [Finish(Disposition.CACHED, Reason.CACHE, name, rank=i) for i, name in enumerate("abcdef")]


def item(value="answer", tier=0):
    return entry(value, 0.9, HIT[tier])


def test_a_hit_has_what_was_stored():
    cache = ResultCache(10, 10_000)
    cache.put("question", item("answer", tier=1), now=5)
    found = cache.get("question", now=6)
    assert (found.value, found.confidence, found.finish) == ("answer", 0.9, HIT[1])
    assert cache.get("another", now=6) is None


# -- bounds ----------------------------------------------------------------------------------------


def test_the_least_recently_used_entry_goes_first():
    cache = ResultCache(2, 10_000)
    for key in "ab":
        cache.put(key, item(key), now=0)
    cache.get("a", now=1)
    cache.put("c", item("c"), now=2)
    assert [cache.get(key, now=3) is not None for key in "abc"] == [True, False, True]
    assert len(cache) == 2


def test_bytes_are_bounded_and_counted():
    cache = ResultCache(1000, 10_000)
    for i in range(100):
        cache.put(i, item("x" * 1000), now=i)
        assert cache.size <= 10_000
    assert 5 <= len(cache) <= 9  # 1000 bytes each, and what an entry itself takes
    assert cache.get(99, now=100) is not None
    assert cache.get(0, now=100) is None
    cache.clear()
    assert (len(cache), cache.size) == (0, 0)


@pytest.mark.parametrize(
    "value", ["x" * 9000, b"x" * 9000, np.zeros(1200), ["x" * 9000], {"a": {"b": "x" * 9000}},
              ("x" * 9000,), {"x" * 9000}],
)  # fmt: skip
def test_what_is_larger_than_the_bound_is_not_stored(value):
    cache = ResultCache(10, 9_000)
    cache.put("small", item("kept"), now=0)
    cache.put("large", item(value), now=0)
    assert cache.get("large", now=1) is None
    assert cache.get("small", now=1).value == "kept"


def test_the_bounds_hold_at_every_moment():
    class Watching(ResultCache):
        def _evict(self):
            assert self.size <= 5_000
            assert len(self) <= 3
            super()._evict()

    cache = Watching(3, 5_000)
    for i in range(20):
        cache.put(i, item("x" * (100 if i < 10 else 1_500)), now=i)
    assert len(cache) == 2


def test_a_large_key_counts_too():
    cache = ResultCache(10, 9_000)
    cache.put(b"k" * 9_000, item(), now=0)
    assert len(cache) == 0


def test_a_value_that_holds_itself_has_a_size():
    loop = []
    loop.append(loop)
    assert item(loop).size < 10_000


def test_what_fits_exactly_is_stored():
    size = item("x").size + 400 + sys.getsizeof("a")
    cache = ResultCache(10, 2 * size)
    for key in "abc":
        cache.put(key, item("x"), now=0)
    assert (sorted(cache.entries), cache.size) == (["b", "c"], 2 * size)
    alone = ResultCache(10, size)
    alone.put("a", item("x"), now=0)
    assert len(alone) == 1
    smaller = ResultCache(10, size - 1)
    smaller.put("a", item("x"), now=0)
    assert len(smaller) == 0


class Node:
    def __init__(self):
        self.next = self


def test_values_that_hold_themselves_have_a_size_or_are_not_kept():
    mapping, array = {}, np.empty(1, dtype=object)
    mapping["self"] = mapping
    array[0] = array
    for value in (mapping, Node()):
        assert 50 < item(value).size < 10_000
    assert item(array) is None  # NumPy cannot copy it


@pytest.mark.parametrize("key", [b"", b"k" * 100, "k" * 100, ("tenant", b"k" * 100)])
def test_keys_count_what_they_take(key):
    cache, one = ResultCache(10, 10_000), item("x")
    whole = one.size + sys.getsizeof(key)
    if isinstance(key, tuple):
        whole += sum(map(sys.getsizeof, key))
    cache.put(key, one, now=0)
    assert cache.size == whole + 400  # of the record, its slots and links


def test_small_numbers_take_what_one_does():
    assert {sys.getsizeof(number) for number in (1, DIGIT - 1, 1 - DIGIT)} == {INT}


def test_what_containers_hold_is_counted():
    for value in ((np.zeros(1_000),), [np.zeros(1_000)], {"a": {"b": np.zeros(1_000)}}):
        assert 8_000 < item(value).size < 9_500


# -- time ------------------------------------------------------------------------------------------


def test_entries_live_as_long_as_they_may():
    cache = ResultCache(10, 10_000, ttl=100)
    cache.put("question", item(), now=1_000)
    assert cache.get("question", now=1_099) is not None
    assert cache.get("question", now=1_100) is None
    assert (len(cache), cache.size) == (0, 0)  # found dead, and dropped


def test_without_a_time_to_live_entries_stay():
    cache = ResultCache(10, 10_000)
    cache.put("question", item(), now=0)
    assert cache.get("question", now=2**62) is not None


def test_a_new_answer_starts_a_new_life():
    cache = ResultCache(10, 10_000, ttl=100)
    cache.put("question", item("old"), now=0)
    cache.put("question", item("new"), now=60)
    assert cache.get("question", now=120).value == "new"
    assert cache.get("question", now=160) is None


def test_an_entry_just_used_is_fresh_for_a_moment_and_never_beyond_its_life():
    cache = ResultCache(10, 10_000, ttl=10**9)
    cache.put("question", item(), now=0)
    assert cache.entries["question"].fresh == 0
    cache.get("question", now=1_000)
    assert 1_000 < cache.entries["question"].fresh < 10**8
    cache.get("question", now=10**9 - 1)
    assert cache.entries["question"].fresh == 10**9


# -- floors ----------------------------------------------------------------------------------------


def test_a_smaller_tiers_answer_does_not_replace_a_larger_ones():
    cache = ResultCache(10, 10_000, ttl=100)
    cache.put("question", item("large", tier=2), now=0)
    cache.put("question", item("small", tier=1), now=1)
    assert cache.get("question", now=2).value == "large"
    cache.put("question", item("large again", tier=2), now=3)
    assert cache.get("question", now=4).value == "large again"
    cache.put("question", item("small", tier=1), now=103)  # the other is dead by now
    assert cache.get("question", now=104).value == "small"
    cache.put("question", item("large", tier=2), now=105)
    assert cache.get("question", now=106).value == "large"


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["x", b"x", 1, 1.5, True, None, (1, "x", (None,))])
def test_plain_values_are_kept_as_they_are(value):
    kept, cache = item(value), ResultCache(entries=1, size=10_000)
    assert type(kept) is Entry  # nothing to copy
    assert kept.out() is kept.value is value
    cache.put("question", kept, now=0)
    assert cache.get("question", now=1).value is value


def test_an_array_is_kept_as_a_copy_that_cannot_be_written():
    array = np.zeros(3)
    kept = item(array)
    array[:] = 1
    one, another = kept.out(), kept.out()
    assert one.tolist() == another.tolist() == [0, 0, 0]
    assert np.shares_memory(one, another)  # a hit copies nothing
    with pytest.raises(ValueError, match="read-only"):
        one[0] = 1
    for unlock in (lambda: setattr(one.flags, "writeable", True), lambda: one.setflags(write=True)):
        with pytest.raises(ValueError, match="cannot set WRITEABLE"):
            unlock()


@pytest.mark.parametrize(
    "value",
    [[[1], 2], {"a": [1]}, {1, 2}, ([1],), (np.zeros(2),), bytearray(b"x"),
     np.array([[1], None], dtype=object)],
)  # fmt: skip
def test_anything_else_is_copied_in_and_copied_out(value):
    kept = item(value)
    assert kept.value is not value
    assert kept.out() is not kept.value
    assert repr(kept.out()) == repr(value)


@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")  # what NumPy 2.5 says of it
@pytest.mark.parametrize("change", [("shape", (3, 1)), ("dtype", np.dtype("i8"))])
def test_what_a_caller_makes_of_his_view_of_an_array_is_his_own(change):
    kept = item(np.zeros((1, 3)))
    setattr(kept.out(), *change)
    assert (kept.out().shape, kept.out().dtype) == ((1, 3), np.dtype("f8"))


def test_copies_are_deep():
    value = {"a": [1]}
    kept = item(value)
    value["a"].append(2)
    assert kept.value == {"a": [1]}


# -- without a global lock -------------------------------------------------------------------------


@pytest.fixture
def free_threads(monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)


def test_a_dict_as_it_is_holds_the_entries_where_there_is_a_global_lock(monkeypatch):
    assert type(ResultCache(10, 10_000).entries) is OrderedDict
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    assert type(ResultCache(10, 10_000).entries) is OrderedDict


class Watched:
    """A lock that knows how often it was taken."""

    def __init__(self):
        self.taken = 0

    def __enter__(self):
        self.taken += 1

    def __exit__(self, *exc_info):
        pass


@pytest.mark.usefixtures("free_threads")
def test_every_call_is_one_step_where_there_is_none():
    cache = ResultCache(2, 10_000)
    entries, lock = cache.entries, Watched()
    entries.lock = lock
    calls = [
        lambda: entries.get("a"), lambda: "a" in entries, lambda: entries.update(a=item()),
        lambda: entries.move_to_end("a"), lambda: entries.pop("a"),
        lambda: entries.__setitem__("b", item()), lambda: entries.popitem(last=False),
        entries.clear,
    ]  # fmt: skip
    for i, call in enumerate(calls, 1):
        call()
        assert lock.taken >= i
    assert len(entries) == 0


@pytest.mark.usefixtures("free_threads")
@pytest.mark.parametrize("fair", [False, True])
def test_a_guarded_cache_does_what_the_other_does(fair):
    cache = FairCache(3, 10_000, 100, 0.5) if fair else ResultCache(3, 10_000, 100)
    for i in range(5):
        cache.put(i, item(str(i)), now=i)
    assert [cache.get(i, now=50) is not None for i in range(5)] == [False, False, True, True, True]
    assert cache.get(4, now=500) is None
    cache.clear()
    assert (len(cache), cache.size) == (0, 0)


# -- against a model -------------------------------------------------------------------------------


KEYS = st.sampled_from(["a", "b", *[(tenant, key) for tenant in "tu" for key in "abcd"]])


class Model(RuleBasedStateMachine):
    """The same calls to the cache and to a plain list, least recently used first."""

    entries, size, ttl = 4, 4_000, 50
    share = 1.0

    def __init__(self):
        super().__init__()
        self.cache = self.made()
        self.held = {}  # key → (value, tier, expires, size); dicts keep their order
        self.now = 0

    @rule(
        key=KEYS,
        tier=st.integers(0, 2),
        length=st.sampled_from([0, 10, 500, 1_500, 3_000, 5_000]),
    )
    def put(self, key, tier, length):
        value = key[-1] * length
        self.cache.put(key, item(value, tier), self.now)
        held = self.held.get(key)
        if held is not None and held[1] > tier and held[2] > self.now:
            return
        self.held.pop(key, None)
        parts = [key, *key] if type(key) is tuple else [key]
        size = sys.getsizeof(value) + 400 + sum(map(sys.getsizeof, parts))
        if size > self.size:
            return
        if len(self.held) == self.entries:
            self._evict()
        self.held[key] = (value, tier, self.now + self.ttl, size)
        while sum(each[3] for each in self.held.values()) > self.size:
            self._evict()
        self._bound(key)

    @rule(key=KEYS)
    def get(self, key):
        found = self.cache.get(key, self.now)
        held = self.held.get(key)
        if held is not None and held[2] <= self.now:
            held = self.held.pop(key) and None
        if held is None:
            assert found is None
            return
        assert (found.value, found.finish.rank) == held[:2]
        self._touch(key)

    @rule(time=st.integers(1, 60))
    def wait(self, time):
        self.now += time

    @precondition(lambda self: len(self.held) > 2)
    @rule(really=st.integers(0, 9))
    def clear(self, really):
        if really == 9:  # seldom, or the cache would never be full
            self.cache.clear()
            self.held.clear()

    def _touch(self, key):
        self.held[key] = self.held.pop(key)

    def _evict(self):
        del self.held[next(iter(self.held))]

    def made(self):
        return ResultCache(self.entries, self.size, self.ttl)

    def _bound(self, key):
        """One tenant may fill everything."""

    @invariant()
    def counts(self):
        assert list(self.cache.entries) == list(self.held)
        assert len(self.cache) <= self.entries
        assert self.cache.size == sum(each[3] for each in self.held.values()) <= self.size


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


class Fair(Model):
    """The same, where a tenant's oldest go once it has more than its share."""

    entries, size, ttl, share = 8, 16_000, 500, 0.25

    def made(self):
        return FairCache(self.entries, self.size, self.ttl, self.share)

    def _bound(self, key):
        if type(key) is not tuple:
            return
        own = [each for each in self.held if type(each) is tuple and each[0] == key[0]]
        while len(own) > 2 or sum(self.held[each][3] for each in own) > self.size / 4:
            del self.held[own.pop(0)]


TestFair = Fair.TestCase
TestFair.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
