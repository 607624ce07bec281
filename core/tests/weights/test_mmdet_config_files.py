"""Configuration files with bases: what is read, from where, and that nothing is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from det_core.errors import DetError
from det_core.weights.mmdet_config import MAX_CHARS
from det_core.weights.mmdet_config_files import MAX_FILES, read_config_file
from det_core.weights.python_values import Place


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a").mkdir()
    return tmp_path


def write(folder: Path, **files: str) -> Path:
    """Write files by name, `a__x` in the folder a; returns the last."""
    path = folder
    for name, text in files.items():
        path = folder.joinpath(*name.split("__")).with_suffix(".py")
        path.write_text(text, encoding="utf8")
    return path


def values(folder: Path, *options: str, **files: str) -> Any:
    found = read_config_file(write(folder, **files), options)
    assert found.unread == ()
    return found.values


def refused(folder: Path, *options: str, **files: str) -> str:
    with pytest.raises(DetError) as raised:
        read_config_file(write(folder, **files), options)
    return str(raised.value).replace(f"{folder}/", "")


def test_dicts_are_merged_into_those_of_bases_and_lists_are_replaced(folder):
    found = values(
        folder,
        deep="steps = [8, 11]",
        base="_base_ = 'deep.py'\nmodel = dict(type='A', a=dict(x=1, y=2), b=dict(z=3))",
        other="data = dict(n=1)",
        a__mine="_base_ = ['../base.py', '../other.py']\n"
        "model = dict(a=dict(y=5), b=dict(_delete_=True, w=4))\nsteps = [1]",
    )
    assert found == {
        "steps": [1],
        "model": {"type": "A", "a": {"x": 1, "y": 5}, "b": {"w": 4}},
        "data": {"n": 1},
    }


def test_every_key_knows_its_place(folder):
    path = write(
        folder,
        base="model = dict(\n    a=dict(x=1,\n      y=2))",
        a__mine="\n_base_ = '../base.py'\nmodel = dict(a=dict(y=3))",
    )
    found = read_config_file(path).values
    base, mine = str(path.parent / ".." / "base.py"), str(path)
    assert found["model"]["a"].places == {"x": Place(base, 2), "y": Place(mine, 3)}
    assert found["model"].places["a"] == Place(mine, 3)


def test_values_of_bases_and_names_of_the_file(folder):
    found = values(
        folder,
        base="a = dict(b=[1, 2])\nroot = 'data/'",
        a__mine="_base_ = '../base.py'\nc = {{_base_.a.b}}\nd = '{{ _base_.root }}x.json'\ne = _base_.a.b[1] + 1\n"
        "_base_.a.b = [7]\nf = '{{ fileDirname }}|{{ fileBasename }}|{{ fileBasenameNoExtension }}|{{ fileExtname }}'",
    )
    assert (found["c"], found["d"], found["e"]) == ([1, 2], "data/x.json", 3)
    assert found["f"] == f"{(folder / 'a').as_posix()}|mine.py|mine|.py"


def test_the_style_of_python_modules(folder):
    found = values(
        folder,
        base="from mmdet.models import ResNet\nfrom torch import nn\n"
        "model = dict(type=ResNet, a=dict(x=1, y=2), act=dict(type=nn.ReLU))\nsteps = [1]\nunused = 5",
        more="lr = 0.1",
        a__mine="from mmengine.config import read_base\nwith read_base():\n    from ..base import model, steps as old\n"
        "    from ..more import *\n"
        "model.update(dict(a=dict(y=3)))\nmodel.a.x = 4\nmodel['b'] = lr * 2\nold.append(2)\n",
    )
    assert found == {
        "model": {"type": "mmdet.models.ResNet", "a": {"x": 4, "y": 3}, "act": {"type": "torch.nn.ReLU"}, "b": 0.2},
        "old": [1, 2],
        "lr": 0.1,
    }


def test_simple_python(folder):
    found = values(
        folder,
        mine="import copy\na = dict(x=1, y=dict(z=1, w=2))\nb = copy.deepcopy(a)\nb.update(y=dict(z=2))\nc = a.copy()\n"
        "steps = []\nfor i in [1, 2]:\n    for j in (10, 20):\n        steps.append(i * j)\nsteps.extend([0])\n"
        "n = 2 * 8\ndel i\ndel j\ndel n\n",
    )
    assert found == {
        "a": {"x": 1, "y": {"z": 1, "w": 2}},
        "b": {"x": 1, "y": {"z": 2}},  # of a plain dict, as in Python
        "c": {"x": 1, "y": {"z": 1, "w": 2}},
        "steps": [10, 20, 20, 40, 0],
    }


def test_nothing_is_run(folder):
    mark = folder / "mark"
    text = f"""
