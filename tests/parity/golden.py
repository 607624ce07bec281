"""Golden cases: what the reference implementation (mmdetection 3.3.0, float64, CPU) computes for a whole detector.

`cases/NAME.json` and `.npz` hold its results, `generate.py` makes weights and inputs, `stages/NAME.npz` holds what
this project computed at every stage when the case passed, so that a failure can say which stage departs first.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor

from det_core.boxes.box_config import AllSamplerConfig, RandomSamplerConfig
from det_core.boxes.overlaps import box_iou
from det_core.contracts import BoxHead, MaskHead, RoIPool, Sample
from det_core.data.data_config import ResizeConfig
from det_core.data.images import read_image
from det_core.data.loader import prepare
from det_core.engine.predict import to_batch
from det_core.load import load_recipe
from det_core.model.detector import Detector
from det_core.model.detector_config import DetectorConfig, PreprocessConfig
from det_core.slots import ProposalHeadConfig
from det_core.structures import Batch, Detections, ImageInfo, Key, Targets
from det_core.weights.fill_detector import ImportReport, import_weights
from det_plugin_resnet.backbones import BACKBONES

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
import generate  # noqa: E402

# Case name to the recipe of the same model; sizes, classes and thresholds come from the case.
RECIPES = {
    "rpn_r50_fpn": "rpn/r50-fpn-1x",
    "faster_rcnn_r50_fpn": "faster-rcnn/r50-fpn-1x",
    "mask_rcnn_r50_fpn": "mask-rcnn/r50-fpn-1x",
    "faster_rcnn_x101_32x4d_fpn": "faster-rcnn/x101-32x4d-fpn-1x",
    "rpn_r50_caffe_c4": "rpn/r50-caffe-c4-1x",
    "faster_rcnn_r50_caffe_c4": "faster-rcnn/r50-caffe-c4-1x",
    "fast_rcnn_r50_fpn": "fast-rcnn/r50-fpn-1x",
    "cascade_rcnn_r50_fpn": "cascade-rcnn/r50-fpn-1x",
    "cascade_mask_rcnn_r50_fpn": "cascade-mask-rcnn/r50-fpn-1x",
    "htc_r50_fpn": "htc/r50-fpn-1x",
    "retinanet_r50_fpn": "retinanet/r50-fpn-1x",
    "mask_rcnn_r50_fpn_gn_all": "mask-rcnn/r50-fpn-gn-2x",
    "mask_rcnn_r50_fpn_gn_ws_all": "mask-rcnn/r50-fpn-gn-ws-2x",
    "faster_rcnn_r50_dconv_c3_c5_fpn": "faster-rcnn/r50-fpn-dconv-c3-c5-1x",
    "faster_rcnn_r50_mdconv_c3_c5_fpn": "faster-rcnn/r50-fpn-mdconv-c3-c5-1x",
    "ga_rpn_r50_fpn": "ga-rpn/r50-caffe-fpn-1x",
    "ga_faster_rcnn_r50_fpn": "ga-faster-rcnn/r50-caffe-fpn-1x",
    "ga_retinanet_r50_fpn": "ga-retinanet/r50-caffe-fpn-1x",
    "ssd300_coco": "ssd/vgg16-300-coco-120e",
    "ssd512_coco": "ssd/vgg16-512-coco-120e",
    "pipeline_faster_rcnn_r50_fpn": "faster-rcnn/r50-fpn-1x",
    "pipeline_mask_rcnn_r50_fpn": "mask-rcnn/r50-fpn-1x",
    "pipeline_retinanet_r50_caffe_fpn": "retinanet/r50-caffe-fpn-1x",
    "pipeline_ssd300": "ssd/vgg16-300-coco-120e",
}
# Its losses to ours.
LOSSES = {
    "loss_rpn_cls": "rpn_cls",
    "loss_rpn_bbox": "rpn_box",
    "loss_anchor_shape": "rpn_shape",
    "loss_anchor_loc": "rpn_location",
    "rpn_loss_anchor_shape": "rpn_shape",
    "rpn_loss_anchor_loc": "rpn_location",
    "loss_cls": "roi_cls",
    "loss_bbox": "roi_box",
    "loss_mask": "roi_mask",
    "loss_semantic_seg": "semantic",
    **{
        f"s{stage}.loss_{theirs}": f"stage{stage + 1}_{ours}"
        for stage in range(3)
        for theirs, ours in (("cls", "cls"), ("bbox", "box"), ("mask", "mask"))
    },
}
ONE_STAGE = {"retinanet": "retina", "ga-retinanet": "retina", "ssd": "ssd"}
EVERYTHING = 1_000_000  # sample every candidate, so that no random number matters


@frozen(eq=False)
class Case:
    """A golden case: its description and results, and the detector that holds its weights."""

    name: str
    facts: dict[str, Any]
    golden: dict[str, np.ndarray]
    detector: Detector
    report: ImportReport


def load_case(name: str, dtype: torch.dtype = torch.float64, device: str = "cpu") -> Case:
    """Read a case, build its recipe's detector on the device and import the reference's weights."""
    facts = json.loads((HERE / "cases" / f"{name}.json").read_text())
    golden = dict(np.load(HERE / "cases" / f"{name}.npz"))
    detector = detector_config(RECIPES[name], facts).build(num_classes=facts["num_classes"])
    report = import_weights(generate.state_dict(facts), source="mmdet", detector=detector)
    return Case(name, facts, golden, detector.to(device, dtype), report)


def loss_names(case: Case) -> dict[str, str]:
    """The reference's losses to ours; those of a model of one stage are named after it."""
    one_stage = ONE_STAGE.get(RECIPES[case.name].partition("/")[0])
    if one_stage is None:
        return LOSSES
    kinds = {"cls": "cls", "bbox": "box", "shape": "shape", "loc": "location"}
    return {f"loss_{theirs}": f"{one_stage}_{ours}" for theirs, ours in kinds.items()}


