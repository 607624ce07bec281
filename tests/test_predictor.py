"""`Predictor`: what it takes, that threads and processes may share it, and batches of columns."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

from det_core import Detections, DetError, Predictor, predict
from det_core.data.bad_samples import BadImage
from det_core.engine.test_time_augmentation import Augmentation

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
OTHERS = [np.random.default_rng(seed).integers(0, 256, (40 + 8 * seed, 96, 3), np.uint8) for seed in range(1, 5)]


@pytest.fixture(scope="module")
def predictor(tiny_checkpoint) -> Predictor:
    return Predictor(tiny_checkpoint, "cpu")


def encoded(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def equal(one: Detections, other: Detections) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in ("boxes", "scores", "labels"))


def test_every_form_of_an_image(predictor, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(PIXELS))
    expected = predictor(PIXELS)
    assert len(expected) > 0
    forms = [path, str(path), encoded(PIXELS), Image.fromarray(PIXELS), torch.from_numpy(PIXELS).permute(2, 0, 1)]
    assert [equal(found, expected) for found in predictor(forms)] == [True] * 5
    assert all(equal(predictor(form), expected) for form in forms)
    assert predictor([]) == []
    assert predictor.classes.names == ("class 0", "class 1", "class 2")


def test_options(tiny_checkpoint, predictor):
    expected = predictor(PIXELS)
    assert equal(Predictor(tiny_checkpoint, order="bgr")(PIXELS[..., ::-1]), expected)
    several = Predictor(tiny_checkpoint, batch_size=3)([PIXELS, *OTHERS, PIXELS])
    assert [len(d) for d in several] == [len(predictor(p)) for p in (PIXELS, *OTHERS, PIXELS)]
    only = Predictor(tiny_checkpoint, classes=["class 1"])(PIXELS)
    assert equal(only, expected[expected.labels == 1])
    views = Predictor(tiny_checkpoint, augmentation=Augmentation(flip=True))(PIXELS)
    assert equal(views, predict(predictor.detector, PIXELS, augmentation=Augmentation(flip=True)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: found 0, expected a whole number of at least 1"),
        ({"precision": "fp61"}, "precision: found 'fp61', allowed: fp32, bf16, fp16"),
        ({"order": "gbr"}, "order: found 'gbr', allowed: rgb, bgr"),
        ({"device": "gpu"}, "unknown device 'gpu'; allowed: cpu, cuda, cuda:N, mps"),
        ({"classes": "class 1"}, "classes: found 'class 1', expected a list of names"),
        ({"classes": ["class1"]}, "classes: the detector has no class 'class1'; did you mean \"class 1\""),
        (
            {"classes": ["tram"]},
            "classes: the detector has no class 'tram'; the detector has class 0, class 1, class 2",
        ),
    ],
)
def test_options_that_are_not_allowed(tiny_checkpoint, options, message):
    with pytest.raises(DetError, match=message):
        Predictor(tiny_checkpoint, **options)


def test_what_is_no_image(predictor, tmp_path):
    for content, message in ((b"", "bytes: not a readable image (the file is empty)"), (b"abc", "(3 bytes)")):
        with pytest.raises(BadImage) as raised:
            predictor(content)
        assert message in str(raised.value)
    with pytest.raises(DetError, match="images: found 3 .int., expected a path, the bytes of a file, "):
        predictor(3)
    with pytest.raises(DetError, match="device and recipe are options for checkpoints"):
        Predictor(predictor.detector, "cpu")
    with pytest.raises(DetError, match=r"sizes: found \(0, 8\), expected \(height, width\) in pixels"):
        predictor.warm_up([(0, 8)])


def test_eight_threads_get_what_one_gets(tiny_checkpoint):
    """From the first call on, when operators are made and weights are packed; torch's random state is left alone."""
    images = [PIXELS, *OTHERS] * 8
    expected = [Predictor(tiny_checkpoint)(image) for image in (PIXELS, *OTHERS)] * 8
    for shared in (pickle.loads(pickle.dumps(Predictor(tiny_checkpoint))), Predictor(tiny_checkpoint)):
        before = torch.get_rng_state()
        with ThreadPoolExecutor(8) as threads:
            found = list(threads.map(shared, images))
        assert all(equal(one, other) for one, other in zip(found, expected, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_pickle_is_small_and_loads_when_it_is_used(tiny_checkpoint, predictor, tmp_path):
    data = pickle.dumps(Predictor(tiny_checkpoint, batch_size=2, classes=("class 1",)))
    assert len(data) < 4096
    copy = pickle.loads(data)
    assert copy._ready is None
    assert equal(copy(PIXELS), Predictor(tiny_checkpoint, classes=("class 1",))(PIXELS))
    (tmp_path / "p").write_bytes(data)
    (tmp_path / "a.png").write_bytes(encoded(PIXELS))
    code = (
        "import pickle, sys; from pathlib import Path; "
        "print(len(pickle.loads(Path(sys.argv[1]).read_bytes())(sys.argv[2])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "p", tmp_path / "a.png"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == len(copy(PIXELS))
    of_detector = pickle.loads(pickle.dumps(Predictor(predictor.detector)))
    assert equal(of_detector(PIXELS), predictor(PIXELS))


def test_warm_up_is_called_in_full_batches(tiny_checkpoint):
    predictor = Predictor(tiny_checkpoint, batch_size=2)
    seen: list[tuple[int, ...]] = []
    predictor.detector.backbone.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape)))
    predictor.warm_up([(48, 96), (96, 96)])
    assert seen == [(2, 3, 64, 96), (2, 3, 96, 96)]


