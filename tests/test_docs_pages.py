"""Every block of the pages under docs/ is run, or its mark says why not.

A mark is a comment on the line before a block, `<!-- test: MARK -->`:

    needs a GPU | needs a cluster | needs a network    the names of its commands and options are checked
    parsed only, REASON                                the same
    run by FILE                                        another test runs it
    file NAME.py                                       it is written to that file, and loaded as a plugin file
    needs NAME.py                                      it is run with that plugin file

The commands of a page run in order, in this process, in a copy of one workplace with what the pages name: a small run
`runs/mine`, `my_data`, `photos` and so on. `shortened` changes what would take long, and nothing else:

- training stops after two steps on the CPU, at the sizes of `tiny_settings`;
- a recipe of paper size is loaded, and the demo recipe of its model is trained instead;
- `my.yaml` extends a demo recipe.

`pip install` is not run: what it names must be a package of this repository, an extra of one, or a known distribution.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from detectron2_configs import PYRAMID
from doc_blocks import ENDS, ROOT, Block, blocks, name_of, problem, shell_lines
from mmdet_configs import FASTER_1
from tiny_settings import DATA, DETECTOR, MASKS, NO_DROP

from det_core.cli.main import run
from det_core.config.yaml_text import parse_yaml
from det_core.load import load_recipe
from det_core.plugin_file import load_plugin_file
from det_core.plugins import installed_plugins
from det_core.testing.isolated_plugins import isolated_manager

PAGES = sorted((ROOT / "docs").glob("**/*.md"))
LANGUAGES = ("sh", "bash", "python", "yaml")
NOT_RUN = re.compile(r"needs a (GPU|cluster|network)|parsed only, \S.*")
ELSEWHERE = re.compile(r"run by (\S+\.py)")
FILE, WITH_FILE = re.compile(r"file (\w+\.py)"), re.compile(r"needs (\w+\.py)")
DISTRIBUTIONS = {"fiftyone", "supervision", "av"}  # that pages install besides the packages of this repository


def is_run_here(block: Block) -> bool:
    return not NOT_RUN.fullmatch(block.mark) and not ELSEWHERE.fullmatch(block.mark)


def here(page: Path, *languages: str) -> list[Block]:
    return [block for block in blocks(page, *languages) if is_run_here(block)]


# Marks


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_mark_is_one_of_those_above(page: Path) -> None:
    for block in blocks(page, *LANGUAGES, "text", "toml"):
        known = (NOT_RUN, ELSEWHERE, FILE, WITH_FILE)
        assert not block.mark or any(m.fullmatch(block.mark) for m in known), f"{block.place}: {block.mark}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_mark_is_before_a_block(page: Path) -> None:
    marked = [b for b in blocks(page, *LANGUAGES) if b.mark]
    assert page.read_text(encoding="utf8").count("<!-- test: ") == len(marked)


@pytest.mark.parametrize(
    "block", [b for p in PAGES for b in blocks(p, *LANGUAGES) if ELSEWHERE.fullmatch(b.mark)], ids=name_of
)
def test_a_block_that_another_test_runs_is_known_there(block: Block) -> None:
    """The test names the page, or the command and the options of the block."""
    file = ROOT / block.mark.removeprefix("run by ")
    text = file.read_text(encoding="utf8")
    if block.page.name in text:
        return
    assert block.language == "sh", f"{file} does not name {block.page.name}"
    options = {w for words in shell_lines(block.text) for w in words if w.startswith("--") and w != "--data"}
    assert all(f'"{option}"' in text for option in options), f"{file} uses not all of {options}"


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "sh", "bash")], ids=name_of)
def test_recipes_of_commands_that_are_not_run_exist(page: Path) -> None:
    for block in blocks(page, "sh", "bash"):
        for words in shell_lines(block.text):
            for name in (w for before, w in pairwise(words) if before == "--recipe"):
                assert name.isupper() or name == "RECIPE]" or load_recipe(name), f"{block.place}: {name}"


# The workplace


@pytest.fixture(scope="module")
def workplace(labelled: Path, make_tiny_checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the commands of the pages name."""
    place = tmp_path_factory.mktemp("workplace")
    for name in ("my_data", "other_data", "other"):
        shutil.copytree(labelled, place / name)
    _coco(labelled, place)
    for folder in ("photos", "more/old"):
        (place / folder).mkdir(parents=True)
        for image in sorted((labelled / "images").iterdir())[:2]:
            shutil.copy(image, place / folder / image.name)
    _as_jpeg(place / "more" / "old")
    (place / "names.txt").write_text("photos/1.png\n")
    _video(place / "clips" / "cells.mp4", labelled)
    (place / "my.yaml").write_text("extends: faster-rcnn/r18-fpn-demo\n")
    (place / "FILE.py").write_text(FASTER_1)
    (place / "FILE.yaml").write_text(PYRAMID)
    _plugin_of_hooks(place / "det_plugin_my_plugin")
    with contextlib.chdir(place):
        words = ["train", "--config", "my.yaml", "--data", "my_data", "--work-dir", "runs/mine"]
        assert quiet(shortened(words)) == 0
    for name in ("before", "after", "first"):
        shutil.copytree(place / "runs" / "mine", place / "runs" / name)
    sample = "core/src/det_core/data/sample/images"
    shutil.copytree(ROOT / sample, place / sample)
    shutil.copytree(make_tiny_checkpoint("rpn/r18-fpn-demo"), place / "runs" / "rpn")
    truth = json.loads((labelled / "instances_val.json").read_text())["annotations"]
    found = [{k: t[k] for k in ("image_id", "category_id", "bbox")} | {"score": 0.9} for t in truth[::2]]
    (place / "found.json").write_text(json.dumps(found))
    return place


