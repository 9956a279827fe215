"""Recordings: what is read, and what is refused with its place."""

import gzip
import re

import numpy as np
import pytest

from cascade import Recording, RecordingError
from cascade.fitting.same import same_as

COLUMNS = {
    "truth": ["a", "b", "a"],
    "small.value": ["a", "a", "b"],
    "small.confidence": [0.9, 0.5, 0.4],
    "large.value": ["a", "b", "b"],
    "large.cost": [1.0, 2.0, 3.0],
    "small.cost": [0.1, 0.1, 0.1],
}
CSV = "\n".join(",".join(map(str, row)) for row in [COLUMNS, *zip(*COLUMNS.values(), strict=True)])


def with_(**more):
    return COLUMNS | {name.replace("__", "."): column for name, column in more.items()}


def test_columns_in_memory():
    held = Recording.from_columns(COLUMNS)
    assert (held.n, held.names) == (3, ("small", "large"))
    assert held.right().tolist() == [[True, True], [False, True], [False, False]]
    assert held.agrees().tolist() == [[True, True], [False, True], [True, True]]
    assert held.costs().tolist() == pytest.approx([0.1, 2.0])


@pytest.mark.parametrize("name", ["r.csv", "r.csv.gz"])
def test_files_say_the_same(tmp_path, name):
    data = CSV.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    held, plain = Recording.read(tmp_path / name), Recording.from_columns(COLUMNS)
    assert held.names == plain.names
    assert held.right().tolist() == plain.right().tolist()
    assert held.digest == plain.digest


def test_parquet_says_the_same_too(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(COLUMNS), tmp_path / "r.parquet")
    held, plain = Recording.read(tmp_path / "r.parquet"), Recording.from_columns(COLUMNS)
    assert held.right().tolist() == plain.right().tolist()
    assert held.tiers[0].confidence.tolist() == plain.tiers[0].confidence.tolist()


def test_a_folder_and_a_glob_are_one_recording(tmp_path):
    for name in ("1.csv", "2.csv"):
        (tmp_path / name).write_text(CSV)
    assert Recording.read(tmp_path).n == Recording.read(tmp_path / "*.csv").n == 6
    (tmp_path / "3.csv").write_text("truth,a.value,b.value\nx,x,x\n")
    with pytest.raises(RecordingError, match=r"3\.csv: other columns than"):
        Recording.read(tmp_path)


def test_an_index_takes_rows_of_everything():
    held = Recording.from_columns(with_(x__length=[1, 2, 3], input=["p", "q", "r"]))
    part = held.take([2, 0])
    assert (part.n, part.text.tolist()) == (2, ["r", "p"])
    assert part.features["length"].tolist() == [3, 1]
    assert part.tiers[0].confidence.tolist() == [0.4, 0.9]


def test_correct_and_quality_stand_for_the_truth():
    held = Recording.from_columns({"a.correct": [1, 0], "b.quality": [0.5, 1.0]})
    assert held.right().tolist() == [[1.0, 0.5], [0.0, 1.0]]
    with pytest.raises(RecordingError, match=r"give a\.agrees"):
        held.agrees()


def test_incomplete_rows_are_counted_and_can_be_left_out():
    holed = with_(large__value=["a", "", None])
    with pytest.raises(RecordingError, match=r"2 of 3 rows lack a tier's value .*row 2"):
        Recording.from_columns(holed)
    assert Recording.from_columns(holed, complete_only=True).n == 1


@pytest.mark.parametrize("empty", ["", None, float("nan")])
def test_a_row_without_a_truth_is_none_on_which_nothing_is_lost(empty):
    holed = with_(truth=["a", empty, "a"])
    with pytest.raises(RecordingError, match=r"1 of 3 rows lack the truth .*row 2.*at random"):
        Recording.from_columns(holed)
    assert Recording.from_columns(holed, complete_only=True).n == 2
    assert Recording.from_columns(with_(truth=[empty] * 3)).truth is None


