"""Names of images that are not where the annotations say."""

from __future__ import annotations

from pathlib import Path

import pytest

from det_core.data.coco_sections import Sections
from det_core.data.image_names import with_found_names
from det_core.structures import Classes


def place(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root: Path, folder: str, *names: str) -> tuple[list[str], tuple[str, ...]]:
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    sections = Sections(path=root / "a.json", images=images, annotations=[], classes=Classes(names=(), ids=()))
    made = with_found_names(sections, root / folder, root)
    return [record["file_name"] for record in made.images], made.notes


@pytest.mark.parametrize(
    ("files", "names", "expected", "how"),
    [
        (["sub/a.png", "sub/b.png"], ["sub\\a.png", "sub\\b.png"], ["sub/a.png", "sub/b.png"], "with slashes for"),
        (["a.png", "sub/b.png"], ["images/a.png", "images/sub/b.png"], ["a.png", "sub/b.png"], "relative to the ann"),
        (["a.png"], ["images\\a.png"], ["a.png"], "relative to the annotation file"),
        (["1f-a.png"], ["images\\1/1f-a.png"], ["1f-a.png"], "without their folders"),
        (["x/y/a.png", "z/b.png"], ["a.png", "b.png"], ["x/y/a.png", "z/b.png"], "without their folders"),
        (["cb0618f6-a.png"], ["..\\..\\media\\upload\\4\\cb0618f6-a.png"], ["cb0618f6-a.png"], "without their folders"),
        (["a.png"], ["/data/upload/3/cb0618f6-a.png"], ["a.png"], "without their folders and upload hashes"),
    ],
)
def test_ways(tmp_path: Path, files: list[str], names: list[str], expected: list[str], how: str) -> None:
    place(tmp_path / "images", *files)
    changed, (note,) = found(tmp_path, "images", *names)
    assert changed == expected
    assert note.startswith(f"names of images are taken {how}")
    count = f"({len(names)} of {len(names)} images; {names[0]!r} is {expected[0]!r})"
    assert note.endswith(count)


def test_names_that_are_right_are_kept_and_so_are_those_of_missing_images(tmp_path: Path) -> None:
    place(tmp_path / "images", "a.png", "sub/b.png")
    assert found(tmp_path, "images", "a.png", "b.png") == (["a.png", "b.png"], ())
    assert found(tmp_path, "images", "c.png") == (["c.png"], ())
    assert found(tmp_path, "images") == ([], ())


def test_of_two_images_of_one_name_neither_is_meant(tmp_path: Path) -> None:
    place(tmp_path / "images", "x/a.png", "y/a.png", "y/b.png")
    changed, (note,) = found(tmp_path, "images", "a.png", "b.png")
    assert changed == ["a.png", "y/b.png"]
    assert "(1 of 2 images; 'b.png' is 'y/b.png')" in note


def test_records_that_the_checks_refuse_are_passed_on(tmp_path: Path) -> None:
    place(tmp_path / "images", "x/a.png")
    images = [7, {"id": 1}, {"id": 2, "file_name": 3}, {"id": 3, "file_name": "a.png"}]
    sections = Sections(path=tmp_path / "a.json", images=images, annotations=[], classes=Classes(names=(), ids=()))
    assert with_found_names(sections, tmp_path / "images", tmp_path).images == [
        *images[:3],
        {"id": 3, "file_name": "x/a.png"},
    ]