def detector_config(recipe: str, facts: dict[str, Any]) -> DetectorConfig:
    """The recipe's detector with deterministic sampling, the case's thresholds and preprocessing."""
    config = load_recipe(recipe).detector
    if "-caffe-" in recipe and "caffe" not in facts["config"]:  # published in caffe style, computed in the other
        config = evolve(config, backbone=BACKBONES[recipe.partition("/")[2].partition("-")[0]])
    if config.dense_head is not None:
        head = config.dense_head
        if isinstance(head, ProposalHeadConfig):
            head = _sample_everything(head)
        if hasattr(head, "guided"):
            # mmdet 3.x counts classes from 0 and so takes what is no centre as the one class of locations.
            sampler = _everything(head.guided.shape_sampler)
            head = evolve(head, guided=evolve(head.guided, shape_sampler=sampler, location_labels="inverted"))
        if "model.test_cfg.score_thr" in facts["options"]:
            head = evolve(head, score_threshold=facts["options"]["model.test_cfg.score_thr"])
        for limits, option in (("train_limits", "train_cfg.rpn_proposal"), ("test_limits", "test_cfg.rpn")):
            if count := facts["options"].get(f"model.{option}.max_per_img"):
                head = evolve(head, **{limits: evolve(getattr(head, limits), after_nms=count)})
        config = evolve(config, dense_head=head)
    if config.roi_head is not None:
        head = _sample_everything(config.roi_head)
        if "model.test_cfg.rcnn.score_thr" in facts["options"]:
            head = evolve(head, score_threshold=facts["options"]["model.test_cfg.rcnn.score_thr"])
        if hasattr(head, "masks_of"):  # mmdet 3.x shows HTC's last masks alone, the 2019 release the mean of all
            head = evolve(head, masks_of="last")
        config = evolve(config, roi_head=head)
    if "preprocess" in facts:
        wanted = facts["preprocess"]
        order = "rgb" if wanted["bgr_to_rgb"] else "bgr"
        preprocess = PreprocessConfig(
            order=order, mean=tuple(wanted["mean"]), std=tuple(wanted["std"]), pad_divisor=wanted["pad_divisor"]
        )
        config = evolve(config, preprocess=preprocess)
    return config


def _sample_everything(head: Any) -> Any:
    if hasattr(head, "stages"):
        return evolve(head, stages=tuple(_sample_everything(stage) for stage in head.stages))
    return evolve(head, sampler=_everything(head.sampler))