def _coco(labelled: Path, place: Path) -> None:
    """The same images in COCO's folders and as a lone file beside its images; proposals of mmdet for them."""
    images = sorted((labelled / "images").iterdir())
    for root in ("coco", "DATA"):
        (place / root / "annotations").mkdir(parents=True)
        for split in ("train", "val"):
            names = [f"{split}.json"] if root == "DATA" else [f"instances_{split}2017.json"]
            for name in names:
                shutil.copy(labelled / f"instances_{split}.json", place / root / "annotations" / name)
            shutil.copytree(labelled / "images", place / root / (split if root == "DATA" else f"{split}2017"))
    shutil.copy(labelled / "instances_val.json", place / "instances_val.json")
    shutil.copytree(labelled / "images", place / "val2017")
    boxes = [np.array([[10, 20, 60, 70, 0.9], [5, 5, 30, 40, 0.8]], np.float32) for _ in images]
    (place / "rpn_r50_fpn_1x_train2017.pkl").write_bytes(pickle.dumps(boxes))


def _as_jpeg(folder: Path) -> None:
    from PIL import Image

    for file in sorted(folder.iterdir()):
        Image.open(file).save(file.with_suffix(".jpg"))
        file.unlink()


def _video(file: Path, labelled: Path) -> None:
    """A clip of ten frames."""
    import av
    from PIL import Image

    file.parent.mkdir()
    picture = np.asarray(Image.open(labelled / "images" / "1.png").convert("RGB"))
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "yuv420p"
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode(None))


def _plugin_of_hooks(package: Path) -> None:
    """The package that docs/hooks.md speaks of without showing it."""
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "config.py").write_text("from det_plugin_fpn import FPNConfig as MyNeckConfig\n")