@pytest.mark.parametrize("cost", [-1.0, float("nan"), float("inf"), 1e200])
def test_costs_are_finite_and_not_negative(cost):
    held = Recording.from_columns({"a.correct": [1], "b.correct": [1]})
    with pytest.raises(RecordingError, match="costs: expected finite numbers of 0 or more"):
        held.costs([1.0, cost])


def test_costs_that_were_recorded_have_a_finite_mean():
    columns = {"a.correct": [1, 1], "b.correct": [1, 1]}
    columns |= {"a.cost": [1e308, 1e308], "b.cost": [1, 1]}
    with pytest.raises(RecordingError, match=r"the mean of \.cost: expected finite"):
        Recording.from_columns(columns).costs()


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (with_(small__confidence=[0.9, "high", 0.4]), r"row 2, column small\.confidence.*'high'"),
        (with_(small__confidence=[0.9, 0.5, float("nan")]), r"row 3.*finite number, got nan"),
        (with_(small__confidence=[0.9, 1.5, 0.4]), r"row 2.*in \[0, 1\], got 1\.5"),
        (with_(small__agrees=[1, 0, 2]), "row 3.*0 or 1, got 2"),
        (with_(small__agrees=["True", "0", "yes"]), "row 3.*0 or 1, got 'yes'"),
        ({"": [0], "truth": [1]}, "unknown column ''; is it a frame's index"),
        (with_(small__cost=[1, -1, 0]), "row 2.*not negative"),
        (with_(small__confidance=[1, 1, 1]), r"did you mean small\.confidence\?"),
        (with_(thruth=[1, 1, 1]), "unknown column 'thruth'; did you mean truth"),
        (with_(index=[0, 1, 2]), r"unknown column 'index'; leave it out, or name it x\.index"),
        (with_(truth=["a"]), r"columns of different lengths \[1, 3\]"),
        ({"truth": [], "a.value": [], "b.value": []}, "no rows"),
        ({"truth": ["a"], "a.value": ["a"]}, "two tiers or more, got a"),
        ({"a.correct": [1], "a.score": [7], "b.correct": [1]}, r"a\.score alone cannot be served"),
        (with_(input=["p", None, "r"]), "row 2, column input: expected text, got None"),
        (with_(truth=7), "column 'truth': expected a list of cells, got an int"),
        (with_(truth="aba"), "column 'truth': expected a list of cells, got a str"),
        (with_(small__confidence=np.ones((3, 1))), r"row 1, column small\.confidence: .*a number"),
        ([COLUMNS], "a mapping of names to columns, or a data frame of pandas, got a list"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_place(columns, words):
    with pytest.raises(RecordingError, match=words):
        Recording.from_columns(columns)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("a,a\n1,1\n", "'a' stands there twice"),
        ("truth,b\n1\n", "row 1: expected 2"),
        ("truth;a.value;b.value\nx;x;x\n", "separated by ';'; expected ','"),
        ("truth\ta.value\nx\tx\n", r"separated by '\\t'"),
        ("truth, a.value\nx,x\n", "column ' a.value': a blank"),
        ('truth,a.value,b.value\nx,x,x\nx,x,"x\nx,x,x\n', "row 2: unexpected end .* are doubled"),
        ('truth,a.value,b.value\nx,"x" x,x\n', "row 1: ',' expected after '\"'"),
    ],
)
def test_files_that_are_no_table(tmp_path, text, words):
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(RecordingError, match=words):
        Recording.read(tmp_path / "r.csv")


