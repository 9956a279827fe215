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
