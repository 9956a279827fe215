"""Policy files by an adversary, by chance and by mistake: only PolicyError, at the right place."""

import json
import os
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from cascade import Policy, PolicyError
from cascade.policy.reading import parse
from cascade.policy.schema import json_schema
from tests.benchmarks.policies import COSTLY
from tests.policy.junk import JUNK

VALIDATOR = Draft7Validator(json_schema())
MANY = int(os.environ.get("CASCADE_FUZZ", "100000"))  # examples of the slow form

TIERS = "tiers: [{name: a, kind: external}, {name: b, kind: external}]\n"
HEAD = "version: 1\nname: p\n" + TIERS + "escalation: {thresholds: [0.5]}\n"
LINE = HEAD.count("\n") + 1  # of what is added to it


@pytest.fixture
def problems(tmp_path):
    def problems(text, env=None):
        path = tmp_path / "policy.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        try:
            Policy.from_yaml(path, env=env or {})
        except PolicyError as error:
            issues = error.issues
        else:
            return []
        assert issues
        return [(i.line, i.column, i.path, i.message) for i in issues]

    return problems


# -- no policy at all: one problem, at the place where it stops being one --------------------------


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a: 1\nb: &x 2", 2, 4, "anchors"),
        ("a: *x", 1, 4, "aliases"),
        ("a: &a [1]\nb: [*a, *a]", 1, 4, "anchors"),
        ("a: [1, &b {c: 1}]", 1, 8, "anchors"),
        ("&a a: 1", 1, 1, "anchors"),
        ("a: !!python/object/apply:os.system [x]", 1, 4, "tags"),
        ("a: !!str 1", 1, 4, "tags"),
        ("a: !", 1, 4, "tags"),
        ("a: !<tag:yaml.org,2002:int> 1", 1, 4, "tags"),
        ("!!map {a: 1}", 1, 1, "tags"),
        ("a: 1\n---\nb: 2", 2, 1, "one document"),
        ("a: 1\n...\n---\n", 3, 1, "one document"),
        ("a: " + "[" * 20 + "]" * 20, 1, 23, "too deeply"),
        ("a:\n" + "".join(" " * i + "a:\n" for i in range(1, 30)), 21, 21, "too deeply"),
        ("a: [" + "1," * 10_000 + "1]", 1, 19_999, "too large"),
        ("a: [" + "'1'," * 10_000 + "1]", 1, 39_993, "too large"),
        ("a: 1\n" * 5_001, 5_000, 4, "too large"),
        ("x" * 65_537, 1, 1, "65537 bytes; expected at most 65536"),
        (b"a: 1\nb: \xff", 2, 4, "not UTF-8"),
        ("a: 1".encode("utf-16"), 1, 1, "not UTF-8"),
        (b"a: \xed\xa0\x80", 1, 4, "not UTF-8"),
        ("a: 1\nname: x\0y", 2, 8, "NUL"),
        ("a: \x07", 1, 4, "U+0007"),
        ("a: \ufffe", 1, 4, "U+FFFE"),
        ("", 1, 1, "empty"),
        ("\ufeff", 1, 1, "empty"),
        ("# nothing\n", 1, 1, "empty"),
        ("? [a, b]\n: 1", 1, 3, "a key is expected to be text"),
        ("{{a: 1}: 2}", 1, 2, "a key is expected to be text"),
        ("a: [1", 1, 4, "not YAML"),
        ("a: 'x", 1, 4, "not YAML"),
        ('a: 1\nb: "x\nc: 2\n', 2, 4, "not YAML"),
        ("a: {x: 1\nb: 3\n", 2, 2, "not YAML: did not find"),
        ("a: {x: 1\nb: 3\n", 2, 2, "a flow mapping that begins at 1:4)"),
        ("a: 1\r\rb: \x07", 3, 4, "U+0007"),
        ("a: 1\rb: 'x", 2, 4, "not YAML"),
        ("a: 1\r\nb: [\r  &x]", 3, 3, "anchors"),
        ("a: x\ufeffy", 1, 5, "U+FEFF"),
        ("\ufeff\ufeffa: 1", 1, 1, "U+FEFF"),
        ("a: b: c", 1, 5, "not YAML"),
        ("a:\tb\n\tc: d", 2, 1, "not YAML: a tab; YAML is indented by spaces"),
        ("a:\n\tb: 1", 2, 1, "not YAML: a tab; YAML is indented by spaces"),
        ("a: 1\n b: 2", 2, 3, "not YAML"),
        ("%YAML 2.0\n---\na: 1", 1, 1, "not YAML"),
        ("%YAML " + "9" * 5000 + ".1\n---\na: 1", 1, 16, "not YAML"),
        ('a: "\\U00110000"', 1, 7, "not YAML"),
        ('a: "\\UFFFFFFFF"', 1, 7, "not YAML"),
        ('a: "\\ud800"', 1, 7, "not YAML"),
        ('a: "\\q"', 1, 5, "not YAML"),
        ("a: x\u2028b: 1", 1, 5, "U+2028"),
        ("a: x\x85b: 1", 1, 5, "U+0085"),
        ("@", 1, 1, "not YAML"),
    ],
    ids=lambda value: repr(value)[:25],
)  # fmt: skip
def test_what_is_no_policy_is_refused_where_it_begins(problems, text, line, column, words):
    found = problems(text)
    assert len(found) == 1
    assert found[0][:3] == (line, column, "")
    assert words in found[0][3]


