"""Damages what readers are given, and counts what ends in anything but a result or a DetError.

`python tests/fuzz_readers.py READER SECONDS SEED [TRIES]` prints a line of JSON: {"tries": ..., "failures": [...]}.
Each try is limited in time, the process in memory. A failure names the seed of its try: the same seed makes the same
input.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

TRY_SECONDS = 60
MEMORY = 12 << 30  # of address space; torch alone maps some gigabytes
FAILURES_SHOWN = 5

EVIL: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 2**127, 10**400, 0.5, -0.0, 1e-300, 1e300, 1e9),
    *(float("nan"), float("inf"), -float("inf"), "", " ", "0", "-1", "1e400", "x" * 10_000, "\0", "\ud800", "é\u202e"),
    *("../../x", "/etc/passwd", "/dev/zero", ".", "[/red]", "!!int x", "${HOME}", [], [[]], [0], [None], {}, {"a": {}}),
)
Damage = Callable[[random.Random], None]


def places(value: Any) -> list[tuple[Any, Any]]:
    """All (container, key) in nested lists and dicts."""
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += [(value, key), *places(inner)]
    return found


def damaged(plain: Any, rng: random.Random) -> Any:
    """A copy of plain data in which one to three values are replaced, removed, repeated or renamed."""
    plain = copy.deepcopy(plain)
    for _ in range(rng.randint(1, 3)):
        spots = places(plain)
        if not spots:
            break
        container, key = rng.choice(spots)
        kind = rng.random()
        if kind < 0.7:
            container[key] = copy.deepcopy(rng.choice(EVIL))
        elif kind < 0.85:
            del container[key]
        elif isinstance(container, list):
            container += [container[key]] * rng.choice([1, 50])
        else:
            container[rng.choice(["a", "id", "type", "name"])] = container.pop(key)
    return plain


def flipped(content: bytes, rng: random.Random) -> bytes:
    """Bytes with some replaced, cut off, repeated or inserted."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(len(data) + 1)
        kind = rng.random()
        if kind < 0.6 and at < len(data):
            data[at] = rng.randrange(256)
        elif kind < 0.75:
            del data[at:]
        elif kind < 0.9:
            data[at:at] = rng.randbytes(rng.choice([1, 4, 100]))
        else:
            data[at:at] = data[: rng.randrange(1, 200)]
    return bytes(data)


def as_json(plain: Any) -> bytes:
    return json.dumps(plain).encode("utf8", "surrogatepass")


# Readers: each returns a function that makes and reads one damaged input


def coco(folder: Path) -> Damage:
    from det_core.data.coco_dataset import CocoDataset
    from det_core.data.sample_files import sample_folder
    from det_core.reports.dataset_report import data_report

    source = sample_folder()
    shutil.copytree(source / "images", folder / "images")
    whole = json.loads((source / "instances_val.json").read_text())
    kept = [image["id"] for image in whole["images"][:3]]
    plain = {
        **whole,
        "images": whole["images"][:3],
        "annotations": [a for a in whole["annotations"] if a["image_id"] in kept][:12],
    }
    path = folder / "instances.json"

    def once(rng: random.Random) -> None:
        content = as_json(damaged(plain, rng))
        path.write_bytes(flipped(content, rng) if rng.random() < 0.2 else content)
        how = rng.choice(["skip", "repair"])
        classes = rng.choice([None, None, ("nucleus=cell",)])
        data = CocoDataset(path, folder / "images", masks=rng.random() < 0.5, on_bad_sample=how, classes=classes)
        data_report(data).render()
        data.load(0)

    return once


