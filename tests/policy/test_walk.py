"""What is said of a value that is wrong, and where: each at its own place."""

import pytest

from cascade import Policy, PolicyError

TIERS = "tiers: [{name: a, kind: external}, {name: b, kind: external}]\n"
HEAD = "version: 1\nname: p\n" + TIERS + "escalation: {thresholds: [0.5]}\n"


@pytest.fixture
def told(tmp_path):
    """Return a function from a file's text to its problems, as (line, column, path, message)."""

    def told(text, env=None):
        path = tmp_path / "policy.yaml"
        path.write_text(text)
        with pytest.raises(PolicyError) as caught:
            Policy.from_yaml(path, env=env or {})
        return [(i.line, i.column, i.path, i.message) for i in caught.value.issues]

    return told


# -- numbers by name -------------------------------------------------------------------------------


def test_each_weight_that_is_no_number_has_a_place_of_its_own(told):
    found = told(HEAD + 'complexity:\n  weights: {length: "0.2",\n    words: yes, lines: .inf}\n')
    assert found == [
        (6, 21, "complexity.weights.length", "expected a number, got '0.2'"),
        (7, 12, "complexity.weights.words", "expected a number, got 'yes'"),
        (7, 24, "complexity.weights.lines", "expected a number, got inf"),
    ]


def test_so_has_each_of_a_list(told):
    found = told(HEAD + "complexity: {weights: [1, .nan, 2, no]}\n")
    assert found == [
        (5, 27, "complexity.weights.1", "expected a number, got nan"),
        (5, 36, "complexity.weights.3", "expected a number, got 'no'"),
    ]


@pytest.mark.parametrize(
    ("weights", "got"), [("{}", "an empty mapping"), ("[]", "an empty list"), ("x", "'x'")]
)
def test_weights_that_are_none_are_one_problem(told, weights, got):
    said = f"expected a list of one or more numbers, or numbers by feature name, got {got}"
    assert told(f"{HEAD}complexity: {{weights: {weights}}}\n") == [
        (5, 23, "complexity.weights", said)
    ]


def test_and_what_fills_up_an_input(told):
    tiers = TIERS.replace("external}", "external, batch: {max_size: 2, pad: {a: '0', b: 1}}}", 1)
    assert told(HEAD.replace(TIERS, tiers)) == [
        (3, 65, "tiers.0.batch.pad.a", "expected a number, got '0'")
    ]


def test_names_are_text_and_problems_in_a_mapping_are_told_up_to_a_thousand(told):
    tree = {"version": 1, "name": "p", "tiers": [{"name": "a", "kind": "external"}]}
    with pytest.raises(PolicyError) as caught:
        Policy.from_dict(tree | {"complexity": {"weights": {1: 2, "a": True}}})
    assert [(i.path, i.message) for i in caught.value.issues] == [
        ("complexity.weights.1", "expected a name, got 1"),
        ("complexity.weights.a", "expected a number, got True"),
    ]
    weights = "".join(f"k{i}: x, " for i in range(1_500))
    found = told(f"{HEAD}complexity: {{weights: {{{weights}}}}}")
    assert len(found) == 1_001
    assert found[0][3].startswith("500 more values")


# -- forms, spellings and bounds -------------------------------------------------------------------


def tier(more):
    return HEAD.replace("{name: b, kind: external}", f"{{name: b, {more}}}")


WORKERS = "expected a whole number between 1 and 256"
SCORES = "expected one of auto, max_probability, margin, supplied"
KINDS = "probabilities, logits, sigmoid, label, value"
OUTPUTS = f"expected one of {KINDS}, or {{kind, name, confidence}}"


@pytest.mark.parametrize(
    ("more", "path", "said"),
    [
        ("workers: [1, 4]", "workers", f"{WORKERS}, or {{min, max}}, got a list"),
        ("workers: 0", "workers", f"{WORKERS}, or {{min, max}}, got 0"),
        ("workers: {max: 0}", "workers.max", f"{WORKERS}, got 0"),
        ("workers: 999999999999999999999", "workers", "expected a number of at most 20 digits"),
        (
            "confidence: 0.8",
            "confidence",
            f"{SCORES}, or {{score, temperature, calibration}}, got 0.8",
        ),
        ("outputs: [logits]", "outputs", f"{OUTPUTS}, got a list"),
        ("outputs: logit", "outputs", f"{OUTPUTS}, got 'logit'; did you mean 'logits'?"),
        ("breaker: 1", "breaker", "expected a mapping, got 1"),
    ],
)
def test_where_a_word_does_for_a_mapping_both_forms_are_named(told, more, path, said):
    (found,) = told(tier(f"kind: external, {more}"))
    assert found[2] == f"tiers.1.{path}"
    assert found[3].partition("; text goes")[0] == said


