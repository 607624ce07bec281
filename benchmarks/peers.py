"""torchvision's detectors and the same ones here, with one set of weights.

The weights are random, but scaled so that scores spread: a proposal network that proposes 1000 boxes, and classes that
leave as many (region, class) pairs above the score threshold as asked for, as a trained detector does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor, nn
from torchvision.models.detection import (
    fasterrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn,
    retinanet_resnet50_fpn,
    ssd300_vgg16,
)
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d

from det_core import Batch, Detections, Detector, Targets, for_inference, load_recipe
from det_core.engine.parameter_groups import build_optimizer
from det_core.engine.predict import autocast
from det_core.model.memory_layout import to_channels_last
from det_core.optim.optimizer_config import SGDConfig
from det_core.structures import ImageInfo
from det_core.weights.fill_detector import import_weights

CLASSES = 80
OBJECTS = 10


@frozen(eq=False)
class Inputs:
    """Normalised, padded images and ground truth of each."""

    batch: Batch
    targets: tuple[Targets, ...]


def make_inputs(size: tuple[int, int], count: int, divisor: int = 32) -> Inputs:
    """Smooth random images (what borders on each other is alike, as in photographs) with boxes and masks."""
    rng = torch.Generator().manual_seed(0)
    height, width = size
    padded = [-(-side // divisor) * divisor for side in size]
    coarse = torch.randn(count, 3, height // 16 + 2, width // 16 + 2, generator=rng)
    images = torch.zeros(count, 3, *padded)
    images[:, :, :height, :width] = nn.functional.interpolate(coarse, size, mode="bilinear")
    infos = tuple(ImageInfo(size=size, original_size=size) for _ in range(count))
    return Inputs(Batch(images=images, infos=infos), tuple(_objects(size, rng) for _ in range(count)))


def _objects(size: tuple[int, int], rng: torch.Generator) -> Targets:
    extent = torch.tensor([size[1], size[0]], dtype=torch.float32)
    low = torch.rand(OBJECTS, 2, generator=rng) * extent * 0.6
    boxes = torch.cat([low, low + 16 + torch.rand(OBJECTS, 2, generator=rng) * extent * 0.35], 1)
    masks = torch.zeros(OBJECTS, *size, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.long().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    return Targets(boxes=boxes, labels=torch.randint(0, CLASSES, (OBJECTS,), generator=rng), masks=masks)


class GivenImages(nn.Module):
    """Stands in for torchvision's resizing and normalising: the images are as the network wants them."""

    def __init__(self, transform: nn.Module) -> None:
        super().__init__()
        self.postprocess: Callable[..., Any] = transform.postprocess

    def forward(self, images: list[Tensor], targets: Any = None) -> tuple[ImageList, Any]:
        """The padded images with the sizes of what is in them."""
        return ImageList(torch.stack(images), self.sizes), targets

    sizes: list[tuple[int, int]]