@pytest.fixture
def here_copied(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the workplace as the current folder, with a plugin manager and modules of its own."""
    place = tmp_path / "place"
    shutil.copytree(workplace, place)
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(str(place))
    modules, path, threads = set(sys.modules), list(sys.path), torch.get_num_threads()
    torch.set_num_threads(1)
    with isolated_manager(*installed_plugins()):
        yield place
    torch.set_num_threads(threads)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(place)):
            del sys.modules[name]


# Commands


def shortened(words: list[str]) -> list[str]:
    """A call of det-core that takes seconds; the docstring of this module says what is changed."""
    if words[0] != "train":
        return words
    words = list(words)
    masks = "--plugin" in words  # whose demo has masks
    if "--recipe" in words:
        at = words.index("--recipe") + 1
        model = load_recipe(words[at]).name.partition("/")[0]
        words[at] = f"{model}/r18-fpn-demo"
        masks = model.startswith("mask")
    changes = [*DATA, *DETECTOR, NO_DROP, *([MASKS] if masks else [])]
    own = {w.partition("=")[0] for before, w in pairwise(words) if before == "--set"}
    sets = [w for change in changes if change.partition("=")[0] not in own for w in ("--set", change)]
    at = words.index("--set") if "--set" in words else len(words)
    if "detector.roi_head.box_head" in own:  # whose settings are those of another type
        sets = [w for w in sets if "box_head" not in w]
        sets = [w for before, w in zip(["", *sets], sets) if w != "--set" or before != "--set"]
        sets = sets[:-1] if sets[-1] == "--set" else sets
    return [*words[:at], *sets, *words[at:], "--max-steps", "2", "--device", "cpu"]


def quiet(words: list[str]) -> int:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
        status = run(words)
    if status:
        sys.stderr.write(err.getvalue())
    return status


def without_run(words: list[str], place: Path) -> None:
    """Remove the results of an earlier page or block that a command would refuse to write over."""
    for option in ("--work-dir", "--out", "-o"):
        if option in words:
            target = place / words[words.index(option) + 1]
            if target.is_dir():
                shutil.rmtree(target)
            elif target.is_file():
                target.unlink()


def run_line(words: list[str], place: Path) -> None:
    """Run a line of a shell block, or check what it names."""
    end = next((i for i, w in enumerate(words) if w in ENDS), len(words))
    words = words[:end]
    if words[0] == "det-core":
        assert not problem(words[1:]), problem(words[1:])
        call = shortened(words[1:])
        without_run(call, place)
        assert quiet(call) == 0, call
    elif words[:2] == ["pip", "install"]:
        check_install(words[2:])
    elif words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf8"), re.MULTILINE)
        assert set(words[1:]) <= set(targets), words
    else:
        assert words[0] in ("python3", "git", "cd", ".", "deactivate"), f"nothing here runs {words[0]}; mark the block"


def check_install(names: list[str]) -> None:
    """Packages of this repository and their extras, or distributions that are known."""
    for name in (n for n in names if not n.startswith("-")):
        if not name.startswith("./"):
            assert name in DISTRIBUTIONS, name
            continue
        folder, _, extras = name.rstrip("]").partition("[")
        project = tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf8"))["project"]
        assert set(filter(None, extras.split(","))) <= project.get("optional-dependencies", {}).keys(), name


@pytest.mark.parametrize("page", [p for p in PAGES if here(p, "sh", "bash")], ids=name_of)
def test_commands_of_a_page_run(page: Path, here_copied: Path) -> None:
    for block in blocks(page, *LANGUAGES):
        if name := FILE.fullmatch(block.mark):
            (here_copied / name[1]).write_text(block.text)
        if block.language in ("sh", "bash") and is_run_here(block):
            for words in shell_lines(block.text):
                run_line(words, here_copied)


def test_two_processes_train(here_copied: Path) -> None:
    """The last block of docs/running/several_gpus.md."""
    (words,) = shell_lines(blocks(ROOT / "docs" / "running" / "several_gpus.md", "sh")[-1].text)
    at = words.index("det_core") + 1
    assert words[:at] == ["torchrun", "--nproc-per-node", "2", "-m", "det_core"]
    sets = [w for change in (*DATA, *DETECTOR, MASKS, NO_DROP) for w in ("--set", change)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", *words[1:], *sets]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (here_copied / "runs" / "two" / "checkpoints").is_dir()


# YAML and Python


@pytest.mark.parametrize("block", [b for p in PAGES for b in here(p, "yaml")], ids=name_of)
def test_yaml_loads(block: Block, here_copied: Path) -> None:
    if name := WITH_FILE.fullmatch(block.mark):
        (source,) = [b for b in blocks(block.page, "python") if b.mark == f"file {name[1]}"]
        (here_copied / name[1]).write_text(source.text)
        load_plugin_file(name[1])
    plain = parse_yaml(block.text, block.place)
    assert isinstance(plain, dict)
    if {"extends", "detector"} & plain.keys():
        (here_copied / "mine.yaml").write_text(block.text)
        assert load_recipe("mine.yaml").name == "mine"


@pytest.mark.parametrize("page", [p for p in PAGES if here(p, "python")], ids=name_of)
def test_python_of_a_page_runs(page: Path, here_copied: Path) -> None:
    """In order, in one namespace; a file is written and loaded as a plugin file."""
    namespace: dict[str, object] = {"__name__": "page"}
    for block in here(page, "python"):
        if name := FILE.fullmatch(block.mark):
            (here_copied / name[1]).write_text(block.text)
            load_plugin_file(name[1])
            continue
        code = compile("\n" * block.line + block.text, str(page), "exec", dont_inherit=True)
        with contextlib.redirect_stdout(io.StringIO()):
            exec(code, namespace)


def test_shortening_changes_only_training() -> None:
    assert shortened(["test", "--checkpoint", "runs/mine"]) == ["test", "--checkpoint", "runs/mine"]
    words = shortened(["train", "--recipe", "mask-rcnn/r50-fpn-1x", "--data", "coco"])
    assert words[:3] == ["train", "--recipe", "mask-rcnn/r18-fpn-demo"]
    assert words[-4:] == ["--max-steps", "2", "--device", "cpu"]


def test_an_unknown_package_or_extra_is_refused() -> None:
    check_install(["-q", "./core[export]", "av"])
    with pytest.raises(AssertionError, match=r"core\[exports"):
        check_install(["./core[exports]"])
    with pytest.raises(AssertionError, match="torchh"):
        check_install(["torchh"])


def test_a_line_that_fails_or_cannot_be_run_is_an_error(here_copied: Path) -> None:
    with pytest.raises(AssertionError, match="nothing here runs curl; mark the block"):
        run_line(["curl", "x"], here_copied)
    with pytest.raises(AssertionError, match="test has no option --checkpoints"):
        run_line(["det-core", "test", "--checkpoints", "runs/mine"], here_copied)
    with pytest.raises(AssertionError, match="runs/none"):
        run_line(["det-core", "test", "--checkpoint", "runs/none"], here_copied)
    with pytest.raises(AssertionError, match="document"):
        run_line(["make", "document"], here_copied)