def voc(folder: Path) -> Damage:
    from PIL import Image

    from det_core.data.data_config import VocConfig

    text = (
        "<annotation><filename>a.jpg</filename><size><width>60</width><height>40</height></size>"
        + "<object><name>dog</name><difficult>0</difficult><bndbox><xmin>5</xmin><ymin>6</ymin><xmax>25</xmax>"
        "<ymax>16</ymax></bndbox></object>" * 3 + "</annotation>"
    )
    paths = [folder / "ImageSets/Main/trainval.txt", folder / "Annotations/a.xml", folder / "JPEGImages/a.jpg"]
    for path in paths:
        path.parent.mkdir(parents=True)
    Image.new("RGB", (60, 40)).save(paths[2])
    config = VocConfig(split="train", sets=("trainval",))

    def once(rng: random.Random) -> None:
        value = str(rng.choice(EVIL))[:20_000]
        spoiled = text.replace(rng.choice(["60", "40", "dog", "5", "16", "a.jpg"]), value, rng.choice([1, 9]))
        content = spoiled.encode("utf8", "surrogatepass")
        paths[1].write_bytes(flipped(content, rng) if rng.random() < 0.5 else content)
        paths[0].write_bytes(flipped(b"a\n", rng) if rng.random() < 0.2 else b"a\n")
        config.build(str(folder), on_bad_sample=rng.choice(["skip", "error"])).load(0)

    return once


def yolo(folder: Path) -> Damage:
    import yaml
    from PIL import Image

    from det_core.data.convert import convert
    from det_core.data.files_config import YoloConfig

    (folder / "images").mkdir()
    Image.new("RGB", (60, 40)).save(folder / "images/a.png")
    (folder / "labels").mkdir()
    plain = {"path": ".", "names": ["cat", "dog"], "train": "images", "val": ["images"], "nc": 2}
    line = "0 0.5 0.5 0.25 0.25\n1 0.1 0.1 0.6 0.1 0.6 0.9\n"
    config = YoloConfig(split="train")

    def once(rng: random.Random) -> None:
        text = yaml.safe_dump(damaged(plain, rng) if rng.random() < 0.5 else plain).encode("utf8", "surrogatepass")
        (folder / "data.yaml").write_bytes(flipped(text, rng) if rng.random() < 0.2 else text)
        spoiled = line.replace(
            rng.choice(["0.5", "0.1", "1 ", "0 "]), str(rng.choice(EVIL))[:20_000], rng.choice([1, 9])
        )
        content = spoiled.encode("utf8", "surrogatepass")
        (folder / "labels/a.txt").write_bytes(flipped(content, rng) if rng.random() < 0.5 else content)
        how = rng.choice(["skip", "error", "repair"])
        config.build(str(folder), on_bad_sample=how, masks=rng.random() < 0.3).load(0)
        shutil.rmtree(folder / "out", ignore_errors=True)
        convert({"train": config}, str(folder), folder / "out", rng.choice(["coco", "yolo"]), on_bad_sample="skip")

    return once


def labelme(folder: Path) -> Damage:
    from PIL import Image

    from det_core.data.files_config import LabelmeConfig

    Image.new("RGB", (60, 40)).save(folder / "a.png")
    points = [[1, 2], [30, 2], [30, 20]]
    shapes = [
        {"label": "cat", "points": points, "group_id": 1, "shape_type": "polygon"},
        {"label": "dog", "points": points[:2], "group_id": None, "shape_type": "circle"},
        {"label": "dog", "points": points[:2], "group_id": None, "shape_type": "mask", "mask": "iVBORw0KGgo="},
    ]
    plain = {"version": "5", "shapes": shapes, "imagePath": "a.png", "imageHeight": 40, "imageWidth": 60}

    def once(rng: random.Random) -> None:
        content = as_json(damaged(plain, rng))
        (folder / "a.json").write_bytes(flipped(content, rng) if rng.random() < 0.3 else content)
        how = rng.choice(["skip", "error", "repair"])
        classes = rng.choice([None, ("cat=x",), ("dog", "cat")])
        LabelmeConfig(split="train", classes=classes).build(str(folder), on_bad_sample=how).load(0)

    return once


def recipe(folder: Path) -> Damage:
    import yaml

    from det_core.load import load_recipe

    plains = [load_recipe(name).to_plain() for name in ("faster-rcnn/r18-fpn-demo", "htc/r18-fpn-demo")]
    path = folder / "recipe.yaml"

    def once(rng: random.Random) -> None:
        text = yaml.safe_dump(damaged(rng.choice(plains), rng)).encode("utf8", "surrogatepass")
        path.write_bytes(flipped(text, rng) if rng.random() < 0.3 else text)
        load_recipe(path)

    return once


