"""Simulation: the decision core under queueing, in virtual time."""

import gzip

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cascade
from cascade import Policy, PolicyError, RecordingError
from cascade.simulation import Arrivals, find_capacity, gamma, on_off, poisson, simulate
from cascade.simulation.display import LoadDisplay
from tests.simulation.test_replay import policies, tables

TIMES = {"small": "1ms", "large": "100ms"}


def policy(small=(), large=(), **more):
    return Policy.from_dict(
        {
            "version": 1, "name": "p", "deadline": "250ms",
            "tiers": [{"name": "small", "kind": "external", "workers": 1, **dict(small)},
                      {"name": "large", "kind": "external", "workers": 1, **dict(large)}],
            "escalation": {"thresholds": [0.5]}, **more,
        }
    )  # fmt: skip


def recording(n=2, share=0.5, seed=0):
    hard = np.random.default_rng(seed).random(n) < share
    return {
        "truth": ["yes"] * n,
        "small.value": ["no" if h else "yes" for h in hard],
        "small.confidence": [0.1 if h else 0.9 for h in hard],
        "large.value": ["yes"] * n,
    }


@settings(deadline=None, max_examples=60)
@given(policies(), tables)
def test_with_time_and_room_it_decides_as_replay_does(policy, table):
    replayed = cascade.replay(policy, table)
    seconds = dict.fromkeys(("small", "middle", "large"), "1ms")
    n = replayed.n
    found = simulate(policy, table, np.arange(n) * 10.0, deadline="9s", seconds=seconds)
    assert [str(end.disposition) for end in found.log.ends] == list(replayed.ends)
    assert [end.tier for end in found.log.ends] == list(replayed.tiers)
    assert found.calls == pytest.approx(replayed.calls)
    if None not in replayed.tiers and "abstained" not in replayed.ends:
        assert found.accuracy == pytest.approx(replayed.accuracy)


def test_a_queue_forms_and_what_cannot_be_in_time_is_forced():
    all_hard = recording(1, share=2.0)
    found = simulate(policy(), all_hard, [0.0] * 10, seconds=TIMES)
    ends = [str(end.disposition) for end in found.log.ends]
    # 1 ms each for the small tier, one after the other; the large one has time for two
    assert ends.count("accepted") == 2
    assert ends.count("degraded") == 8
    assert found.forced_accepts == 0.8
    assert found.slo_attainment == 1.0
    assert found.utilization["large"] == pytest.approx(0.2 / (found.log.ended / 1e9))


def test_more_workers_and_batches_answer_more():
    hard, burst = recording(1, share=2.0), [0.0] * 10
    one = simulate(policy(), hard, burst, seconds=TIMES)
    two = simulate(policy(large={"workers": 2}), hard, burst, seconds=TIMES)
    assert two.calls["large"] == 2 * one.calls["large"]


@pytest.mark.parametrize(
    ("large", "workers"),
    [
        ({}, 8),  # a Python tier may well wait for something else
        ({"workers": 3}, 3),
        ({"workers": {"min": 1, "max": 4}}, 4),
        ({"execution": "worker"}, 8),
        ({"execution": "inline"}, 1),
        ({"execution": "process"}, 1),
        ({"kind": "onnx", "model": "absent.onnx"}, 1),
        ({"kind": "onnx", "model": "absent.onnx", "workers": 64}, 64),
    ],
)
def test_each_tier_has_the_workers_that_serve_it(large, workers):
    tiers = [{"name": "small", "kind": "external", "workers": 1},
             {"name": "large", "kind": "external", **large}]  # fmt: skip
    given = Policy.from_dict({**policy().to_dict(), "tiers": tiers})
    found = simulate(given, recording(), [0.0], seconds=TIMES, baselines=False)
    assert found.workers == {"small": 1, "large": workers}


def test_as_many_calls_run_at_a_time_as_there_are_workers():
    tiers = [{"name": name, "kind": "external"} for name in TIMES]
    given = Policy.from_dict({**policy().to_dict(), "tiers": tiers})
    found = simulate(given, recording(1, share=2.0), [0.0] * 16, seconds=TIMES, baselines=False)
    assert found.calls["large"] == 1.0  # twice eight, 100 ms each, in 250 ms


