"""Exports a detector of every family to both formats, compares it on images of three sizes, and times it.

    python benchmarks/export.py [--families mask,ssd] [--formats onnx] [--rounds 5] [--peers]

One line a family and format: the largest differences with and without detections, then milliseconds of an image of
240 x 320: the detector, prepared by `for_inference`, and the exported file, on the CPU. With --peers, a last line has
torchvision's Mask R-CNN (ResNet-50) in eager mode and as ONNX, where this torchvision can export it. Weights are
random, from a fixed seed; layers are small, as in the recipes for the bundled sample, except SSDLite's. Fast R-CNN has
random proposals.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import attrs
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

from measure import in_turns
from random_weights import spread_out

from det_core import for_inference, load_recipe, predict
from det_core.boxes.spread_boxes import spread_boxes
from det_core.contracts import Sample
from det_core.data.data_config import ResizeConfig
from det_core.engine.image_inputs import to_sample
from det_core.errors import DetError
from det_core.export.compare_exported import sample_images
from det_core.export.export_detector import SUFFIXES, export_detector
from det_core.export.load_exported import load_exported
from det_core.model.detector import Detector
from det_core.settings import evolve

FAMILIES = {
    "rpn": "rpn/r18-fpn-demo",
    "faster": "faster-rcnn/r18-fpn-demo",
    "c4": "faster-rcnn/r18-c4-demo",
    "mask": "mask-rcnn/r18-fpn-demo",
    "cascade": "cascade-mask-rcnn/r18-fpn-demo",
    "htc": "htc/r18-fpn-demo",
    "retinanet": "retinanet/r18-fpn-demo",
    "ssd": "ssd/vgg16-demo",
    "gn-ws-dcn": "faster-rcnn/r18-fpn-gn-ws-mdconv-demo",
    "mobilenet": "faster-rcnn/mobilenet-v3-small-fpn-demo",
    "fast": "fast-rcnn/r18-fpn-demo",
    "ssdlite": "ssd/torchvision-mobilenet-v3-large-320",
    "ga-rpn": "rpn/r18-fpn-demo",
    "ga-faster": "faster-rcnn/r18-fpn-demo",
    "ga-retina": "ga-retinanet/r18-fpn-demo",
}
GUIDED = "detector.dense_head={type: ga_rpn, channels: 64}"
SETTINGS = {
    "ga-rpn": [GUIDED],  # there are no small recipes of these
    "ga-faster": [GUIDED],
    # As SSD300. torch's group norm in channels-last memory differs from ONNX Runtime's by more than is allowed.
    "ssd": ["detector.backbone.norm=null", "detector.neck.norm=null"],
}
TIMED = (240, 320)


def built(family: str, *, empty: bool) -> Detector:
    """A detector whose scores differ from region to region; `empty`: its threshold is 1."""
    torch.manual_seed(0)
    config = load_recipe(FAMILIES[family], SETTINGS.get(family, [])).detector
    place = "dense_head" if config.roi_head is None else "roi_head"
    if empty and hasattr(getattr(config, place), "score_threshold"):
        config = evolve(config, **{place: evolve(getattr(config, place), score_threshold=1.0)})
    detector = config.build(num_classes=3)
    spread_out(detector)
    detector.test_transforms = (ResizeConfig(scales=((max(TIMED), min(TIMED)),)),)
    return detector


def line(family: str, format_: str, folder: Path, rounds: int) -> str:
    """What is printed of a family and a format."""
    file = folder / f"{family}{SUFFIXES[format_]}"  # type: ignore[index]
    texts = []
    for empty in (True, False):
        detector = built(family, empty=empty)
        try:
            found = export_detector(detector, file, format_, recipe=FAMILIES[family])  # type: ignore[arg-type]
        except DetError as error:
            return f"{family:10} {format_:12} FAILED: {str(error).splitlines()[0]}"
        assert found is not None
        differences = f"boxes {found.boxes:.0e} scores {found.scores:.0e} masks {found.masks:.0e}"
        texts.append(f"{found.detections:4} detections: {differences}")
    image = timed_image()
    prepared, exported = for_inference(detector), load_exported(file)
    eager, other = in_turns([lambda: predict(prepared, image), lambda: exported(image)], rounds)
    times = f"eager {eager * 1e3:.0f} ms, exported {other * 1e3:.0f} ms"
    return f"{family:10} {format_:12} {'; '.join(reversed(texts))}; {times}"


def timed_image() -> Sample:
    """An image of noise, with proposals for the detectors that take them."""
    pixels = torch.randint(0, 256, (3, *TIMED), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return attrs.evolve(to_sample(pixels), proposals=spread_boxes(200, TIMED))


def peer(folder: Path, rounds: int) -> str:
    """torchvision's Mask R-CNN, eager and as ONNX."""
    import onnxruntime
    from torchvision.models.detection import maskrcnn_resnet50_fpn

    torch.manual_seed(0)
    model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4).eval()
    image = torch.rand(3, *TIMED)
    file = folder / "torchvision.onnx"
    try:
        torch.onnx.export(model, ([image],), str(file), dynamo=True, verbose=False, external_data=False)
    except Exception as error:  # of many kinds
        return f"torchvision Mask R-CNN cannot be exported with dynamo: {type(error).__name__}"
    session = onnxruntime.InferenceSession(str(file))
    name = session.get_inputs()[0].name
    with torch.no_grad():
        eager, other = in_turns([lambda: model([image]), lambda: session.run(None, {name: image.numpy()})], rounds)
    return f"torchvision Mask R-CNN R50: eager {eager * 1e3:.0f} ms, ONNX {other * 1e3:.0f} ms"


def main() -> int:
    """Print the lines; 1 if a family fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default=",".join(FAMILIES), help="some of: %(default)s")
    parser.add_argument("--formats", default=",".join(SUFFIXES), help="some of: %(default)s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    sizes = ", ".join(f"{x.shape[1]} x {x.shape[2]}" for x in sample_images())
    print(
        f"compared on images of {sizes}, resized to at most {TIMED[1]} x {TIMED[0]}; {torch.get_num_threads()} threads"
    )
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for family in options.families.split(","):
            for format_ in options.formats.split(","):
                started = time.monotonic()
                text = line(family, format_, Path(folder), options.rounds)
                failed |= "FAILED" in text
                print(f"{text} ({time.monotonic() - started:.0f} s)", flush=True)
        if options.peers:
            print(peer(Path(folder), options.rounds), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
