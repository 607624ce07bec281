"""Losses and detections of small heads, composed here by hand in float64 from weights and plain torch.

Only the box heads and the pasting of masks are the model's own. Pooling, the semantic branch, mask heads and flows,
assignment, coding, losses, refinement, interleaving, averaging and suppression are written out. Each region is sampled.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision
from attrs import evolve, frozen
from torch import Tensor
from torch.nn import functional as F

import det_ops
from det_core.boxes.box_config import RandomSamplerConfig
from det_core.structures import Batch, Targets
from det_core.testing.box_formulas import box_stds, decode, encode, pairwise_iou
from det_plugin_htc.roi_head import HTCHead

STAGES = ((0.5, 0.1, 0.2, 1.0), (0.6, 0.05, 0.1, 0.5), (0.7, 0.033, 0.067, 0.25))  # IoU, spreads, weight
K = 3
VARIANTS = (
    "htc",
    "without semantic",
    "without interleaving",
    "without flow",
    "the last stage's masks",
    "a box for each class",
    "semantic for boxes",
    "semantic for masks",
    "masks from the boxes' pooling",
)


@frozen(eq=False)
class Setting:
    """What the hand computes with, and what is compared with it."""

    head: HTCHead
    features: list[Tensor]
    proposals: list[Tensor]
    targets: list[Targets]
    batch: Batch


@pytest.fixture(params=VARIANTS)
def setting(tiny: Any, request: pytest.FixtureRequest) -> Setting:
    """A head whose stages move boxes by some pixels, on random features, with proposals near objects and elsewhere."""
    config = tiny.heads[request.param]
    everything = RandomSamplerConfig(count=1_000_000, positive_fraction=0.25)
    config = evolve(config, score_threshold=0.2, stages=tuple(evolve(s, sampler=everything) for s in config.stages))
    torch.manual_seed(0)
    head = config.build(tiny.levels, K).double()
    torch.manual_seed(3)
    for box_head in head.box_heads:
        torch.nn.init.normal_(box_head.deltas.weight, std=0.08)
        torch.nn.init.normal_(box_head.scores.weight, std=0.1)
    for name, parameter in head.named_parameters():
        if name.endswith("bias") and "box_heads" not in name:  # not 0, so that no mask's probability is .5 to the bit
            torch.nn.init.normal_(parameter, std=0.2)
    batch = tiny.batch()
    batch = Batch(images=batch.images.double(), infos=batch.infos)
    targets = [t.to("cpu", torch.float64) for t in tiny.targets(batch, (3, 2))]
    generator, proposals = torch.Generator().manual_seed(5), []
    for target, found in zip(targets, tiny.proposals(batch, targets), strict=True):
        near = target.boxes.repeat(4, 1)
        near = near + torch.randn(near.shape, generator=generator).double() * 2
        proposals.append(torch.cat([near, found.double()]))
    return Setting(head, [f.double() for f in tiny.features(tiny.levels, batch)], proposals, targets, batch)


# the parts, written out


def pooled(features: list[Tensor], boxes: list[Tensor], size: int) -> Tensor:
    """Each box from the level of its size: 112 pixels are the first of the second level."""
    rois = torch.cat([torch.cat([torch.full((len(b), 1), float(i)).double(), b], 1) for i, b in enumerate(boxes)])
    out = []
    for roi in rois:
        side = ((roi[3] - roi[1]) * (roi[4] - roi[2])).sqrt()
        level = min(max(int(torch.floor(torch.log2(side / 56 + 1e-6))), 0), 3)
        out.append(torchvision.ops.roi_align(features[level], roi[None], size, 1 / (4 * 2**level), -1, aligned=True)[0])
    return torch.stack(out)


def conv(layer: Any, x: Tensor) -> Tensor:
    weight = layer.conv.weight
    return F.conv2d(x, weight, layer.conv.bias, padding=weight.shape[-1] // 2).relu()


def semantic_maps(head: HTCHead, features: list[Tensor]) -> tuple[Tensor, Tensor]:
    branch = head.semantic
    size = features[1].shape[-2:]
    x = sum(
        conv(layer, F.interpolate(f, size=size, mode="bilinear", align_corners=True))
        for layer, f in zip(branch.lateral, features, strict=True)
    )
    for layer in branch.convs:
        x = conv(layer, x)
    return F.conv2d(x, branch.logits.weight, branch.logits.bias), conv(branch.embedding, x)


def seen(head: HTCHead, features: list[Tensor], boxes: list[Tensor], size: int, fused: bool) -> Tensor:
    """The regions of boxes with those of the embedding: 14 cells wide, halved where the heads see 7."""
    regions = pooled(features, boxes, size)
    if head.semantic is None or not fused:
        return regions
    embedding = semantic_maps(head, features)[1]
    more = torchvision.ops.roi_align(embedding, boxes, 14, 1 / 8, -1, aligned=True)
    return regions + (more if size == 14 else F.avg_pool2d(more, 2))


def box_regions(head: HTCHead, features: list[Tensor], boxes: list[Tensor]) -> Tensor:
    return seen(head, features, boxes, 7, head.semantic is not None and head.semantic.config.fuse_boxes)


def mask_regions(head: HTCHead, features: list[Tensor], boxes: list[Tensor]) -> Tensor:
    size = 7 if head.config.mask_roi_pool is None else 14
    return seen(head, features, boxes, size, head.semantic is not None and head.semantic.config.fuse_masks)


def mask_logits(head: HTCHead, regions: Tensor, number: int) -> Tensor:
    """Of one stage, with all that flows into it."""

    def features_of(i: int) -> Tensor:
        x = regions
        if head.config.information_flow and i > 0:
            x = x + conv(head.flows[i - 1], features_of(i - 1))
        for layer in head.mask_heads[i].convs:
            x = conv(layer, x)
        return x

    last = head.mask_heads[number]
    up = F.conv_transpose2d(features_of(number), last.upsample.weight, last.upsample.bias, stride=2).relu()
    return F.conv2d(up, last.logits.weight, last.logits.bias)


def assign(boxes: Tensor, target: Targets, iou: float) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (r, 4), objects (r,) and labels (r,), the objects' own boxes in front; K where a box stands for none."""
    best, objects = pairwise_iou(boxes, target.boxes).max(1)
    labels = torch.where(best >= iou, target.labels[objects], K)
    own = torch.arange(len(target))
    return torch.cat([target.boxes, boxes]), torch.cat([own, objects]), torch.cat([target.labels, labels])


