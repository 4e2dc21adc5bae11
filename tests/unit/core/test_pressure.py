"""What a process takes on when its loop runs late, or memory or files run short."""

from fractions import Fraction
from random import Random

import pytest

from tests.unit.core.walks import Step, go, lengths
from trunkline_server.core.pressure import BIG_REQUEST_BYTES, Criticality, Pressure, Sample

LATE = Sample(lag_s=0.2)
PUNCTUAL = Sample(lag_s=0.0)


def rooms(pressure: Pressure) -> list[int]:
    """Those of batch, standard and interactive."""
    return [pressure.room(criticality) for criticality in Criticality]


def look(pressure: Pressure, times: int, sample: Sample, in_flight: int) -> int:
    """The limit after so many looks that show the same."""
    for _ in range(times):
        pressure.observe(sample, in_flight)
    return pressure.in_flight_limit


def feeling(memory_share: float = 0.0, files_share: float = 0.0) -> Pressure:
    """A process that holds these shares."""
    found = Pressure(256)
    found.observe(Sample(memory_share=memory_share, files_share=files_share), 10)
    return found


def test_before_the_first_look_there_is_room_for_all():
    pressure = Pressure(256)

    assert pressure.in_flight_limit == 256
    assert rooms(pressure) == [128, 230, 256]
    assert not pressure.refuses(1 << 30)
    assert not pressure.must_expel


@pytest.mark.parametrize(
    ("lag_s", "limit"),
    [
        (0.2, 204),
        (0.25, 204),
        (0.32, 160),
        (0.4, 128),
        (1e9, 128),
        (0.1999, 243),
        (0.05, 243),
        (0.0499, 256),
    ],
)
def test_a_loop_that_goes_on_running_a_fifth_of_a_second_late_lowers_the_limit(lag_s, limit):
    pressure = Pressure(256)

    look(pressure, 2, Sample(lag_s=lag_s), 256)

    assert pressure.in_flight_limit == limit


@pytest.mark.parametrize(("in_flight", "limit"), [(230, 243), (229, 256)])
def test_an_unpunctual_loop_lowers_the_limit_only_where_that_is_what_holds_requests_back(
    in_flight, limit
):
    pressure = Pressure(256)

    look(pressure, 2, Sample(lag_s=0.1), in_flight)

    assert pressure.in_flight_limit == limit


@pytest.mark.parametrize("between", [PUNCTUAL, Sample(lag_s=0.0499)])
def test_one_late_look_alone_lowers_nothing(between):
    pressure = Pressure(256)

    for sample in [LATE, between] * 10:
        look(pressure, 1, sample, 256)

    assert pressure.in_flight_limit == 256


@pytest.mark.parametrize(
    ("lags_s", "is_overwhelmed"),
    [
        ([0.2], False),
        ([0.0499, 0.2], False),
        ([0.0499, 9.0], False),
        ([0.05, 0.1999], False),
        ([0.05, 0.2], True),
        ([0.05, 0.2, 0.2], True),
        ([0.05, 0.2, 0.1], True),
        ([0.05, 0.2, 0.1, 0.1], True),
        ([0.05, 0.2, 0.0999], False),
        ([0.05, 0.2, 0.0999, 0.1999], False),
        ([0.05, 0.2, 0.0999, 0.2], True),
        ([0.05, 0.2, 0.0, 0.2], False),
    ],
)
def test_a_tick_that_is_late_after_one_that_was_not_punctual_is_too_much(lags_s, is_overwhelmed):
    pressure = Pressure(256)

    for lag_s in lags_s:
        pressure.feel(lag_s)

    assert pressure.is_overwhelmed is is_overwhelmed


def test_each_further_late_look_lowers_it_again():
    pressure = Pressure(1_000)

    limits = [look(pressure, 1, LATE, 1_000) for _ in range(5)]

    assert limits == [1_000, 800, 640, 512, 409]


@pytest.mark.parametrize(("lag_s", "limit"), [(0.0499, 89), (0.05, 76), (0.1999, 76), (0.2, 64)])
def test_only_a_punctual_loop_raises_it_again(lag_s, limit):
    pressure = Pressure(256)
    look(pressure, 2, LATE, 100)

    found = look(pressure, 1, Sample(lag_s=lag_s), 100)

    assert found == limit


def test_it_is_lowered_from_what_really_is_in_flight():
    pressure = Pressure(1_000)

    limit = look(pressure, 2, LATE, 100)

    assert limit == 80


@pytest.mark.parametrize(("greatest", "floor"), [(256, 32), (33, 32), (32, 32), (5, 5), (1, 1)])
def test_it_is_never_lowered_below_its_floor(greatest, floor):
    pressure = Pressure(greatest)

    limit = look(pressure, 100, LATE, 0)

    assert limit == floor