import os
os.mkdir({str(mark)!r})
x = open({str(mark)!r}, 'w').write('x')
y = __import__('os').system('touch {mark}')
class A:
    os.mkdir({str(mark)!r})
for z in [os.mkdir({str(mark)!r})]:
    pass
model = dict(type='A', n=eval('1'))
"""
    found = read_config_file(write(folder, base=text, mine="_base_ = 'base.py'\n"))
    assert not mark.exists()
    assert [(Path(u.file).name, u.line) for u in found.unread] == [("base.py", line) for line in (3, 4, 5, 6, 8, 10)]


def test_options_change_the_values(folder):
    text = "a = dict(b=1, c=[dict(d=1), 2])\n"
    options = {
        "a.b=2": ("b", 2),
        "a.b=1e-3": ("b", 0.001),
        "a.b=true": ("b", True),
        "a.b=none": ("b", None),
        "a.b=word/x.json": ("b", "word/x.json"),
        "a.b='x'": ("b", "x"),
        "a.b=[1,2]": ("b", [1, 2]),
        "a.b=(1,2)": ("b", (1, 2)),
        "a.b=1,2": ("b", [1, 2]),
        "a.b=x,y": ("b", ["x", "y"]),
        "a.b=[x": ("b", "[x"),
        "a.new.key=1": ("new", {"key": 1}),
        "a.c.0.d=5": ("c", [{"d": 5}, 2]),
        "a.c[1]=5": ("c", [{"d": 1}, 5]),
    }
    for option, (key, value) in options.items():
        assert values(folder, option, mine=text)["a"][key] == value, option


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("a.b", "--cfg-options 'a.b': expected KEY=VALUE, such as data.samples_per_gpu=4"),
        ("a.c.7=1", "--cfg-options 'a.c.7=1': no item '7' in a list of 1"),
        ("a.b.x=1", "--cfg-options 'a.b.x=1': a.b is 1, which has no key 'x'"),
    ],
)
def test_options_that_do_not_fit(option, message, folder):
    assert refused(folder, option, mine="a = dict(b=1, c=[1])") == message


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"mine": "_base_ = 'no.py'"}, "mine.py:1: _base_: no.py: no such file"),
        ({"mine": "\n_base_ = ['mine.py']"}, "mine.py:2: _base_: mine.py: is its own base: mine.py -> mine.py"),
        (
            {"x": "_base_ = 'mine.py'", "mine": "_base_ = 'x.py'"},
            "x.py:1: _base_: mine.py: is its own base: mine.py -> x.py -> mine.py",
        ),
        (
            {"x": "a = 1", "y": "a = 2", "mine": "_base_ = ['x.py', 'y.py']"},
            "mine.py:1: _base_: y.py: defines a, and so does another base; bases must differ",
        ),
        (
            {"mine": "_base_ = files()"},
            "mine.py:1: _base_: expected the name of a file, or a list of names, without anything to compute",
        ),
        (
            {"mine": "_base_ = 'mmdet::x.py'"},
            "mine.py:1: _base_: mmdet::x.py: is in a package; only files are read, so give the file's path",
        ),
        (
            {"x": "a = 1", "mine": "_base_ = 'x.py'\nb = {{_base_.c}}"},
            "mine.py:2: {{_base_.c}}: its bases define no such value",
        ),
        (
            {"mine": "with read_base():\n    from mmdet.configs.x import *"},
            "mine.py:2: from mmdet.configs.x import: is in a package; only files are read, so write a relative import, "
            "such as `from .base import *`",
        ),
        ({"mine": "with read_base():\n    from .no import *"}, "mine.py:2: no.py: no such file"),
        (
            {"x": "a = 1", "mine": "with read_base():\n    from .x import b"},
            "mine.py:2: the base file defines no 'b'",
        ),
        (
            {"x": "a = (", "mine": "_base_ = 'x.py'"},
            "x.py:1: not readable as a configuration in Python: '(' was never closed",
        ),
        (
            {"mine": "#" * (MAX_CHARS + 1)},
            f"mine.py: {MAX_CHARS + 1} characters; a configuration has at most {MAX_CHARS}",
        ),
        (
            {"mine": "for i in [1] * 9999:\n    for j in [1] * 9999:\n        pass"},
            "mine.py: not readable as a configuration: more than 100000 values",
        ),
    ],
)
def test_what_is_refused(files, message, folder):
    assert refused(folder, **files) == message


def test_chains_of_bases_are_bounded(folder):
    files = {"f0": "a = 1"} | {f"f{i}": f"_base_ = 'f{i - 1}.py'" for i in range(1, MAX_FILES + 1)}
    assert refused(folder, **files) == f"f0.py: the configuration has more than {MAX_FILES} base files"


def test_a_file_that_is_not_there(folder):
    with pytest.raises(DetError, match="no.py: no such file"):
        read_config_file(folder / "no.py")