def test_a_word_that_does_for_a_mapping_leaves_the_rest_to_its_defaults(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text(tier("kind: external, workers: 3, confidence: margin, outputs: logits"))
    spec = Policy.from_yaml(path, env={}).tiers[1]
    assert (spec.workers.low, spec.workers.max) == (3, 3)
    assert (spec.confidence.score, spec.confidence.temperature) == ("margin", 1.0)
    assert (spec.outputs.kind, spec.outputs.name) == ("logits", None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("escalation: {thresholds: [0.5], allowance: {burst: 0}}", "between 1 and 1,000,000, got"),
        ("escalation: {thresholds: [0.5], abstain_below: 2}", "between 0 and 1, or a"),
        ("cache: {entries: 0}", "a whole number of at least 1, got 0"),
        (
            "complexity: {weights: [1], skip_above: [0.1, 0.2]}",
            "expected at most 1, one per tier below the top, got 2",
        ),
    ],
)
def test_bounds_are_written_out(told, text, said):
    (found,) = told((HEAD.partition("escalation")[0] if "escal" in text else HEAD) + text)
    assert said in found[3]


def test_enforce_without_thresholds_is_told_of_the_first_step(told):
    (found,) = told(HEAD.partition("escalation")[0])
    assert found[3] == (
        "mode enforce needs certificate: (from an exported bundle) or thresholds:; "
        "or use mode: observe, top_only or first_only"
    )


# -- keys that are not known -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "said"),
    [
        ("entries: 5", "entries", "belongs under cache:"),
        ("ttl: 5m", "ttl", "belongs under cache:"),
        ("thresholds: [0.5]", "thresholds", "belongs under escalation:"),
        ("abstain_below: 0.2", "abstain_below", "belongs under escalation:"),
        ("cache: {thresholds: [0.5]}", "cache.thresholds", "belongs under escalation:"),
        ("cache: {deadline: 1s}", "cache.deadline", "belongs at the top level"),
        ("cache: {burst: 5}", "cache.burst", "belongs under escalation.allowance:"),
        ("max_size: 8", "max_size", "belongs under tiers.N.batch:"),
        ("queue: 8", "queue", "belongs under tiers:"),
        ("threads: 8", "threads", "belongs under tiers: of kind onnx"),
        (
            "per_tenant: 5%",
            "per_tenant",
            "belongs under escalation.allowance: or under cache:",
        ),
        ("cache: {entires: 5}", "cache.entires", "did you mean 'entries'?"),
        ("Deadline: 1s", "Deadline", "did you mean 'deadline'?"),
        (
            "inputs: {vals: shape}",
            "inputs.vals",
            "expected one of cast, validate",
        ),
        ("inputs: {version: 1}", "inputs.version", "expected one of cast, validate"),
    ],
)
def test_a_key_that_is_known_elsewhere_is_sent_there(told, text, path, said):
    (found,) = [found for found in told(HEAD + text) if found[2] == path]
    assert found[3] == f"unknown key; {said}"


def test_a_key_of_another_kind_of_tier(told):
    tiers = HEAD.replace("{name: b, kind: external}", "{name: b, kind: external, model: m.onnx}")
    assert [found[2:] for found in told(tiers)] == [
        ("tiers.1.model", "unknown key; belongs under tiers: of kind onnx")
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "path"),
    [
        ("escalation", "escalaton", 4, "escalaton"),
        ("version", "verison", 1, "verison"),
        ("name: p", "nmae: p", 2, "nmae"),
        ("tiers", "teirs", 3, "teirs"),
        ("kind: external}]", "knid: external}]", 3, "tiers.1.knid"),
        ("{name: b", "{nam: b", 3, "tiers.1.nam"),
    ],
)
def test_what_is_misspelt_is_not_missing_too(told, old, new, line, path):
    found = told(HEAD.replace(old, new, 1))
    assert [(at, name) for at, _, name, _ in found] == [(line, path)]
    assert "did you mean" in found[0][3]


def test_what_stands_there_beside_its_misspelling_is_read(told):
    found = told(f"{HEAD}escalaton: {{}}\nmode: fast\n".replace("[0.5]", "[5]"))
    assert [path for _, _, path, _ in found] == ["escalation.thresholds.0", "escalaton", "mode"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mode: Observe", "did you mean 'observe'?"),
        ("deadline: Instant", "got 'Instant'; did you mean 'instant'?"),
        ("deadline: 50MS", "got '50MS'; did you mean '50ms'?"),
        ("deadline: 1.5 S", "got '1.5 S'; did you mean '1.5 s'?"),
        ("cache: {bytes: 64mb}", "got '64mb'; did you mean '64MB'?"),
        ("cache: {bytes: 64Kib}", "got '64Kib'; did you mean '64KiB'?"),
        (
            "deadline: soon",
            "(ns, us, ms, s, m, h), or instant, reaction, conversation, got 'soon'",
        ),
        ("cache: {bytes: 64 bytes}", "expected a positive size such as 64MB, got '64 bytes'"),
        ("cache: {bytes: 0mb}", "got '0mb'"),
    ],
)  # fmt: skip
def test_case_is_no_great_difference(told, text, said):
    (found,) = told(HEAD + text)
    assert found[3].endswith(said)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("kind: ONNX, model: m", "unknown kind 'ONNX'; did you mean 'onnx'?"),
        ("kind: onnx, model: m, optimization: ALL", "got 'ALL'; did you mean 'all'?"),
    ],
)
def test_nor_is_it_in_the_words_of_a_tier(told, more, said):
    (found,) = told(tier(more))
    assert found[3].endswith(said)