def _everything(sampler: Any) -> Any:
    if isinstance(sampler, AllSamplerConfig):
        return sampler
    return RandomSamplerConfig(count=EVERYTHING, positive_fraction=sampler.positive_fraction)


def synthetic_batch(case: Case) -> Batch:
    """The case's normalised images, unscaled, on the detector's device."""
    like = case.detector.preprocess.mean
    infos = tuple(ImageInfo(size=(h, w), original_size=(h, w)) for h, w in case.facts["sizes"])
    given = None
    if case.facts["proposals"]:
        given = tuple(torch.from_numpy(generate.proposals(case.facts, i)).to(like) for i in range(len(infos)))
    return Batch(images=torch.from_numpy(generate.image_batch(case.facts)).to(like), infos=infos, proposals=given)


def synthetic_targets(case: Case) -> list[Targets]:
    """The case's ground truth, on the detector's device."""
    like = case.detector.preprocess.mean
    targets = []
    for i in range(len(case.facts["sizes"])):
        boxes, labels, masks = generate.ground_truth(case.facts, i)
        truth = Targets(
            boxes=torch.from_numpy(boxes).to(like.dtype),
            labels=torch.from_numpy(labels).long(),
            masks=torch.from_numpy(masks.astype(np.uint8)),
            semantic=torch.from_numpy(generate.semantic_map(case.facts, i)) if case.facts["semantic"] else None,
        )
        targets.append(truth.to(like.device))
    return targets


def file_batch(case: Case) -> Batch:
    """The case's image files through reading, resizing, normalising and padding."""
    long, short = sorted(case.facts["scale"], reverse=True)
    resize = ResizeConfig(scales=((long, short),), keep_ratio=case.facts["keep_ratio"])
    return files_to_batch(case, case.facts["images"], resize)


def files_to_batch(case: Case, names: Sequence[str], config: ResizeConfig) -> Batch:
    """These image files of a case, resized, normalised and padded."""
    images, resize = [], config.build()
    for name in names:
        empty = torch.zeros(0, dtype=torch.long)
        pixels = read_image(HERE / "images" / name)
        sample = Sample(image=pixels, boxes=torch.zeros(0, 4), labels=empty, ignored=empty.bool(), file=name)
        images.append(prepare(sample, [resize], Key()))
    return to_batch(case.detector, images)


def detections(detector: Detector, batch: Batch) -> list[Detections]:
    """What a detector finds, on the CPU."""
    return [found.to("cpu") for found in detector.predict(batch)]


@contextmanager
def given_features(detector: Detector, features: Sequence[Tensor]) -> Iterator[Detector]:
    """The detector, which has these features computed already."""
    detector.features = lambda batch: list(features)  # type: ignore[method-assign]
    try:
        yield detector
    finally:
        del detector.features