@frozen(eq=False)
class Pair:
    """A detector of ours and torchvision's, same weights, and what to feed them."""

    ours: Detector
    theirs: nn.Module
    inputs: Inputs
    first_label: int = 1  # of torchvision's; most of its models have background as 0
    precision: str = "fp32"  # or bf16: both run under autocast

    def to(self, device: str) -> Pair:
        """The pair, its images and objects on a device."""
        batch = evolve(self.inputs.batch, images=self.inputs.batch.images.to(device))
        inputs = Inputs(batch, tuple(t.to(device) for t in self.inputs.targets))
        return evolve(self, ours=self.ours.to(device), theirs=self.theirs.to(device), inputs=inputs)

    def compile(self, backend: str = "inductor") -> None:
        """Compile what comes before the heads, in both."""
        for part in (self.ours.backbone, self.ours.neck, self.theirs.backbone):
            if isinstance(part, nn.Module):
                part.compile(backend=backend)

    def cast(self) -> AbstractContextManager[object]:
        """Autocast to the pair's precision."""
        return autocast(self.inputs.batch.images.device, self.precision)

    def infer_ours(self) -> list[Detections]:
        """Detections of our detector as it trains, put into evaluation mode."""
        with self.cast():
            found = self.ours.eval()(self.inputs.batch)
        assert isinstance(found, list)
        return found

    def infer_fixed(self) -> Callable[[], list[Detections]]:
        """Detections of our detector made for inference, as `det-core test` and `predict` run it."""
        fixed = for_inference(self.ours)

        def infer() -> list[Detections]:
            with self.cast():
                return fixed.predict(self.inputs.batch)

        infer()  # the first time it folds and packs
        return infer

    @torch.no_grad()
    def infer_theirs(self) -> list[dict[str, Tensor]]:
        """Detections of torchvision's."""
        images = list(self.inputs.batch.images)
        with self.cast():
            found: list[dict[str, Tensor]] = self.theirs.eval()(images)
        return found

    def trainer_ours(self) -> Callable[[], None]:
        """A step of our detector: losses, gradients, SGD."""
        optimizer = build_optimizer(SGDConfig(lr=1e-9, momentum=0.9, weight_decay=0.0), self.ours)

        def step() -> None:
            self.ours.train()
            with self.cast():
                terms = self.ours(self.inputs.batch, self.inputs.targets)
            sum(term.value() for term in terms.values()).backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    def trainer_theirs(self) -> Callable[[], None]:
        """The same of torchvision's."""
        optimizer = fused_sgd(self.theirs)
        targets = [
            {"boxes": t.boxes, "labels": t.labels + self.first_label, "masks": t.masks} for t in self.inputs.targets
        ]
        images = list(self.inputs.batch.images)

        def step() -> None:
            self.theirs.train()
            with self.cast():
                losses: Mapping[str, Tensor] = self.theirs(images, targets)
            sum(losses.values()).backward()  # type: ignore[union-attr]
            optimizer.step()
            optimizer.zero_grad()

        return step


def fused_sgd(model: nn.Module) -> torch.optim.Optimizer:
    """torch's fastest for weights in torchvision's layout; so small a rate that they stay what they are."""
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-9, momentum=0.9, fused=True)


def make_pair(model: str, inputs: Inputs, candidates: int) -> Pair:
    """Both detectors; `candidates` pairs of region and class per image score above the threshold."""
    theirs = MAKERS[model](inputs, candidates)
    config = load_recipe(RECIPES[model]).detector
    backbone: Any = evolve(config.backbone, pretrained=None)  # type: ignore[call-arg]
    if model != "ssd300":
        backbone = evolve(backbone, norm=evolve(backbone.norm, eps=1e-5))
        for name, module in theirs.backbone.body.named_children():  # the same layers stay frozen
            module.requires_grad_(name in ("layer2", "layer3", "layer4"))
    ours = evolve(config, backbone=backbone).build(num_classes=CLASSES)
    to_channels_last(ours)  # as training and `load_detector` do
    import_weights(theirs.state_dict(), source="torchvision", detector=ours)
    return Pair(ours, theirs, inputs, first_label=0 if model == "retinanet" else 1)


def _rcnn(make: Callable[..., nn.Module]) -> Callable[[Inputs, int], nn.Module]:
    def build(inputs: Inputs, candidates: int) -> nn.Module:
        torch.manual_seed(0)
        theirs: Any = make(weights=None, weights_backbone=None, num_classes=CLASSES + 1)
        give_images(theirs, inputs)
        with torch.no_grad():
            fill_statistics(theirs.backbone, inputs.batch.images)
            spread_rcnn(theirs, inputs, candidates)
        freeze_norms(theirs)
        return theirs.eval()

    return build


def fill_statistics(backbone: nn.Module, images: Tensor) -> None:
    """Running statistics of these images, so that features keep one size from layer to layer."""
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        norm.train()
    backbone(images)
    backbone.eval()


