import attrs
import numpy as np
import pytest

from cascade import Policy
from cascade.fitting import fit, redo_test
from cascade.fitting.certify import certificate_of, fixed_sequence_test
from cascade.fitting.paths import two_tier_path
from cascade.fitting.verify import verify_certificate


@pytest.fixture(scope="module")
def cert():
    rng = np.random.default_rng(0)
    sure = rng.random((800, 1))
    lost = rng.random((800, 1)) < 0.3 * (1 - sure)
    tested = fixed_sequence_test(two_tier_path(sure), sure, lost, max_loss=0.05, alpha=0.1)
    return certificate_of(tested, ["small", "large"], loss="gross")


def with_point(cert, index, **changes):
    path = list(cert.path)
    path[index] = attrs.evolve(path[index], **changes)
    return attrs.evolve(cert, path=tuple(path))


def test_sound(cert):
    assert verify_certificate(cert) == []


@pytest.mark.parametrize("by", [-1, 1])
def test_a_prefix_of_another_length(cert, by):
    wrong = attrs.evolve(cert, certified=cert.certified + by)
    assert "the p-values certify" in verify_certificate(wrong)[0]


def test_another_p_value(cert):
    at = cert.certified
    assert f"point {at}: p-value" in verify_certificate(with_point(cert, at, p_value=0.05))[0]


def test_fewer_losses_than_were_counted(cert):
    at = cert.certified
    assert verify_certificate(with_point(cert, at, losses=cert.path[at].losses - 1))


def test_a_laxer_bound(cert):
    assert verify_certificate(attrs.evolve(cert, max_loss=0.04))
    assert verify_certificate(attrs.evolve(cert, alpha=0.001))
    assert verify_certificate(attrs.evolve(cert, n=700))


def test_a_start_that_is_not_strict(cert):
    found = verify_certificate(with_point(cert, 0, thresholds=(0.9,)))
    assert "always escalate" in found[0]


def test_losses_that_fall(cert):
    found = verify_certificate(with_point(cert, len(cert.path) - 1, losses=0))
    assert "losses fall along a path that is said to cover adaptive use" in found


def test_of_the_net_loss_the_prefix_is_checked(cert):
    net = attrs.evolve(cert, loss="net", covers="fixed_point")
    assert verify_certificate(net) == []
    (wrong,) = verify_certificate(attrs.evolve(net, certified=cert.certified - 1))
    assert "the p-values certify" in wrong


def test_what_is_not_there_is_said_to_be_missing():
    import attrs

    import cascade
    from cascade.fitting import verify_certificate
    from cascade.policy.certificate import Certificate, PathPoint

    start = PathPoint(thresholds=(2.0,), losses=0, p_value=0.0)
    cert = Certificate(
        max_loss=0.01, alpha=0.1, loss="gross", covers="adaptive", n=500, tiers=("a", "b"),
        path=(start,), certified=1,
    )  # fmt: skip
    assert verify_certificate(attrs.evolve(cert, path=())) == ["the path has no points"]
    odd = attrs.evolve(
        cert, path=(start, PathPoint(thresholds=(0.5, 0.5), losses=501, p_value=1.0))
    )
    found = " ".join(verify_certificate(odd))
    assert "point 1: 2 thresholds, 2 tiers" in found
    assert "point 1: 501 losses in 500 rows" in found
    tree = {"version": 1, "name": "p", "tiers": [{"name": "a", "kind": "external"}]}
    policy = cascade.Policy.from_dict(tree).certified(attrs.evolve(cert, tiers=("a",)))
    with cascade.Router(policy, tiers={"a": lambda xs: xs}, env={}) as router:
        assert "cascade_certificate_max_loss 0.01" in router.metrics()


def test_a_policy_without_a_certificate_has_nothing_to_count_again():
    tree = {"version": 1, "name": "p", "tiers": [{"name": "a", "kind": "external"}]}
    assert redo_test(Policy.from_dict(tree), {"a.value": [1]}) == ["the policy has no certificate"]


def test_of_points_that_are_wrong_alike_the_first_are_told(cert):
    wrong = verify_certificate(attrs.evolve(cert, n=2 * cert.n))
    told = [line for line in wrong if line.startswith("point ")]
    assert len(told) == 3
    assert wrong[3].startswith("… and ")
    assert wrong[3].endswith(" more points: counts and p-values do not belong together")
    assert "points are said to be certified" in wrong[-1]
    some = [attrs.evolve(point, p_value=0.5) for point in cert.path[1:5]]
    four = verify_certificate(attrs.evolve(cert, path=(cert.path[0], *some, *cert.path[5:])))
    assert len(four) == 4


def test_a_seed_that_was_drawn_is_written_down():
    rng = np.random.default_rng(0)
    sure = rng.random(2_000)
    table = {
        "small.correct": rng.random(2_000) < sure, "small.confidence": sure,
        "large.correct": np.ones(2_000, dtype=bool), "x.size": rng.random(2_000),
    }  # fmt: skip
    found = fit(table, max_loss=0.1, costs=[1, 20], seed=None)
    assert found.certificate.fractions is not None
    assert redo_test(found.policy, table) == []
