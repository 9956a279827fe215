"""What is learned of a tier's times, with several threads at it."""

from cascade.load import ServiceTime


def test_who_looks_while_another_has_the_first_runs_in_hand_learns_nothing_yet():
    service = ServiceTime(start=7)
    with service._lock:  # as another thread holds it, between taking them and noting them
        for _ in range(4):
            service.observe(5)
        assert service.eta() == 7
        assert service.quantiles() is None
    service.observe(5)
    assert service.eta() == 5


def test_an_expectation_that_keeps_a_tier_from_running_fades_and_what_queues_drop_by_with_it():
    service = ServiceTime()
    service.observe_rows(8_000, 1)
    service.around = 800.0
    for _ in range(1_000):
        service.eta(idle=False)  # what runs will say how long it took
    assert (service.curve.safe(1), service.around) == (8_000, 800.0)
    for _ in range(1_000):
        service.eta()
    assert service.curve.safe(1) < 2_000
    assert service.around < 200.0