def test_batches_share_the_overhead_of_the_profile(tmp_path):
    import json

    times = {"small": [0.0, 0.001], "large": [0.09, 0.01]}
    profile = {name: {"overhead": o, "per_row": p} for name, (o, p) in times.items()}
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    spec = {"profile": "profile.json"}

    def run(large):
        text = policy(large=large, **spec).to_yaml()
        (tmp_path / "policy.yaml").write_text(text)
        given = Policy.from_yaml(tmp_path / "policy.yaml")
        return simulate(given, recording(1, share=2.0), [0.0] * 10, baselines=False)

    alone, together = run({}), run({"batch": {"max_size": 4}})
    assert together.calls["large"] > alone.calls["large"]


def test_a_full_queue_refuses():
    found = simulate(
        policy(small={"queue": 1}), recording(1, share=0.0), [0.0] * 10,
        seconds={"small": "200ms", "large": "240ms"},
    )  # fmt: skip
    assert found.slo_attainment < 1.0
    assert {str(end.reason) for end in found.log.ends if end.rank < 0} <= {"overload", "deadline"}


def test_what_would_run_too_long_is_stopped_where_it_can_be(tmp_path):
    table = recording(40, share=2.0)
    table["large.seconds"] = [0.05] * 39 + [30.0]  # the last one hangs
    table["small.seconds"] = [0.001] * 40

    def busy(execution):
        given = policy(large={"execution": execution})
        return simulate(given, table, np.arange(80) * 1.0, deadline=0.5, baselines=False)

    hanging, killed = busy("worker"), busy("process")
    assert killed.utilization["large"] < hanging.utilization["large"]
    assert killed.accuracy > hanging.accuracy
    assert {str(hanging.log.ends[39].disposition)} == {"degraded"}


def test_what_had_to_be_stopped_is_hardly_tried_again_as_live():
    """A stopped run takes longer than it ran: else the next request with as much time tries too."""
    slow = policy(large={"execution": "process"})
    found = simulate(
        slow, recording(share=1.0), np.arange(2_000.0), deadline="80ms", seconds=TIMES,
        baselines=False,
    )  # fmt: skip
    assert 0.0 < found.calls["large"] < 0.02


def test_the_baselines_are_what_they_say():
    found = simulate(policy(), recording(100), poisson(20.0, 2_000), seconds=TIMES)
    small, large, timeout = (
        found.baselines[name] for name in ("always_small", "always_large", "plain_timeout")
    )
    assert small.calls["large"] == large.calls["small"] == 0.0
    assert small.slo_attainment == 1.0
    assert large.slo_attainment < 0.7
    assert timeout.slo_attainment < found.slo_attainment == 1.0
    assert found.accuracy > small.accuracy
    assert set(found.to_dict()["baselines"]["always_small"]) == set(found.to_dict())


def test_the_same_seed_is_the_same_to_the_last_byte():
    runs = [
        simulate(policy(), recording(50), gamma(12.0, 3_000, 4.0, seed=7), seconds=TIMES)
        for _ in range(2)
    ]
    assert repr(runs[0].to_dict()) == repr(runs[1].to_dict())
    assert (runs[0].log.latency == runs[1].log.latency).all()


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.floats(0, 2), min_size=1, max_size=60),
    st.sampled_from([0.02, 0.1, 0.25, 1.0]),
    st.integers(1, 3), st.integers(1, 4), st.integers(1, 20),
)  # fmt: skip
def test_whatever_comes_each_request_ends_once_and_in_time(times, deadline, workers, cap, limit):
    large = {"workers": workers, "batch": {"max_size": cap}, "queue": limit}
    found = simulate(policy(large=large), recording(20), times, deadline=deadline, seconds=TIMES)
    log = found.log
    assert all(end is not None for end in log.ends)
    assert log.late_starts == 0
    assert (log.latency <= round(deadline * 1e9)).all()
    assert ((log.latency >= 0) == (log.rank >= 0)).all()
    assert all(0.0 <= share <= 1.0 for share in found.utilization.values())


def test_nothing_starts_after_its_deadline_in_100_000_requests():
    found = simulate(
        policy(), recording(997), gamma(30.0, 100_000, 6.0, seed=3), seconds=TIMES, baselines=False
    )
    assert found.log.late_starts == 0
    assert found.slo_attainment == 1.0


def test_the_capacity_is_where_the_slo_ends():
    given, table, when = policy(), recording(500), poisson(10.0, 4_000, seed=2)
    settings_ = {"seconds": {"small": "20ms", "large": "100ms"}, "slo": 0.99}
    speed = find_capacity(given, table, when, **settings_)
    run = {"seconds": settings_["seconds"], "baselines": False}
    assert simulate(given, table, when, speed=speed, **run).slo_attainment >= 0.99
    assert simulate(given, table, when, speed=speed * 1.1, **run).slo_attainment < 0.99


