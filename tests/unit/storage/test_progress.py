"""The file that outlives its process."""

from pathlib import Path

import pytest

from trunkline_server.core.progress import Progressed
from trunkline_server.storage.progress import NEW_SUFFIX, Progress, left_behind, read

PRICES = (1_000, 2_000, None)


@pytest.fixture
def progress(tmp_path):
    found = Progress(tmp_path, "this", 4)
    found.open()
    yield found
    found.close(keeps=False)


def kept(folder: Path) -> dict[str, Progressed]:
    """What another process would read now."""
    return read(folder / "this.progress")


def test_a_request_that_nobody_answers_yet_has_used_nothing(tmp_path, progress):
    progress.take("cmpl_1")

    assert kept(tmp_path) == {"cmpl_1": Progressed()}


@pytest.mark.parametrize(
    "earlier",
    [(0, 0, 0), (1, 2, 3), (120, 34, None), (2**31 - 1, 2**31 - 1, 10**18)],
    ids=["none", "some", "of unknown price", "as many as there can be"],
)
def test_what_earlier_turns_used_and_cost_is_kept(tmp_path, progress, earlier):
    slot = progress.take("cmpl_1")

    progress.answers(slot, "cmpl_1", "a", "m", PRICES, earlier)

    assert kept(tmp_path) == {
        "cmpl_1": Progressed(
            "a",
            "m",
            input_price=1_000,
            output_price=2_000,
            earlier_input_tokens=earlier[0],
            earlier_output_tokens=earlier[1],
            earlier_nanos=earlier[2],
        )
    }


def test_counting_leaves_what_earlier_turns_used(tmp_path, progress):
    slot = progress.take("cmpl_1")
    progress.answers(slot, "cmpl_1", "a", "m", PRICES, (120, 34, 5_000))

    progress.count(slot, 70, 0, 400)
    progress.count(slot, 71, 9, 0)

    assert kept(tmp_path) == {
        "cmpl_1": Progressed(
            "a",
            "m",
            input_price=1_000,
            output_price=2_000,
            input_tokens=71,
            output_tokens=9,
            output_chars=0,
            earlier_input_tokens=120,
            earlier_output_tokens=34,
            earlier_nanos=5_000,
        )
    }


def test_the_next_turn_begins_at_nothing_and_has_the_last_one_among_the_earlier(tmp_path, progress):
    slot = progress.take("cmpl_1")
    progress.answers(slot, "cmpl_1", "a", "m", PRICES, (0, 0, 0))
    progress.count(slot, 0, 0, 400)

    progress.answers(slot, "cmpl_1", "b", "n", (None, None, None), (9, 100, 209_000))

    assert kept(tmp_path) == {
        "cmpl_1": Progressed(
            "b",
            "n",
            earlier_input_tokens=9,
            earlier_output_tokens=100,
            earlier_nanos=209_000,
        )
    }


def test_a_slot_that_is_taken_again_knows_nothing_of_who_had_it(tmp_path, progress):
    slot = progress.take("cmpl_1")
    progress.answers(slot, "cmpl_1", "a", "m", PRICES, (120, 34, None))
    progress.give_back(slot)

    assert kept(tmp_path) == {}
    assert progress.take("cmpl_2") == slot
    assert kept(tmp_path) == {"cmpl_2": Progressed()}


def test_slots_do_not_touch_each_other(tmp_path, progress):
    slots = {n: progress.take(f"cmpl_{n}") for n in range(4)}

    for n, slot in slots.items():
        progress.answers(slot, f"cmpl_{n}", "a", f"m{n}", PRICES, (n, 2 * n, 3 * n))
        progress.count(slot, 4 * n, 5 * n, 6 * n)

    found = kept(tmp_path)
    assert {
        id_: (each.model, each.earlier_input_tokens, each.earlier_nanos, each.output_chars)
        for id_, each in found.items()
    } == {f"cmpl_{n}": (f"m{n}", n, 3 * n, 6 * n) for n in range(4)}


def test_without_a_slot_nothing_is_kept_and_nothing_breaks(tmp_path, progress):
    for n in range(4):
        progress.take(f"cmpl_{n}")

    slot = progress.take("cmpl_5")
    progress.answers(slot, "cmpl_5", "a", "m", PRICES, (1, 2, 3))
    progress.count(slot, 1, 2, 3)
    progress.give_back(slot)

    assert slot == -1
    assert sorted(kept(tmp_path)) == ["cmpl_0", "cmpl_1", "cmpl_2", "cmpl_3"]


def test_a_file_belongs_to_its_process_until_that_is_gone(tmp_path):
    progress = Progress(tmp_path, "this", 1)
    progress.open()
    during = left_behind(tmp_path)
    progress.close(keeps=True)

    assert during == []
    assert left_behind(tmp_path) == [tmp_path / "this.progress"]
    assert not list(tmp_path.glob(f"*{NEW_SUFFIX}"))