# Batches of columns


def test_columns_in_and_out(predictor, tmp_path):
    files = []
    for number, pixels in enumerate((PIXELS, *OTHERS)):
        files.append(tmp_path / f"{number}.png")
        files[-1].write_bytes(encoded(pixels))
    ids = np.arange(5) * 10
    ragged = np.empty(5, dtype=object)
    ragged[:] = [PIXELS, *OTHERS]
    contents = np.array([f.read_bytes() for f in files], dtype=object)
    forms = {"image": ragged, "bytes": contents, "path": np.array([str(f) for f in files])}
    expected = predictor([PIXELS, *OTHERS])
    for name, column in forms.items():
        out = predictor({"id": ids, name: column})
        kept = {"id", "path"} if name == "path" else {"id"}
        assert set(out) == {*kept, "boxes", "scores", "labels", "classes", "error"}
        assert {len(values) for values in out.values()} == {5}
        assert out["id"].tolist() == ids.tolist()
        for row, found in enumerate(expected):
            assert np.array_equal(out["boxes"][row], found.boxes.numpy())
            assert np.array_equal(out["scores"][row], found.scores.numpy())
            assert out["labels"][row].dtype == np.int64
            assert out["classes"][row].tolist() == [f"class {label}" for label in found.labels.tolist()]
    one_size = predictor({"image": np.stack([PIXELS, PIXELS])})
    assert one_size["boxes"].shape == (2,)


def test_a_bad_row_costs_its_own_result(predictor):
    contents = np.array([encoded(PIXELS), b"none", encoded(PIXELS)], dtype=object)
    out = predictor({"bytes": contents, "path": np.array(["a", "b", "c"])})
    assert [bool(text) for text in out["error"]] == [False, True, False]
    assert "not a readable image (4 bytes)" in out["error"][1]
    assert [len(boxes) for boxes in out["boxes"]] == [len(predictor(PIXELS)), 0, len(predictor(PIXELS))]
    assert out["boxes"][1].shape == (0, 4)
    assert out["path"].tolist() == ["a", "b", "c"]


def test_columns_that_are_none(tiny_checkpoint, predictor):
    with pytest.raises(DetError, match=r"columns: found a, expected one with images: image or bytes or path; name it"):
        predictor({"a": np.zeros(2)})
    with pytest.raises(DetError, match=r"columns have different lengths: image 1, id 2"):
        predictor({"image": PIXELS[None], "id": np.zeros(2)})
    named = Predictor(tiny_checkpoint, column="pixels")
    assert len(named({"pixels": PIXELS[None]})["boxes"]) == 1


def test_masks_are_codes(tmp_path_factory, make_tiny_checkpoint):
    predictor = Predictor(make_tiny_checkpoint("mask-rcnn/r18-fpn-demo"))
    out = predictor({"image": np.stack([PIXELS, PIXELS])})
    found = predictor(PIXELS)
    assert [list(row) for row in out["masks"]] == [[c["counts"] for c in found.mask_codes() or ()]] * 2
