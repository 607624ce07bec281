"""What the README says about reading the model."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
README = Path(__file__).parents[1] / "README.md"


def test_the_files_to_read_are_there_and_short():
    text = README.read_text(encoding="utf8").partition("Read it in this order: ")[2].partition("\n\n")[0]
    names = re.findall(r"`(\w+\.py)`", text)
    assert names == ["recipes.py", "roi_head.py", "semantic.py", "box_stage.py", "mask_branch.py"]
    folders = ["plugins/htc/src/det_plugin_htc"] * 3 + ["plugins/rcnn/src/det_plugin_rcnn"] * 2
    files = [ROOT / folder / name for folder, name in zip(folders, names, strict=True)]
    assert sum(len(f.read_text(encoding="utf8").splitlines()) for f in files) < 1000