def test_the_capacity_is_found_below_the_traces_own_speed_too():
    given, table, when = policy(), recording(200), poisson(500.0, 500, seed=2)
    run = {"seconds": {"small": "20ms", "large": "100ms"}}
    speed = find_capacity(given, table, when, slo=0.9, **run)
    assert 0.0 < speed < 1.0
    found = simulate(given, table, when, speed=speed, baselines=False, **run)
    assert found.slo_attainment >= 0.9
    never = {"seconds": {"small": "9s", "large": "9s"}}
    with pytest.raises(ValueError, match=r"slo: 90.00% is not reached at any speed"):
        find_capacity(given, table, when, slo=0.9, **never)


def test_a_trace_that_may_come_all_at_once_tells_no_capacity():
    given, table = policy(), recording(2, share=0.0)
    assert find_capacity(given, table, [0.0, 1.0, 2.0], slo=0.99, seconds=TIMES) == float("inf")


def test_the_capacity_of_the_complete_rows():
    """What ``simulate`` is told it may be told as well."""
    table = recording(200)
    table["large.value"] = [None, *table["large.value"][1:]]
    when, settings = poisson(5.0, 500), {"seconds": TIMES, "complete_only": True}
    assert find_capacity(policy(), table, when, **settings) > 0.0


def test_no_speed_is_tried_at_which_a_trace_would_be_too_long():
    """In nanoseconds such times overflow: the whole trace came at once."""
    never = {"seconds": {"small": "9s", "large": "9s"}}
    with pytest.raises(ValueError, match=r"slo: 90.00% is not reached at any speed"):
        find_capacity(policy(), recording(), [0.0, 1e6], slo=0.9, **never)
    with pytest.raises(RecordingError, match=r"at most 1e\+09 s can be simulated"):
        simulate(policy(), recording(), [0.0, 1.0], speed=1e-10, seconds=TIMES)


def test_a_process_of_which_nothing_ever_comes():
    with pytest.raises(ValueError, match="on: expected a positive number, got 0"):
        on_off(10.0, 5, on=0.0, off=5.0)


@pytest.mark.parametrize("slo", [2.0, 0.0, -0.5, float("nan")])
def test_an_slo_is_a_share(slo):
    with pytest.raises(ValueError, match="slo: expected a share above 0 and at most 1"):
        find_capacity(policy(), recording(), [0.0], slo=slo, seconds=TIMES)


def test_deadlines_of_a_trace_are_held_to_the_policys_longest():
    given = Policy.from_dict({**policy().to_dict(), "deadline": "20ms", "max_deadline": "50ms"})
    when = Arrivals(np.arange(5.0), deadlines=np.full(5, 3_600.0))
    slow = {"small": "1ms", "large": "100ms"}
    found = simulate(given, recording(), when, seconds=slow, baselines=False)
    assert found.calls["large"] == 0.0


def test_arrivals_may_be_a_file_and_must_be_times(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s\n5\n7\n")
    assert Arrivals.of(path).times.tolist() == Arrivals.of(str(path)).times.tolist() == [0.0, 2.0]
    for wrong in ([], [[1.0]], [float("nan")], 3.0, None, ["soon"], {"arrival_s": [1.0]}):
        with pytest.raises(RecordingError, match="a sequence of finite times"):
            Arrivals.of(wrong)


def test_arrivals_have_the_moments_they_were_asked_for():
    for cv in (0.5, 1.0, 4.0):
        gaps = np.diff(gamma(20.0, 200_000, cv, seed=1).times)
        assert gaps.mean() == pytest.approx(0.05, rel=0.05)
        assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)
    bursts = on_off(100.0, 1_000, on=1.0, off=9.0, seed=1)
    assert ((bursts.times % 10.0) <= 1.001).mean() > 0.9


