"""What a process takes on when memory or files run short, and whom it has room for."""

import pytest

from trunkline_server.core.pressure import BIG_REQUEST_BYTES, Criticality, Pressure, Sample


def rooms(pressure: Pressure) -> list[int]:
    """Those of batch, standard and interactive."""
    return [pressure.room(criticality) for criticality in Criticality]


def feeling(memory_share: float = 0.0, files_share: float = 0.0) -> Pressure:
    """A process that holds these shares."""
    found = Pressure(256)
    found.observe(Sample(memory_share=memory_share, files_share=files_share))
    return found


def test_before_the_first_look_there_is_room_for_all():
    pressure = Pressure(256)

    assert rooms(pressure) == [128, 230, 256]
    assert not pressure.refuses(1 << 30)
    assert not pressure.must_expel


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


def test_only_the_last_look_counts():
    pressure = feeling(memory_share=0.99, files_share=0.99)

    pressure.observe(Sample())

    assert not pressure.refuses(1 << 40)
    assert not pressure.must_expel