def test_a_missing_file_and_a_broken_one(tmp_path):
    with pytest.raises(RecordingError, match=r"cannot be read: No such file or directory$"):
        Recording.read(tmp_path / "no.csv")
    (tmp_path / "r.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(RecordingError, match="cannot be read"):
        Recording.read(tmp_path / "r.csv.gz")
    with pytest.raises(RecordingError, match="no recording there"):
        Recording.read(tmp_path / "*.parquet")


def test_tiers_are_chosen_by_name():
    held = Recording.from_columns(COLUMNS)
    assert held.select(["large", "small"]).names == ("large", "small")
    with pytest.raises(RecordingError, match=r"no tier 'smal'; did you mean 'small'\?"):
        held.select(["smal", "large"])


def test_costs_that_are_missing_or_too_few():
    held = Recording.from_columns({"a.correct": [1], "b.correct": [1]})
    with pytest.raises(RecordingError, match=r"costs=\[…\] or --costs"):
        held.costs()
    with pytest.raises(RecordingError, match="expected one per tier"):
        held.costs([1])
    assert held.costs([1, 2]).tolist() == [1.0, 2.0]


def test_every_shared_recording_can_be_read(shared):
    for file in sorted(shared.glob("*.csv.gz")):
        if file.name.startswith("azure"):
            continue
        held = Recording.read(file)
        assert np.isfinite(held.right().mean())


def test_of_rows_that_are_left_out_no_cell_is_looked_at():
    table = {
        "a.value": ["x", "x", "y"], "a.confidence": ["0.5", "0.6", "0.7"],
        "b.value": ["x", "", "y"], "b.confidence": ["0.9", "", "1"], "b.seconds": ["1", "", "3"],
    }  # fmt: skip
    held = Recording.from_columns(table, complete_only=True)
    assert held.tiers[1].confidence.tolist() == [0.9, 1.0]
    assert held.tiers[1].seconds.tolist() == [1.0, 3.0]
    with pytest.raises(RecordingError, match=r"row 3, column b\.seconds: expected a number"):
        Recording.from_columns(table | {"b.seconds": ["1", "", "s"]}, complete_only=True)


def frame(**more):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(with_(**more), index=[2, 0, 1])


def test_a_frame_is_read_by_place_whatever_its_index():
    held = Recording.from_columns(frame(truth=["a", None, "b"]), complete_only=True)
    assert held.tiers[0].confidence.tolist() == [0.9, 0.4]
    with pytest.raises(RecordingError, match=r"row 2, column small\.confidence: .*got 1\.5"):
        Recording.from_columns(frame(small__confidence=[0.9, 1.5, 0.4]))


@pytest.mark.parametrize("kind", ["float64", "Int64", "object"])
def test_what_a_frame_has_for_a_missing_label_is_none(kind):
    table = frame(truth=[1, None, 2], small__value=[1, 1, 1], large__value=[1, 2, None])
    table = table.astype({"truth": kind, "large.value": kind})
    with pytest.raises(RecordingError, match="1 of 3 rows lack a tier's value"):
        Recording.from_columns(table)
    held = Recording.from_columns(table, complete_only=True)
    assert held.right().tolist() == [[True, True]]
    assert held.tiers[1].value.tolist() == [1]
    assert type(held.tiers[1].value.tolist()[0]) is int


@pytest.mark.parametrize("kind", [object, np.dtypes.StringDType()])
def test_texts_are_texts_in_an_array_of_any_kind(kind):
    held = Recording.from_columns(with_(truth=np.array(["a", "b", "a"], dtype=kind)))
    assert held.truth.dtype.kind == "U"
    assert held.right().tolist() == Recording.from_columns(COLUMNS).right().tolist()


def test_integers_with_gaps_in_a_list_stay_integers():
    columns = with_(truth=[1, None, 2], small__value=[1, 1, 1], large__value=[1, 2, 2])
    assert Recording.from_columns(columns, complete_only=True).right().tolist() == [
        [True, True], [False, True],
    ]  # fmt: skip


def test_labels_of_different_types_are_compared_by_nothing_but_what_is_said():
    held = Recording.from_columns(with_(large__value=["1", "2", "3"], truth=[1, 2, 3.5]))
    with pytest.raises(RecordingError, match=r"different types .*truth numbers, large integers as"):
        held.right()
    with pytest.raises(
        RecordingError, match=r"different types .*small text, large integers as tex"
    ):
        held.agrees()
    assert held.right(lambda a, b: str(a) == str(b)).shape == (3, 2)
    judged = Recording.from_columns(with_(large__value=[1, 2, 3], small__agrees=[1, 0, 1]))
    assert judged.agrees()[:, 0].tolist() == [True, False, True]


def test_fractions_of_a_regression_are_near_whole_numbers():
    columns = with_(truth=[1, 2, 3], small__value=[1.1, 2.6, 3.0], large__value=[1.0, 2.0, 3.2])
    held = Recording.from_columns(columns)
    assert held.right(same_as("number:0.15")).tolist() == [[1, 1], [0, 1], [1, 1]]


def test_answers_may_be_lists():
    said = [["a"], ["b", "c"], []]
    held = Recording.from_columns(
        {"truth": said, "a.value": [["a"], ["b"], []], "b.value": said, "a.confidence": [1, 0, 1]}
    )
    assert held.right().tolist() == [[True, True], [False, True], [True, True]]
    vectors = np.ones((3, 2))
    held = Recording.from_columns({"truth": vectors, "a.value": vectors * 2, "b.value": vectors})
    assert held.right().tolist() == [[False, True]] * 3


def test_files_of_several_folders_and_files_whose_names_look_like_globs(tmp_path):
    for folder in ("day [1]", "day [2]"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "run[1].csv").write_text(CSV)
    assert Recording.read(tmp_path / "day [1]" / "run[1].csv").n == 3
    assert Recording.read(tmp_path / "day [1]" / "*.csv").n == 3
    assert Recording.read(tmp_path / "day *" / "run*.csv").n == 6
    assert Recording.read(tmp_path / "**" / "*.csv").n == 6


def test_damaged_files_are_told(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "r.parquet").write_bytes(b"PAR1 no table")
    packed = bytearray(gzip.compress(CSV.encode()))
    packed[10] = 0xFF  # no kind of block
    (tmp_path / "r.csv.gz").write_bytes(packed)
    for name in ("r.parquet", "r.csv.gz"):
        with pytest.raises(RecordingError, match=f"{name}: cannot be read"):
            Recording.read(tmp_path / name)


def test_a_text_may_be_of_any_size(tmp_path):
    head, *rows = CSV.splitlines()
    text = "\n".join([head + ",input", *(f"{row},{'x' * 200_000}" for row in rows)])
    (tmp_path / "r.csv").write_text(text)
    assert len(Recording.read(tmp_path / "r.csv").text[0]) == 200_000


def test_right_or_wrong_may_be_written_as_a_frame_does():
    columns = {"a.correct": ["True", "False"], "b.correct": [True, False], "a.agrees": ["1", "0"]}
    held = Recording.from_columns(columns)
    assert held.right().tolist() == [[True, True], [False, False]]
    assert held.agrees().tolist() == [[True, True], [False, True]]


@pytest.mark.parametrize("costs", ["1,20", {"a": 1, "b": 20}, 5, ["cheap", "dear"]])
def test_costs_are_numbers_in_the_order_of_the_tiers(costs):
    held = Recording.from_columns({"a.correct": [1], "b.correct": [1]})
    with pytest.raises(RecordingError, match="costs: expected"):
        held.costs(costs)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Small.confidence", "columns of 'Small' hold no answers; did you mean 'small'?"),
        (" small.confidence", "columns of ' small' hold no answers; did you mean 'small'?"),
        ("small.CONFIDENCE", "unknown column 'small.CONFIDENCE'; did you mean small.confidence?"),
        ("TRUTH", "unknown column 'TRUTH'; did you mean truth?"),
    ],
)
def test_a_slip_in_the_name_of_a_column_is_seen(name, said):
    table = {"small.correct": [1, 0], name: [0.9, 0.1], "large.correct": [1, 1]}
    with pytest.raises(RecordingError, match=re.escape(said)):
        Recording.from_columns(table)


def test_no_tier_is_called_x():
    table = {"x.correct": [1, 0], "x.confidence": [0.9, 0.1], "y.correct": [1, 1]}
    with pytest.raises(RecordingError, match="no tier can be called x"):
        Recording.from_columns(table)
    shown = {"x.value": [1, 0], "small.correct": [1, 0], "large.correct": [1, 1]}
    assert list(Recording.from_columns(shown).features) == ["value"]