def foreign_config(folder: Path) -> Damage:
    """Configurations of mmdetection and of detectron2, as text and value by value."""
    import yaml
    from detectron2_configs import BASES, CASCADE
    from mmdet_configs import BASES_2, FASTER_1, GA_RETINA, GA_RPN, htc_1, on_bases

    from det_core.import_config.import_config import import_config
    from det_core.weights.mmdet_config_files import read_config_file

    for name, text in {**BASES_2, **BASES}.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    python, path = folder / "x" / "mine.py", folder / "x" / "mine.yaml"
    python.parent.mkdir(exist_ok=True)
    texts = [FASTER_1, on_bases("mask", "masks"), BASES_2["_base_/models/cascade.py"]]
    plains = [yaml.safe_load(text) for text in (BASES["bases/fpn.yaml"], BASES["bases/c4.yaml"])]
    plains.append({"_BASE_": "../bases/fpn.yaml", **yaml.safe_load(CASCADE)})

    parsed = []
    for text in (
        FASTER_1,
        htc_1(),
        on_bases("mask", "masks"),
        on_bases("retina", more=GA_RETINA),
        on_bases("faster", more=GA_RPN),
    ):
        python.write_text(text)
        parsed.append(dict(read_config_file(python).values))

    def once(rng: random.Random) -> None:
        if rng.random() < 0.6:
            values = damaged(rng.choice(parsed), rng)
            text = "\n".join(f"{name} = {value!r}" for name, value in values.items() if str(name).isidentifier())
            content = text if rng.random() < 0.5 else rng.choice(texts)
            python.write_bytes(content.encode("utf8", "replace") if content is text else flipped(content.encode(), rng))
            import_config(python).to_yaml()
            return
        text = yaml.safe_dump(damaged(rng.choice(plains), rng)).encode("utf8", "surrogatepass")
        path.write_bytes(flipped(text, rng) if rng.random() < 0.3 else text)
        import_config(path).to_yaml()

    return once


def header(folder: Path) -> Damage:
    import torch
    from safetensors.torch import save_file

    from det_core.engine.checkpoint import Header, read_header, read_weights
    from det_core.load import load_recipe
    from det_core.structures import Classes

    made = Header(recipe=load_recipe("rpn/r18-fpn-demo"), classes=Classes.numbered(2), plugins={"core": "1"})
    metadata = made.to_metadata()
    path = folder / "model.safetensors"

    def once(rng: random.Random) -> None:
        spoiled = dict(metadata)
        name = rng.choice(list(spoiled))
        try:
            spoiled[name] = json.dumps(damaged(json.loads(spoiled[name]), rng))
        except ValueError:
            spoiled[name] = str(rng.choice(EVIL)).encode("utf8", "replace").decode()
        if rng.random() < 0.1:
            del spoiled[name]
        save_file({"a": torch.zeros(2)}, path, metadata=spoiled)
        if rng.random() < 0.4:
            path.write_bytes(flipped(path.read_bytes(), rng))
        read_header(path)
        read_weights(path)

    return once


def proposals(folder: Path) -> Damage:
    import torch
    from safetensors.torch import load_file, save_file

    from det_core.data.proposals_file import FORMAT, ImageProposals, read_proposals, write_proposals

    path = folder / "p.safetensors"
    boxes = torch.tensor([[1.0, 2, 30, 40], [3, 4, 20, 20]])
    images = [ImageProposals(i, f"{i}.jpg", (50, 60), boxes, torch.tensor([0.9, 0.5])) for i in range(3)]
    write_proposals(path, images, {})
    arrays = load_file(path)

    def once(rng: random.Random) -> None:
        spoiled = dict(arrays)
        for name in rng.sample(list(spoiled), rng.randint(1, 3)):
            value = spoiled[name]
            spoiled[name] = rng.choice(
                [
                    lambda v: v.sum(),
                    lambda v: v[:0].clone(),
                    lambda v: v.reshape(-1).clone(),
                    lambda v: v.double(),
                    lambda v: (-v.long() - 1).to(v.dtype),
                    lambda v: torch.full_like(v, 255),
                    lambda v: v[..., :1].clone(),
                    lambda v: torch.cat([v, v]),
                ]
            )(value)
        save_file({k: v.contiguous() for k, v in spoiled.items()}, path, metadata={"format": FORMAT})
        if rng.random() < 0.4:
            path.write_bytes(flipped(path.read_bytes(), rng))
        read_proposals(path).of_row(0)

    return once