# -- values: what YAML libraries read as something else --------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "column", "words"),
    [
        ("deadline: on", "deadline", 11, "got 'on'"),
        ("deadline: yes", "deadline", 11, "got 'yes'"),
        ("deadline: true", "deadline", 11, "got True"),
        ("deadline: 1:30", "deadline", 11, "got '1:30'"),
        ("deadline: .nan", "deadline", 11, "got nan"),
        ("deadline: .inf", "deadline", 11, "got inf"),
        ("deadline: -.INF", "deadline", 11, "got -inf"),
        ("deadline: 1e999", "deadline", 11, "got inf"),
        ("deadline: 1e300", "deadline", 11, "positive duration"),
        ("deadline: 1e-400", "deadline", 11, "got 0.0"),
        ("deadline: " + "9" * 400 + "h", "deadline", 11, "positive duration"),
        ("deadline: 99999999999h", "deadline", 11, "positive duration"),
        ("deadline: \u0668ms", "deadline", 11, "positive duration"),
        ('deadline: "20ms\\n"', "deadline", 11, "positive duration"),
        ("deadline: 2026-11-23", "deadline", 11, "got '2026-11-23'"),
        ("deadline: null", "deadline", 11, "got nothing"),
        ("deadline:", "deadline", 10, "got nothing"),
        ("deadline: [1]", "deadline", 11, "got a list"),
        ("deadline: {a: 1}", "deadline", 11, "got a mapping"),
        ("revision: 1", "revision", 11, "expected text"),
        ("revision: 0x1F", "revision", 11, "got 31"),
        ("revision: ''", "revision", 11, "expected text"),
        ('revision: "a\\0b"', "revision", 11, "expected text"),
        ("cache: {entries: 1e3}", "cache.entries", 18, "got 1000.0"),
        ("cache: {entries: 10.0}", "cache.entries", 18, "got 10.0"),
        ("cache: {entries: false}", "cache.entries", 18, "got False"),
        ("cache: {entries: '5'}", "cache.entries", 18, "got '5'"),
        ("cache: {entries: 99999999999999999999}", "cache.entries", 18, "whole number"),
        ("cache: {entries: 999999999999999999999}", "cache.entries", 18, "at most 20 digits"),
        ("cache: {entries: 0xFFFFFFFFFFFFFFFFFFFFFF}", "cache.entries", 18, "at most 20 digits"),
        ("cache: {bytes: -1}", "cache.bytes", 16, "positive size"),
        ("cache: {bytes: 64mb}", "cache.bytes", 16, "positive size"),
        ("cache: on", "cache", 8, "expected a mapping, got 'on'"),
        ("cache: [1]", "cache", 8, "expected a mapping, got a list"),
        ("classes: [1, 1.0]", "classes", 10, "different labels"),
        ("classes: [yes, .nan]", "classes", 10, "different labels"),
        ("classes: a", "classes", 10, "different labels, got 'a'"),
        ("classes: [a, b, a]", "classes", 10, "different labels, got 'a' twice"),
        ("classes: [a]", "classes", 10, "different labels, got 1 of them"),
        ("classes: [a, {b: 1}]", "classes", 10, "different labels, got a mapping in it"),
        ("complexity: {weights: [1], skip_above: [101%]}", "complexity.skip_above.0", 41, "a frac"),
        ("? deadline", "deadline", 11, "got nothing"),
        ("deadlin\u00e9: 1s", "deadlin\u00e9", 1, "did you mean 'deadline'"),
        ("<<: {mode: observe}", "<<", 1, "merge keys"),
        ("'<<': {mode: observe}", "<<", 1, "merge keys"),
        ("name: q", "name", 1, "duplicate key"),
        ("'name': q", "name", 1, "duplicate key"),
        ("1: 2", "1", 1, "unknown key"),
        ("~: 2", "~", 1, "unknown key"),
        ("true: 2", "true", 1, "unknown key"),
        ("x" * 200 + ": 2", "x" * 200, 1, "expected one of"),
    ],
    ids=lambda value: repr(value)[:25],
)  # fmt: skip
def test_every_value_means_what_it_says(problems, text, path, column, words):
    found = problems(HEAD + text)
    assert [(line, at, name) for line, at, name, _ in found] == [(LINE, column, path)], found
    assert words in found[0][3]


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("deadline: 1e-3", ("deadline",), 0.001),
        ("deadline: 010", ("deadline",), 10.0),
        ("deadline: 0b1", None, None),
        ("deadline: +1", ("deadline",), 1.0),
        ("deadline: 1.", ("deadline",), 1.0),
        ("deadline: .5", ("deadline",), 0.5),
        ("deadline: 0x10", ("deadline",), 16.0),
        ("deadline: 0o17", ("deadline",), 15.0),
        ("cache: {entries: 1_000}", ("cache", "entries"), 1000),
        ("revision: on", ("revision",), "on"),
        ("revision: 1:30", ("revision",), "1:30"),
        ("revision: 2026-11-23", ("revision",), "2026-11-23"),
        ("revision: 1_000ms", ("revision",), "1_000ms"),
        ("revision: =", ("revision",), "="),
        ("complexity: {weights: [1], skip_above: [90%]}", ("complexity", "skip_above"), (0.9,)),
    ],
)
def test_numbers_and_words_are_those_of_yaml_1_2(problems, tmp_path, text, path, value):
    found = problems(HEAD + text)
    assert bool(found) == (path is None)
    if path is not None:
        policy = Policy.from_yaml(tmp_path / "policy.yaml", env={})
        for name in path:
            policy = getattr(policy, name)
        assert (policy, type(policy)) == (value, type(value))