def freeze_norms(model: nn.Module) -> None:
    """Every batch norm becomes torchvision's frozen one, as its training code has it."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            frozen_norm = FrozenBatchNorm2d(module.num_features, eps=module.eps)
            state = {k: v for k, v in module.state_dict().items() if k != "num_batches_tracked"}
            frozen_norm.load_state_dict(state)
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, frozen_norm)


def spread_rcnn(theirs: Any, inputs: Inputs, candidates: int) -> None:
    """Scores of proposals and classes that differ, deltas of a trained model's size."""
    heads = theirs.roi_heads
    stds = {theirs.rpn.head.conv[0][0]: 0.02, theirs.rpn.head.cls_logits: 0.1, theirs.rpn.head.bbox_pred: 0.01}
    stds |= {heads.box_predictor.bbox_pred: 0.02}
    if heads.mask_predictor is not None:
        stds[heads.mask_predictor.mask_fcn_logits] = 0.1
    for layer, std in stds.items():
        nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
    seen: list[Tensor] = []
    handle = heads.box_head.register_forward_hook(lambda module, args, output: seen.append(output))
    theirs.eval()(list(inputs.batch.images))
    handle.remove()
    scores, hidden = heads.box_predictor.cls_score, seen[0]
    scores.weight *= 2 / (hidden @ scores.weight.T).std(0)[:, None]
    logits = (hidden - hidden.mean(0)) @ scores.weight.T
    scores.bias.copy_(-(hidden.mean(0) @ scores.weight.T))
    scores.bias[0] += background_bias(logits, candidates * len(inputs.batch), heads.score_thresh)


def background_bias(logits: Tensor, wanted: int, threshold: float) -> float:
    """What to add to the first column so that so many other probabilities are above the threshold."""
    low, high = -20.0, 20.0
    for _ in range(30):
        middle = (low + high) / 2
        shifted = logits.clone()
        shifted[:, 0] += middle
        count = int((shifted.softmax(1)[:, 1:] > threshold).sum())
        low, high = (middle, high) if count > wanted else (low, middle)
    return (low + high) / 2


def _retinanet(inputs: Inputs, candidates: int) -> nn.Module:
    torch.manual_seed(0)
    theirs: Any = retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=CLASSES)
    give_images(theirs, inputs)
    classes, boxes = theirs.head.classification_head, theirs.head.regression_head
    with torch.no_grad():
        fill_statistics(theirs.backbone, inputs.batch.images)
        for layer in (*classes.conv.modules(), *boxes.conv.modules()):
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)
        nn.init.normal_(boxes.bbox_reg.weight, std=0.005)
        logits = classes(list(theirs.backbone(inputs.batch.images).values()))
        scale = 2 / logits.std()
        classes.cls_logits.weight *= scale
        wanted = candidates * len(inputs.batch)
        lowest = ((logits - classes.cls_logits.bias[0]) * scale).flatten().topk(wanted).values[-1]
        nn.init.constant_(classes.cls_logits.bias, float(torch.logit(torch.tensor(theirs.score_thresh)) - lowest))
    freeze_norms(theirs)
    return theirs.eval()


def _ssd(inputs: Inputs, candidates: int) -> nn.Module:
    torch.manual_seed(0)
    theirs: Any = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=CLASSES + 1)
    give_images(theirs, inputs)
    with torch.no_grad():
        for layer in theirs.backbone.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        features = list(theirs.backbone(inputs.batch.images).values())
        found = []
        for layer, x in zip(theirs.head.classification_head.module_list, features, strict=True):
            layer.weight *= 2 / layer(x).std()
            nn.init.zeros_(layer.bias)
            found.append(layer(x).unflatten(1, (-1, CLASSES + 1)).movedim(2, -1).flatten(0, -2))
        for layer in theirs.head.regression_head.module_list:
            layer.weight *= 0.1
        bias = background_bias(torch.cat(found), candidates * len(inputs.batch), theirs.score_thresh)
        for layer in theirs.head.classification_head.module_list:
            layer.bias.view(-1, CLASSES + 1)[:, 0] += bias
    return theirs.eval()


def give_images(theirs: Any, inputs: Inputs) -> None:
    """Put `GivenImages` in the place of torchvision's transform."""
    theirs.transform = GivenImages(theirs.transform)
    theirs.transform.sizes = [info.size for info in inputs.batch.infos]


MAKERS = {
    "faster-rcnn": _rcnn(fasterrcnn_resnet50_fpn),
    "mask-rcnn": _rcnn(maskrcnn_resnet50_fpn),
    "retinanet": _retinanet,
    "ssd300": _ssd,
}
RECIPES = {
    "faster-rcnn": "faster-rcnn/torchvision-r50-fpn",
    "mask-rcnn": "mask-rcnn/torchvision-r50-fpn",
    "retinanet": "retinanet/torchvision-r50-fpn",
    "ssd300": "ssd/torchvision-vgg16-300",
}