def sample_of(x: Tensor, count: int) -> np.ndarray:
    """Every k-th of the flattened values, k = numel // count, the first `count`."""
    flat = x.detach().flatten()
    return flat[:: max(1, flat.numel() // count)][:count].double().cpu().numpy()


def golden_detections(case: Case, i: int) -> Detections:
    """The reference's detections of image i; masks are those of the first 20."""
    golden = case.golden
    masks = None
    if f"det{i}.masks" in golden:
        shape = golden[f"det{i}.mask_shape"]
        bits = np.unpackbits(golden[f"det{i}.masks"])[: int(np.prod(shape))]
        masks = torch.from_numpy(bits.reshape(shape).astype(bool))
    return Detections(
        boxes=torch.from_numpy(golden[f"det{i}.boxes"]),
        scores=torch.from_numpy(golden[f"det{i}.scores"]),
        labels=torch.from_numpy(golden[f"det{i}.labels"]),
        masks=masks,
    )


def matched(found: Detections, wanted: Detections, iou: float, score: float) -> list[tuple[int, int]]:
    """Pairs (found, wanted), each used once: same label, IoU above `iou`, scores within `score`; best overlap first."""
    overlap = box_iou(found.boxes.double(), wanted.boxes.double())
    fits = (found.labels[:, None] == wanted.labels[None]) & (
        (found.scores[:, None].double() - wanted.scores[None].double()).abs() <= score
    )
    overlap = torch.where(fits & (overlap > iou), overlap, torch.zeros_like(overlap))
    pairs = []
    for j in range(len(wanted)):
        i = int(overlap[:, j].argmax()) if len(found) else 0
        if len(found) and overlap[i, j] > 0:
            pairs.append((i, j))
            overlap[i] = 0
    return pairs


# Where a failure begins


@contextmanager
def _watch(detector: Detector, seen: list[tuple[str, Tensor]]) -> Iterator[None]:
    """Collect what each stage gives while a detector predicts, in the order in which it happens."""

    def keep(stage: str) -> Any:
        return lambda module, inputs, output: seen.extend((stage, t) for t in _tensors(output))

    stages: list[tuple[str, torch.nn.Module | None]] = [
        ("backbone", detector.backbone),
        ("neck", detector.neck),
        ("dense outputs", detector.dense_head),
    ]
    stages += [("RoI features", m) for m in detector.modules() if isinstance(m, RoIPool)]
    stages += [("head outputs", m) for m in detector.modules() if isinstance(m, (BoxHead, MaskHead))]
    handles = [module.register_forward_hook(keep(stage)) for stage, module in stages if module is not None]
    if detector.roi_head is not None:
        original = detector.roi_head.predict

        def predict(features: Sequence[Tensor], proposals: Sequence[Tensor], batch: Batch) -> list[Detections]:
            seen.extend(("proposals", p) for p in proposals)
            return original(features, proposals, batch)

        detector.roi_head.predict = predict  # type: ignore[method-assign]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        if detector.roi_head is not None:
            del detector.roi_head.predict


def _tensors(value: Any) -> list[Tensor]:
    """The floating-point tensors in a result, in order."""
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in _tensors(v)]
    if hasattr(value, "__attrs_attrs__"):
        names = [a.name for a in value.__attrs_attrs__ if a.name != "anchors"]
        return [t for name in names for t in _tensors(getattr(value, name))]
    return []


def trace(detector: Detector, batch: Batch) -> dict[str, np.ndarray]:
    """A fingerprint of every stage in order: shape, sum of absolute values and 64 samples of each tensor."""
    seen: list[tuple[str, Tensor]] = [("input", batch.images)]
    detector.eval()
    with _watch(detector, seen):
        found = detector.predict(batch)
    for detections in found:
        seen += [("detections", t) for t in (detections.boxes, detections.scores, detections.labels.double())]
    marks: dict[str, np.ndarray] = {}
    for number, (stage, x) in enumerate(seen):
        head = [float(x.double().abs().sum()), *x.shape]
        marks[f"{number:03d} {stage}"] = np.concatenate([[len(head)], head, sample_of(x, 64) if x.numel() else []])
    return marks


def first_departure(marks: dict[str, np.ndarray], recorded: dict[str, np.ndarray], rtol: float = 1e-4) -> str:
    """The first fingerprint that is not as recorded: its number and stage; empty if all are."""
    for name in sorted({*marks, *recorded}):
        a, b = marks.get(name), recorded.get(name)
        if a is None or b is None or a.shape != b.shape:
            return name[4:]
        if not np.allclose(a, b, rtol=rtol, atol=rtol * max(1e-6, np.abs(b[2:]).max())):
            return name[4:]
    return ""


def batch_of(case: Case) -> Batch:
    """The case's input, from files or synthetic."""
    return file_batch(case) if case.name.startswith("pipeline_") else synthetic_batch(case)


def explain(case: Case) -> str:
    """Which stage of a failing case departs first."""
    recorded = dict(np.load(HERE / "stages" / f"{case.name}.npz"))
    return f"first departure: {first_departure(trace(case.detector, batch_of(case)), recorded) or 'none'}"


def record(names: Sequence[str]) -> None:
    """Write the stage fingerprints of cases that pass: `python tests/parity/golden.py NAME...`."""
    (HERE / "stages").mkdir(exist_ok=True)
    for name in names:
        case = load_case(name)
        np.savez_compressed(HERE / "stages" / f"{name}.npz", **trace(case.detector, batch_of(case)))
        print(f"recorded {name}")


if __name__ == "__main__":
    record(sys.argv[1:] or list(RECIPES))