def test_all_problems_in_one_pass(problems):
    text = (
        HEAD
        + "deadline: on\ncache: {entries: .nan, ttl: 1:30, ttl: 2, x: 1}\nmode: enforced\nmod: 1\n"
    )
    assert [found[:3] for found in problems(text)] == [
        (LINE, 11, "deadline"), (LINE + 1, 18, "cache.entries"), (LINE + 1, 29, "cache.ttl"),
        (LINE + 1, 35, "cache.ttl"), (LINE + 1, 43, "cache.x"), (LINE + 2, 7, "mode"),
        (LINE + 3, 1, "mod"),
    ]  # fmt: skip


def test_what_stands_below_a_duplicate_or_merged_key_is_not_read(problems):
    found = problems(HEAD + "name: {a: [.nan, {b: 1, b: 2}]}\n<<: {name: 3}\n")
    assert [words for *_, words in found] == ["duplicate key", "merge keys are refused"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("CASCADE_MODE", "fast"), ("CASCADE_DEADLINE", "\u00b2"), ("CASCADE_DEADLINE", "9" * 5000),
     ("CASCADE_DEADLINE", "nan"), ("CASCADE_CACHE_BYTES", "-1"), ("CASCADE_CACHE_BYTES", "")],
)  # fmt: skip
def test_what_the_environment_says_wrongly_is_blamed_on_it(tmp_path, name, value):
    path = tmp_path / "policy.yaml"
    path.write_text(HEAD + "deadline: 1s\ncache: {}\nmode: enforce\n")
    with pytest.raises(PolicyError) as caught:
        Policy.from_yaml(path, env={name: value})
    issue = caught.value.issues[0]
    assert (issue.file, issue.line, len(caught.value.issues)) == (name, None, 1)