def test_a_trace_is_read_and_sorted(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,deadline_s\n7.5,0.1\n5.0,\n")
    when = Arrivals.read(path)
    assert when.times.tolist() == [0.0, 2.5]
    assert np.isnan(when.deadlines[0])
    found = simulate(policy(), recording(), when, seconds=TIMES)
    assert found.n == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("when\n1\n", "expected a column arrival_s"),
        ("arrival_s\n1\nsoon\n", r"trace.csv:3: arrival_s: expected a number, got 'soon'"),
        ("arrival_s\nnan\n", r"trace.csv:2: arrival_s"),
        ("", "expected a column arrival_s"),
        ("arrival_s\n", "no arrivals: there are no rows"),
        ("arrival_s,deadline_s\n1,1\n2,0\n", r"trace.csv:3: deadline_s: expected more than 0 s"),
        ("arrival_s,deadline_s\n1,-1\n", r"trace.csv:2: deadline_s: expected more than 0 s"),
        ("arrival_s,deadline_s\n1,1e10\n", r"trace.csv:2: deadline_s: .*, and at most 1e\+09"),
        ("arrival_s\n0\n86400e9\n", r"go on for 8.64e\+13 s, .*; the times are seconds"),
        ("arrival_s,deadline\n1,2\n", "'deadline' is read; did you mean 'deadline_s'"),
        ("arrival_s,prio\n1,low\n", r"did you mean 'priority'\? \(arrival_s, deadline_s, tenant"),
        ("arrival\n1\n", "did you mean 'arrival_s'"),
    ],
)
def test_a_bad_trace_says_where(tmp_path, text, message):
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(RecordingError, match=message):
        Arrivals.read(path)


def test_other_columns_of_a_trace_are_left_alone(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,deadline_s,duration_s,deadline,tokens\n3,1,2,1,7\n")
    assert Arrivals.read(path).deadlines.tolist() == [1.0]
    path.write_text("arrival_s,duration_s,latency_s,user\n3,1,2,x\n")
    assert Arrivals.read(path).deadlines is None


def test_a_trace_may_begin_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s\n5\n7\n", encoding="utf-8-sig")
    assert Arrivals.read(path).times.tolist() == [0.0, 2.0]


def test_a_trace_that_cannot_be_read_says_why(tmp_path):
    with pytest.raises(RecordingError, match=r"none\.csv: cannot be read: No such file or dir"):
        Arrivals.read(tmp_path / "none.csv")
    path = tmp_path / "cut.csv.gz"
    path.write_bytes(gzip.compress(b"arrival_s\n1\n")[:-9])
    with pytest.raises(RecordingError, match=r"cut\.csv\.gz: cannot be read: Compressed file"):
        Arrivals.read(path)
    whole = gzip.compress(b"arrival_s\n1\n")
    path.write_bytes(whole[:10] + b"\xff" * 8 + whole[18:])
    with pytest.raises(RecordingError, match=r"cut\.csv\.gz: cannot be read: Error -3"):
        Arrivals.read(path)


def test_what_is_missing_is_asked_for():
    with pytest.raises(RecordingError, match=r"no column small.seconds.*--seconds small=10ms"):
        simulate(policy(), recording(), [0.0])
    with pytest.raises(RecordingError, match="no tier 'smal'"):
        simulate(policy(), recording(), [0.0], seconds={"smal": "1ms"})
    with pytest.raises(ValueError, match="speed"):
        simulate(policy(), recording(), [0.0], seconds=TIMES, speed=0)
    bare = Policy.from_dict({**policy().to_dict(), "deadline": None} | {"deadline": "1s"})
    assert simulate(bare, recording(), [0.0], seconds=TIMES).n == 1
    tree = policy().to_dict()
    del tree["deadline"]
    with pytest.raises(PolicyError, match="--deadline 50ms"):
        simulate(Policy.from_dict(tree), recording(), [0.0], seconds=TIMES)


def test_it_is_drawn_over_time(tmp_path):
    found = simulate(policy(), recording(50), poisson(15.0, 500), seconds=TIMES)
    display = LoadDisplay.from_simulation(found)
    assert all(
        (column >= 0).all() and (column <= 1 + 1e-9).all() for column in display.busy.values()
    )
    width = display.time[1] - display.time[0]
    assert display.arrivals.sum() * width == pytest.approx(500)
    whole = found.log.busy[1] / 1e9
    assert display.busy["large"].sum() * width == pytest.approx(whole, rel=1e-6)
    display.save(tmp_path / "load.png")
    assert (tmp_path / "load.png").stat().st_size > 10_000


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_arrivals_that_would_never_come_are_refused(wrong):
    with pytest.raises(ValueError, match="rate: expected a positive number"):
        poisson(wrong, 5)
    with pytest.raises(ValueError, match="cv: expected a positive number"):
        gamma(1.0, 5, cv=wrong)
    with pytest.raises(ValueError, match="on: expected a positive number"):
        on_off(1.0, 5, on=wrong, off=1.0)