def test_it_grows_back_to_its_greatest_and_no_further():
    pressure = Pressure(256)
    look(pressure, 2, LATE, 0)

    limits = [look(pressure, 5, PUNCTUAL, 0) for _ in range(7)]

    assert limits == [56, 93, 153, 249, 256, 256, 256]


def test_those_of_a_lower_criticality_find_the_house_full_earlier():
    pressure = Pressure(256)

    look(pressure, 2, LATE, 125)

    assert rooms(pressure) == [50, 90, 100]


def test_everybody_has_room_for_one():
    assert rooms(Pressure(1)) == [1, 1, 1]


@pytest.mark.parametrize(
    ("memory_share", "size_bytes", "refuses"),
    [
        (0.799, 1 << 40, False),
        (0.80, BIG_REQUEST_BYTES, True),
        (0.80, BIG_REQUEST_BYTES - 1, False),
        (0.899, 0, False),
        (0.90, 0, True),
        (5.0, 0, True),
    ],
)
def test_short_memory_refuses_the_big_first_and_then_all(memory_share, size_bytes, refuses):
    assert feeling(memory_share=memory_share).refuses(size_bytes) is refuses


@pytest.mark.parametrize(("files_share", "refuses"), [(0.799, False), (0.80, True)])
def test_short_files_refuse_all(files_share, refuses):
    assert feeling(files_share=files_share).refuses(0) is refuses


@pytest.mark.parametrize(("memory_share", "must_expel"), [(0.949, False), (0.95, True)])
def test_at_the_very_end_of_memory_one_has_to_go(memory_share, must_expel):
    assert feeling(memory_share=memory_share).must_expel is must_expel


def test_only_the_last_look_counts_for_memory_and_files():
    pressure = feeling(memory_share=0.99, files_share=0.99)

    pressure.observe(PUNCTUAL, 10)

    assert not pressure.refuses(1 << 40)
    assert not pressure.must_expel


class PressureWalk:
    """The model keeps all looks, and takes every step of the limit anew, in exact fractions."""

    def __init__(self, random: Random) -> None:
        self.greatest = random.choice([1, 2, 31, 32, 33, 100, 256, 1_000])
        self.weather = random.choice([(8, 1, 1), (1, 1, 1), (1, 1, 8)])
        self.pressure = Pressure(self.greatest)
        self.looks: list[tuple[float, int]] = []

    @property
    def limit(self) -> int:
        found, before_s = self.greatest, 0.0
        for lag_s, in_flight in self.looks:
            if min(lag_s, before_s) >= 0.2:
                step = min(
                    Fraction(4, 5), max(Fraction(1, 2), Fraction("0.2") / Fraction(str(lag_s)))
                )
                found = max(int(step * min(found, in_flight)), min(32, self.greatest))
            elif min(lag_s, before_s) >= 0.05 and in_flight >= max(1, found * 9 // 10):
                found = max(int(Fraction(19, 20) * found), min(32, self.greatest))
            elif lag_s < 0.05:
                found = min(int(Fraction(11, 10) * found) + 1, self.greatest)
            before_s = lag_s
        return found

    def choose(self, random: Random) -> Step:
        kinds = [(0.0, 0.01, 0.0499), (0.05, 0.1, 0.1999), (0.2, 0.2001, 0.32, 0.5, 3.0)]
        lag_s = random.choice(random.choices(kinds, self.weather)[0])
        in_flight = random.randint(0, self.greatest + 5)
        shares = [0.0, 0.5, 0.7999, 0.8, 0.8999, 0.9, 0.9499, 0.95, 1.0]
        return (lag_s, in_flight, random.choice(shares), random.choice([0.0, 0.7999, 0.8, 1.0]))

    def take(self, step: Step) -> None:
        lag_s, in_flight, memory_share, files_share = step
        before = self.pressure.in_flight_limit
        self.pressure.observe(Sample(lag_s, memory_share, files_share), in_flight)
        self.looks.append((lag_s, in_flight))
        limit = self.limit
        assert self.pressure.in_flight_limit == limit
        assert limit <= before or lag_s < 0.05
        batch, standard, interactive = rooms(self.pressure)
        assert 1 <= batch <= standard <= interactive == limit <= self.greatest
        assert batch == max(1, limit // 2)
        assert standard == max(1, limit * 9 // 10)
        full = memory_share >= 0.9 or files_share >= 0.8
        assert self.pressure.refuses(256 * 1024 - 1) is full
        assert self.pressure.refuses(256 * 1024) is (full or memory_share >= 0.8)
        assert self.pressure.must_expel is (memory_share >= 0.95)


@lengths
def test_it_does_what_the_whole_history_says(steps):
    go(PressureWalk, steps, lengths=(10, 40, 80))