@pytest.mark.parametrize("cache", ["null", "5", "[1]", "on"])
def test_the_environment_beside_a_section_that_is_none(problems, cache):
    found = problems(HEAD + f"cache: {cache}", env={"CASCADE_CACHE_BYTES": "1MB"})
    assert [(line, path) for line, _, path, _ in found] == [(LINE, "cache")]


def test_plain_types_that_no_file_could_hold():
    good = {"version": 1, "name": "p", "tiers": [{"name": "a", "kind": "external"}]}
    deep = []
    for _ in range(50):
        deep = [deep]
    for more in (
        {"deadline": 10**5000},
        {"deadline": deep},
        {1: 2},
        {None: {}},
        {"cache": deep},
        {"deadline": object()},
        {"classes": [deep, deep]},
        {"complexity": {"weights": {1: 2}}},
        {"tiers": {"name": 1}},
        {"tiers": [deep]},
        {"tiers": None},
        {"name": b"p"},
    ):
        with pytest.raises(PolicyError):
            Policy.from_dict(good | more)


def test_a_key_is_shown_on_one_line_and_not_at_length(problems):
    found = problems(HEAD + '"a\\nb\\e[31m": 1\n? ' + "k" * 500 + "\n: {l: 1}\n" + HEAD)
    paths = [path for _, _, path, _ in found]
    assert paths[0] == "a\\nb\\x1b[31m"
    assert paths[1] == "k" * 100 + "…" + "k" * 99
    assert paths[2:] == ["version", "name", "tiers", "escalation"]


# -- what it costs ---------------------------------------------------------------------------------

WORST = {
    "4,990 items below one long key",
    "9,900 bad numbers",
    "65,000 brackets",
    "one long kind",
    "200 aliases of aliases",
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in WORST else pytest.mark.slow) for name in COSTLY],
)
def test_refusing_takes_little_memory(problems, name):
    problems(COSTLY[name][:100])  # what is imported and compiled the first time
    tracemalloc.start()
    try:
        assert problems(COSTLY[name])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000


# -- by chance -------------------------------------------------------------------------------------

REAL = [
    Path(__file__).parents[2].joinpath("examples/downstream_app/policy.yaml").read_text("utf-8"),
    (HEAD + """\
deadline: 20ms
max_deadline: conversation
mode: enforce
complexity: {intercept: -4, weights: {words: 0.02}, skip_above: [90%]}
inputs: {cast: none, validate: finite}
classes: [no, yes]
cache: {entries: 10_000, bytes: 64MB, ttl: 5m, digest: blake2b}
prepare: {version: "1"}
"""),
]  # fmt: skip
SPLINTERS = [
    "&a ",
    "*a",
    "!!int ",
    "<<: ",
    "---\n",
    "...\n",
    "? ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ": ",
    ", ",
    "#",
    "'",
    '"',
    "|\n",
    ">\n",
    "\t",
    "\n",
    "\r",
    "\0",
    "\u0085",
    "\u2028",
    "\ufeff",
    "%YAML 1.1\n",
    "1e999",
    ".nan",
    "0x",
    "on",
    "1:30",
    "~",
    "@",
    "`",
    '"\\U00110000"',
    '"\\x00"',
    "9" * 30,
    "é",
    "\U0001f600",
]
splinters = st.one_of(st.sampled_from(SPLINTERS), st.text(max_size=5))
cuts = st.tuples(st.floats(0, 1), st.integers(0, 12), splinters)


