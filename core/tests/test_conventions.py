"""The conventions of sources of weights: what differs, and the same configuration under them."""

from __future__ import annotations

import pytest

from det_core.conventions import ANY, Difference, differences, under
from det_core.settings import configclass, setting


@configclass
class Part:
    corner: str = setting("what a setting means", default="edge", conventions={"older": "pixel", "free": ANY})
    plain: int = setting("no project differs in it", default=1)


@configclass
class Whole:
    part: Part = setting("a part", default=Part())
    parts: tuple[Part, ...] = setting("several", default=(Part(), Part(corner="pixel")))
    size: int | None = setting("of all", default=3, conventions={"older": None})


def test_differences_name_the_path_the_value_and_what_is_expected() -> None:
    assert differences(Whole(), "today") == [Difference("parts[1].corner", "pixel", "edge")]
    found = [str(difference) for difference in differences(Whole(), "older")]
    assert found == [
        "part.corner: found 'edge', expected 'pixel'",
        "parts[0].corner: found 'edge', expected 'pixel'",
        "size: found 3, expected None",
    ]


def test_a_setting_in_which_a_source_is_free_never_differs() -> None:
    assert differences(Part(corner="anything"), "free") == []
    assert under(Part(corner="anything"), "free") == Part(corner="anything")


@pytest.mark.parametrize("source", ["older", "today"])
def test_under_a_source_nothing_differs(source: str) -> None:
    made = under(Whole(part=Part(plain=7)), source)
    assert differences(made, source) == []
    assert made.part.plain == 7


def test_from_one_source_to_another_and_back() -> None:
    modern = under(Whole(), "today")
    assert under(under(modern, "older"), "today") == modern