def of_class(deltas: Tensor, labels: Tensor) -> Tensor:
    return deltas if deltas.shape[1] == 4 else deltas.view(len(deltas), K, 4)[torch.arange(len(deltas)), labels]


def mask_loss(head: HTCHead, setting: Setting, rows: list[tuple[Tensor, Tensor, Tensor]], number: int) -> Tensor:
    """Of the positive boxes among (boxes, objects, labels) of every image."""
    kept = [(b[x < K], o[x < K], x[x < K]) for b, o, x in rows]
    logits = mask_logits(head, mask_regions(head, setting.features, [k[0] for k in kept]), number)
    wanted = []
    for (b, o, _), target in zip(kept, setting.targets, strict=True):
        rois = torch.cat([o[:, None].double(), b], 1)
        assert target.masks is not None
        crops = torchvision.ops.roi_align(target.masks[:, None].double(), rois, logits.shape[2:], 1.0, -1, aligned=True)
        wanted.append((crops[:, 0] >= 0.5).double())
    own = logits[torch.arange(len(logits)), torch.cat([k[2] for k in kept])]
    return F.binary_cross_entropy_with_logits(own, torch.cat(wanted))


def semantic_loss(head: HTCHead, setting: Setting) -> Tensor:
    logits, _ = semantic_maps(head, setting.features)
    height, width = setting.batch.padded_size
    total, pixels = torch.zeros(()).double(), 0
    for image, target in zip(logits.log_softmax(1), setting.targets, strict=True):
        assert target.semantic is not None
        for row in range(height // 8):
            for column in range(width // 8):
                y, x = 8 * row, 8 * column
                inside = y < target.semantic.shape[0] and x < target.semantic.shape[1]
                pixels += 1
                if inside and target.semantic[y, x] != 255:
                    total = total - image[target.semantic[y, x], row, column]
    return 0.2 * total / pixels


# compared


def test_losses(setting: Setting) -> None:
    head, infos, targets = setting.head, setting.batch.infos, setting.targets
    expected = {} if head.semantic is None else {"semantic": semantic_loss(head, setting)}
    proposals, moved, positives = setting.proposals, [], []
    for i, (iou, centre, size, weight) in enumerate(STAGES):
        stds, name = box_stds(centre, size), f"stage{i + 1}"
        rows = [assign(p, t, iou) for p, t in zip(proposals, targets, strict=True)]
        boxes, objects, labels = zip(*rows, strict=True)
        outputs = head.box_heads[i](box_regions(head, setting.features, list(boxes)))
        told = torch.cat(labels)
        positive = told < K
        matched = torch.cat([t.boxes[o] for t, o in zip(targets, objects, strict=True)])
        wanted = encode(torch.cat(boxes), matched, stds)[positive]
        expected[f"{name}_cls"] = weight * F.cross_entropy(outputs.scores, told)
        said = of_class(outputs.deltas[positive], told[positive])
        expected[f"{name}_box"] = weight * F.smooth_l1_loss(said, wanted, reduction="sum") / len(told)
        chosen = torch.where(positive, told, outputs.scores[:, :K].argmax(1))
        deltas = of_class(outputs.deltas.detach(), chosen).split([len(b) for b in boxes])
        refined = [
            decode(b, d, stds, info.size)[len(t) :] for b, d, t, info in zip(boxes, deltas, targets, infos, strict=True)
        ]
        again = [assign(p, t, iou) for p, t in zip(refined, targets, strict=True)]
        expected[f"{name}_mask"] = weight * mask_loss(head, setting, again if head.config.interleaved else rows, i)
        moved.append((refined[0] - proposals[0]).abs().max().item())
        positives.append([int((x[2] < K).sum()) for x in (*rows, *again)])
        proposals = refined
    assert min(moved) > 0.5  # pixels: each stage refines something
    assert any(p[:2] != p[2:] for p in positives)  # and gains or loses objects by it
    found = head.losses(setting.features, setting.proposals, targets, setting.batch)
    assert {k: t.value().item() for k, t in found.items()} == pytest.approx(
        {k: v.item() for k, v in expected.items()}, rel=1e-9
    )


def test_detections(setting: Setting) -> None:
    head, infos = setting.head.eval(), setting.batch.infos
    boxes, logits = list(setting.proposals), torch.zeros(()).double()
    with torch.no_grad():
        for i, (_, centre, size, _) in enumerate(STAGES):
            outputs = head.box_heads[i](box_regions(head, setting.features, boxes))
            logits = logits + outputs.scores / 3
            counts = [len(b) for b in boxes]
            every = outputs.deltas.view(sum(counts), -1, 4).expand(-1, K, 4)  # the same for all classes, if agnostic
            last = list(zip(boxes, every.split(counts), infos, strict=True))
            final = [
                torch.stack([decode(b, d[:, k], box_stds(centre, size), info.size) for k in range(K)], 1)
                for b, d, info in last
            ]
            best = outputs.scores[:, :K].argmax(1).split(counts)
            boxes = [f[torch.arange(len(f)), k] for f, k in zip(final, best, strict=True)]
        scores = logits.softmax(1).split(counts)
        found = head.predict(setting.features, setting.proposals, setting.batch)
        assert min(len(d) for d in found) > 3
        for image, (b, s, info, ours) in enumerate(zip(final, scores, infos, found, strict=True)):
            rows = []
            for label in range(K):
                above = (s[:, label] > 0.2).nonzero().flatten()
                kept = above[torchvision.ops.nms(b[above, label], s[above, label], 0.5)]
                rows += [(s[k, label].item(), label, b[k, label]) for k in kept.tolist()]
            rows.sort(key=lambda row: -row[0])
            assert ours.labels.tolist() == [row[1] for row in rows]
            assert ours.scores.tolist() == pytest.approx([row[0] for row in rows], rel=1e-9)
            final_boxes = torch.stack([row[2] for row in rows])
            y, x = info.scale
            original = final_boxes / torch.tensor([x, y, x, y], dtype=torch.float64)
            assert torch.allclose(ours.boxes, original, rtol=1e-9)
            alone = [f[image : image + 1] for f in setting.features]
            regions = mask_regions(head, alone, [final_boxes])
            own = torch.arange(len(rows)), ours.labels
            shown = (0, 1, 2) if head.config.masks_of == "all" else (2,)
            mean = sum(mask_logits(head, regions, n)[own].sigmoid() for n in shown) / len(shown)
            assert ours.masks is not None
            assert torch.equal(ours.masks, det_ops.paste_masks(mean, original, info.original_size))
            assert 0 < ours.masks.sum() < ours.masks.numel()