@st.composite
def damaged(draw):
    text = draw(st.sampled_from(REAL))
    for where, length, splinter in draw(st.lists(cuts, min_size=1, max_size=6)):
        at = round(where * len(text))
        text = text[:at] + splinter + text[at + length :]
    raw = text.encode("utf-8", "surrogatepass")
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(raw)))
        raw = raw[:at] + draw(st.binary(max_size=3)) + raw[at:]
    return raw


anything = st.one_of(
    damaged(),
    damaged(),
    st.binary(max_size=80),
    st.text(max_size=80).map(lambda t: t.encode("utf-8", "surrogatepass")),
    st.lists(splinters, max_size=30).map("".join).map(lambda t: t.encode("utf-8", "surrogatepass")),
)


def loads_or_says_why(path, raw):
    path.write_bytes(raw)
    try:
        policy = Policy.from_yaml(path, env={})
    except PolicyError as error:
        issues = error.issues
    else:
        VALIDATOR.validate(parse(raw, "policy.yaml")[0])
        assert policy.digest
        return
    assert issues
    lines = (
        raw.count(b"\n") + raw.count(b"\r") + raw.count(b"\xc2\x85") + raw.count(b"\xe2\x80") + 1
    )
    for issue in issues:
        assert issue.line is None or 1 <= issue.line <= lines
        assert issue.column is None or 1 <= issue.column <= len(raw) + 1


@given(anything)
@example(b'a: "\\U00110000"')
def test_nothing_but_policy_errors_escapes(tmp_path_factory, raw):
    loads_or_says_why(tmp_path_factory.getbasetemp() / "fuzzed.yaml", raw)


@pytest.mark.slow
@settings(max_examples=MANY, suppress_health_check=list(HealthCheck), database=None)
@given(anything)
def test_nothing_but_policy_errors_escapes_at_length(tmp_path_factory, raw):
    loads_or_says_why(tmp_path_factory.getbasetemp() / "fuzzed.yaml", raw)


def certificate():
    point = {"thresholds": [2.0], "losses": 0, "p_value": 0.0}
    return {
        "max_loss": 0.01, "alpha": 0.1, "loss": "gross", "covers": "adaptive", "n": 500,
        "tiers": ["a", "b"], "path": [point, point | {"thresholds": [0.5]}], "certified": 1,
    }  # fmt: skip


def test_files_beside_a_policy_may_hold_anything(tmp_path):
    """Certificates and calibrations: damaged at every key, or no JSON at all."""
    text = HEAD.replace("[0.5]", "[0.5]}").replace("thresholds: [0.5]}", "certificate: c.json")
    text = text.replace("kind: external", "kind: external, version: '1'")
    path, beside = tmp_path / "policy.yaml", tmp_path / "c.json"
    path.write_text(text)
    raws = [
        b"",
        b"\xff",
        b"5",
        b"[" * 100_000,
        b'{"n": ' + b"9" * 5000 + b"}",
        b'{"a": 1}',
        b"null",
    ]
    trees = [certificate()]
    for key in certificate():
        trees += [certificate() | {key: junk} for junk in [*JUNK, 10**400]]
        trees.append({k: v for k, v in certificate().items() if k != key})
    for key in ("thresholds", "losses", "p_value", "skip_above", "cost"):
        for junk in [*JUNK, 10**400]:
            tree = certificate()
            tree["path"][0][key] = junk
            trees.append(tree)
    loaded = 0
    for raw in raws + [json.dumps(tree).encode() for tree in trees]:
        beside.write_bytes(raw)
        try:
            policy = Policy.from_yaml(path, env={})
        except PolicyError:
            continue
        loaded += 1
        assert policy.point in policy.points
        assert policy.digest
    assert 1 <= loaded < len(trees) / 2

    path.write_text(
        HEAD.replace("kind: external}", "kind: external, confidence: {calibration: c.json}}", 1)
    )
    for raw in [
        *raws,
        *(json.dumps({"a": junk}).encode() for junk in [*JUNK, 10**400]),
        *(
            json.dumps({"a": {"kind": "by_label", "knots": j, "other": j, "labels": j}}).encode()
            for j in [*JUNK, [0, 10**400]]
        ),
    ]:
        beside.write_bytes(raw)
        with pytest.raises(PolicyError):
            Policy.from_yaml(path, env={})
