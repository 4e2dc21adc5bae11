"""The picture: what stands where, that it can be read in several ways, and that names do no harm."""

import re
from itertools import pairwise
from typing import Final
from xml.etree import ElementTree as ET

import pytest

from tests.unit.scoring.panel_rows import row
from trunkline_server.config import ConfigError
from trunkline_server.scoring.panel_table import cost
from trunkline_server.scoring.panel_trial import MAX_ROWS, Row
from trunkline_server.scoring.plot import (
    BOTTOM,
    CONVERTER,
    LEFT,
    MAX_TICKS,
    RADIUS,
    RIGHT,
    TOP,
    store_plot,
    svg,
    ticks,
)

SVG: Final = "{http://www.w3.org/2000/svg}"
HALF: Final = [True, False] * 20
MOST: Final = [True] * 36 + [False] * 4


def drawn(*rows: Row) -> ET.Element:
    """The picture, as whoever shows it reads it."""
    return ET.fromstring(svg(rows, 40))


def marks(picture: ET.Element) -> list[tuple[str, float, float]]:
    """Class and middle of each mark in the picture, in their order."""
    found = []
    for group in picture.findall(f"{SVG}g"):
        number = group.find(f"{SVG}text")
        assert number is not None
        if group.find(f"{SVG}title") is not None:
            found.append(
                (group.attrib["class"], float(number.attrib["x"]), float(number.attrib["y"]) - 4)
            )
    return found


def test_the_dearer_stands_further_right_and_the_better_further_up():
    picture = drawn(
        row("panel", MOST, is_panel=True, cost_nanos=40_000),
        row("dear", HALF, cost_nanos=30_000),
        row("cheap", HALF, cost_nanos=10_000),
    )

    (panel, *_), (dear, x, y), (cheap, less, same) = marks(picture)
    assert (panel, dear, cheap) == ("panel", "model", "model")
    # From nothing on, where none costs ten times as much as another.
    assert x - LEFT == pytest.approx(3 * (less - LEFT), abs=0.2)
    assert y == same
    assert marks(picture)[0][1] > x
    assert marks(picture)[0][2] < y
    assert "US dollars for an answer" in texts(picture)
    assert "cost not known" not in texts(picture)


def test_costs_that_lie_far_apart_stand_on_a_logarithmic_axis():
    rows = [
        row(name, HALF, cost_nanos=nanos)
        for name, nanos in zip("abc", (1e3, 1e5, 1e7), strict=True)
    ]

    xs = [x for _, x, _ in marks(drawn(*rows))]

    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert "US dollars for an answer, logarithmic" in texts(drawn(*rows))


def test_what_has_no_known_cost_stands_apart_and_is_not_taken_for_free():
    picture = drawn(row("free", HALF, cost_nanos=0), row("unknown", HALF), row("too", HALF))

    (_, free, _), (_, unknown, _), (_, too, _) = marks(picture)
    assert free == LEFT
    assert RIGHT - 110 < unknown < too < RIGHT
    assert texts(picture).count("cost not known") == 3  # Of the band, and of two rows.


def test_marks_do_not_hide_each_other():
    found = marks(drawn(*[row(f"m{n}", HALF, cost_nanos=1_000) for n in range(4)]))

    xs = [x for _, x, _ in found]
    assert all(b - a > 2 * RADIUS for a, b in pairwise(xs))


def test_many_rows_stay_on_the_paper():
    rows = [row(f"m{n}", HALF, cost_nanos=None if n % 2 else 5) for n in range(MAX_ROWS)]

    for _, x, y in marks(drawn(*rows)):
        assert LEFT <= x <= RIGHT + RADIUS
        assert TOP <= y <= BOTTOM


def test_it_can_be_heard_and_be_read_in_the_dark():
    picture = drawn(row("p", MOST, is_panel=True, cost_nanos=2_500_000, is_estimated=True))

    assert picture.attrib["role"] == "img"
    named = [picture.find(f"{SVG}{tag}") for tag in ("title", "desc")]
    assert [tag.attrib["id"] for tag in named if tag is not None] == (
        picture.attrib["aria-labelledby"].split()
    )
    rows = "1: p (panel), 90.0% right (76.9% to 96.0%), ~0.00250 US dollars."
    assert [tag.text for tag in named if tag is not None] == [
        "Accuracy and cost of an answer, 40 questions",
        f"Further up is more often right, further left is cheaper. {rows}",
    ]
    style = picture.findtext(f"{SVG}style") or ""
    light, _, dark = style.partition("@media (prefers-color-scheme: dark)")
    for name in (
        "text",
        ".soft",
        ".number",
        ".paper",
        ".grid",
        ".axis",
        ".band",
        ".model",
        ".panel",
    ):
        colours = [
            set(re.findall(rf"^{re.escape(name)} .*?(#\w{{6}})", s, re.MULTILINE))
            for s in (light, dark)
        ]
        assert colours[0]
        assert colours[1]
        assert colours[0].isdisjoint(colours[1])


def test_names_are_text_whatever_they_say():
    picture = drawn(row("<script>&\x1b[2J" + "x" * 100, HALF))

    assert picture.findall(f".//{SVG}script") == []
    shown = next(text for text in texts(picture) if text.startswith("<script>"))
    assert shown == "<script>&\ufffd[2J" + "x" * 28 + "..."


@pytest.mark.parametrize(
    ("low", "high", "is_logarithmic", "expected"),
    [
        (0.0, 0.0092, False, [0.0, 0.002, 0.004, 0.006, 0.008]),
        (0.0, 1.15, False, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.0007, 0.015, True, [0.001, 0.002, 0.005, 0.01]),
        (1e-6, 1.5, True, [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0]),
    ],
)
def test_ticks_are_round_and_few(low, high, is_logarithmic, expected):
    found = ticks(low, high, is_logarithmic=is_logarithmic)

    assert found == pytest.approx(expected)
    assert len(found) <= MAX_TICKS


@pytest.mark.parametrize("decade", range(-9, 3))
@pytest.mark.parametrize("factor", [1, 1.9, 2.3, 4.9, 9.7])
def test_there_are_ticks_for_every_cost(decade, factor):
    high = factor * 10.0**decade

    assert 3 <= len(ticks(0.0, high, is_logarithmic=False)) <= MAX_TICKS
    assert 3 <= len(ticks(high / 15, high, is_logarithmic=True)) <= MAX_TICKS
    assert 3 <= len(ticks(high / 1e20, high, is_logarithmic=True)) <= MAX_TICKS


@pytest.mark.parametrize(
    ("nanos", "words"),
    [
        (None, "unknown"),
        (0, "0.00"),
        (13, "0.0000000130"),
        (123_456, "0.000123"),
        (2_500_000_000, "2.50"),
        (123_456_000_000, "123.46"),
    ],
)
def test_costs_have_three_digits_that_say_something(nanos, words):
    assert cost(row("m", HALF, cost_nanos=nanos)) == words


def test_a_converter_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    program = tmp_path / CONVERTER
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "plot.png").write_text("earlier")

    with pytest.raises(ConfigError, match="--plot: rsvg-convert failed: CalledProcessError"):
        store_plot(tmp_path / "plot.png", [row("m", HALF)], 40)

    assert (tmp_path / "plot.png").read_text() == "earlier"


def texts(picture: ET.Element) -> list[str]:
    """Everything that is written."""
    return [text.text or "" for text in picture.iter(f"{SVG}text")]