def image(folder: Path) -> Damage:
    import numpy as np
    from PIL import Image

    from det_core.data.images import image_size, read_image

    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = Image.fromarray(np.arange(24 * 16 * 3, dtype=np.uint8).reshape(16, 24, 3))
    contents = {}
    for kind in ("jpeg", "png", "webp", "gif", "bmp", "tiff", "ppm"):
        file = io.BytesIO()
        pixels.save(file, kind, **({"exif": exif.tobytes()} if kind in ("jpeg", "png", "webp") else {}))
        contents[kind] = file.getvalue()
    path = folder / "image.jpg"

    def once(rng: random.Random) -> None:
        path.write_bytes(flipped(contents[rng.choice(list(contents))], rng))
        try:
            size = image_size(path)
        finally:
            found = read_image(path)
        if size != tuple(found.shape[1:]):
            raise AssertionError(f"image_size says {size}, read_image {tuple(found.shape)}")

    return once


def command_line(folder: Path) -> Damage:
    from det_core.cli.main import run
    from det_core.cli.verbs import VERBS

    verbs = [*VERBS, "x"]
    words = [
        *(
            "show",
            "schema",
            "diff",
            "browse",
            "new",
            "--help",
            "-h",
            "--json",
            "--set",
            "--config",
            "--recipe",
            "--out",
        ),
        *(
            "--plugin",
            "--checkpoint",
            "--data",
            "--device",
            "--from",
            "--work-dir",
            "--batch-size",
            "--threshold",
            "-o",
        ),
        *(
            "absent/recipe",
            "cpu",
            "cuda:99",
            "mmdet",
            str(folder),
            str(folder / "absent"),
            "=",
            "a=b",
            "data.root=[",
            "-1",
        ),
        # NUL and half surrogates are in no argument of a process.
        *(str(value)[:200] for value in EVIL if value not in ("\0", "\ud800")),
    ]

    def once(rng: random.Random) -> None:
        arguments = [rng.choice(verbs), *rng.choices(words, k=rng.randint(0, 6))]
        output = io.StringIO()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            code = run(arguments)
        if "Traceback" in output.getvalue() or code not in (0, 1, 2):
            raise AssertionError(f"{arguments} ended with {code}: {output.getvalue()[-500:]}")

    return once


READERS = {
    "coco": coco,
    "voc": voc,
    "yolo": yolo,
    "labelme": labelme,
    "recipe": recipe,
    "foreign_config": foreign_config,
    "header": header,
    "proposals": proposals,
    "image": image,
    "command_line": command_line,
}


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"a try took more than {TRY_SECONDS} s")


def main(name: str, seconds: float, seed: int, most: float = float("inf")) -> None:
    """Fuzz one reader for so long, or with at most so many tries, beginning with this seed."""
    from det_core.errors import DetError

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _too_long)
    failures, tries = [], 0
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        once = READERS[name](Path(folder))
        end = time.monotonic() + seconds
        warnings.simplefilter("ignore")
        while time.monotonic() < end and tries < most:
            number = seed + tries
            tries += 1
            signal.alarm(TRY_SECONDS)
            try:
                once(random.Random(number))
            except DetError:
                pass
            except BaseException as error:  # whatever else comes out is what is looked for
                where = traceback.format_exception(error)[-3:]
                failures.append({"seed": number, "error": f"{type(error).__name__}: {error}"[:300], "where": where})
            signal.alarm(0)
    print(json.dumps({"tries": tries, "failures": failures[:FAILURES_SHOWN], "failed": len(failures)}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), *map(float, sys.argv[4:]))
