"""The form on one level, which no reference results cover: composed here by hand from parts that have some.

Pooling, the shared last stage, box and mask heads and the pasting of masks are the model's own; assignment, coding,
losses, refinement, averaging and suppression are written out. All in float64, with every region sampled.
"""

from __future__ import annotations

import pytest
import torch
import torchvision
from attrs import evolve
from torch import Tensor
from torch.nn import functional as F

import det_ops
from det_core.boxes.box_config import RandomSamplerConfig
from det_core.structures import Batch, Targets
from det_core.testing.box_formulas import box_stds, decode, encode, pairwise_iou

STAGES = ((0.5, 0.1, 0.2, 1.0), (0.6, 0.05, 0.1, 0.5), (0.7, 0.033, 0.067, 0.25))  # IoU, spreads, weight
K = 3


def rois_of(boxes: list[Tensor]) -> Tensor:
    return torch.cat([torch.cat([torch.full((len(b), 1), float(i)).double(), b], 1) for i, b in enumerate(boxes)])


@pytest.fixture(params=["c4", "c4 mask"])
def setting(tiny, request):
    """A detector whose stages move boxes by some pixels, a batch, targets, features and proposals."""
    config = tiny.heads[request.param]
    everything = RandomSamplerConfig(count=1_000_000, positive_fraction=0.25)
    config = evolve(config, score_threshold=0.2, stages=tuple(evolve(s, sampler=everything) for s in config.stages))
    detector = tiny.build(config).double()
    torch.manual_seed(3)
    for head in detector.roi_head.box_heads:
        torch.nn.init.normal_(head.deltas.weight, std=0.03)
        torch.nn.init.normal_(head.scores.weight, std=0.05)
    batch = tiny.batch()
    batch = Batch(images=batch.images.double(), infos=batch.infos)
    targets = [t.to("cpu", torch.float64) for t in tiny.targets(batch, (3, 2))]
    generator = torch.Generator().manual_seed(5)
    proposals = []
    for target, found in zip(targets, tiny.proposals(batch, targets), strict=True):
        near = target.boxes.repeat(4, 1)
        near = near + torch.randn(near.shape, generator=generator).double() * 2
        proposals.append(torch.cat([near, found.double()]))
    with torch.no_grad():
        features = detector.features(batch)
    return detector.roi_head, features, proposals, targets, batch


def assign(boxes: Tensor, target: Targets, iou: float) -> tuple[Tensor, Tensor]:
    """Objects (r,) and labels (r,), K and object 0 where a box stands for none."""
    best, objects = pairwise_iou(boxes, target.boxes).max(1)
    labels = torch.where(best >= iou, target.labels[objects], K)
    return torch.where(best >= iou, objects, 0), labels


def mask_loss(logits: Tensor, labels: Tensor, boxes: list[Tensor], objects: list[Tensor], targets: list[Targets]):
    """Of the positive regions' own classes, in the mean."""
    wanted = []
    for b, o, target in zip(boxes, objects, targets, strict=True):
        rois = torch.cat([o[:, None].double(), b], 1)
        crops = torchvision.ops.roi_align(target.masks[:, None].double(), rois, (8, 8), 1.0, -1, aligned=True)
        wanted.append((crops[:, 0] >= 0.5).double())
    own = logits[torch.arange(len(labels)), labels]
    return F.binary_cross_entropy_with_logits(own, torch.cat(wanted))


def test_losses_of_every_stage(setting):
    head, features, proposals, targets, batch = setting
    expected, moved = {}, []
    for i, (iou, centre, size, weight) in enumerate(STAGES):
        stds = box_stds(centre, size)
        boxes, objects, labels = [], [], []
        for given, target in zip(proposals, targets, strict=True):
            o, label = assign(given, target, iou)
            boxes.append(torch.cat([target.boxes, given]))  # the objects' own boxes first, each its own
            objects.append(torch.cat([torch.arange(len(target)), o]))
            labels.append(torch.cat([target.labels, label]))
        regions = head.trunk(head.roi_pool(features, rois_of(boxes)))
        outputs = head.box_heads[i](regions)
        all_labels = torch.cat(labels)
        positive = all_labels < K
        matched = torch.cat([t.boxes[o] for t, o in zip(targets, objects, strict=True)])
        deltas = encode(torch.cat(boxes), matched, stds)[positive]
        expected[f"stage{i + 1}_cls"] = weight * F.cross_entropy(outputs.scores, all_labels)
        box = F.smooth_l1_loss(outputs.deltas[positive], deltas, reduction="sum")
        expected[f"stage{i + 1}_box"] = weight * box / len(all_labels)
        if len(head.mask_heads):
            logits = head.mask_heads[i](regions[positive])
            kept = [(b[x < K], o[x < K]) for b, o, x in zip(boxes, objects, labels, strict=True)]
            loss = mask_loss(logits, all_labels[positive], [k[0] for k in kept], [k[1] for k in kept], targets)
            expected[f"stage{i + 1}_mask"] = weight * loss
        refined, start = [], 0
        for b, target, info in zip(boxes, targets, batch.infos, strict=True):
            own = outputs.deltas[start : start + len(b)].detach()
            refined.append(decode(b, own, stds, info.size)[len(target) :])
            start += len(b)
        moved.append((refined[0] - proposals[0]).abs().max().item())
        proposals = refined
    assert min(moved) > 0.5  # pixels: each stage refines something
    found = head.losses(features, setting[2], targets, batch)
    assert {k: t.value().item() for k, t in found.items()} == pytest.approx(
        {k: v.item() for k, v in expected.items()}, rel=1e-9
    )


def test_detections(setting):
    head, features, proposals, _, batch = setting
    head.eval()
    boxes, logits = list(proposals), torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for i, (_, centre, size, _) in enumerate(STAGES):
            outputs = head.box_heads[i](head.trunk(head.roi_pool(features, rois_of(boxes))))
            logits = logits + outputs.scores / 3
            deltas = outputs.deltas.split([len(b) for b in boxes])
            rows = zip(boxes, deltas, batch.infos, strict=True)
            boxes = [decode(b, d, box_stds(centre, size), info.size) for b, d, info in rows]
        scores = logits.softmax(1).split([len(b) for b in boxes])
        found = head.predict(features, proposals, batch)
    assert min(len(d) for d in found) > 3
    for image, (b, s, info, ours) in enumerate(zip(boxes, scores, batch.infos, found, strict=True)):
        rows = []
        for label in range(K):
            above = (s[:, label] > 0.2).nonzero().flatten()
            kept = above[torchvision.ops.nms(b[above], s[above, label], 0.5)]
            rows += [(s[k, label].item(), label, b[k]) for k in kept.tolist()]
        rows.sort(key=lambda row: -row[0])
        assert ours.labels.tolist() == [row[1] for row in rows]
        assert ours.scores.tolist() == pytest.approx([row[0] for row in rows], rel=1e-9)
        final = torch.stack([row[2] for row in rows])
        y, x = info.scale
        original = final / torch.tensor([x, y, x, y], dtype=torch.float64)
        assert torch.allclose(ours.boxes, original, rtol=1e-9)
        if len(head.mask_heads):
            regions = head.trunk(head.roi_pool([f[image : image + 1] for f in features], rois_of([final])))
            own = torch.arange(len(rows)), ours.labels
            mean = sum(m(regions)[own].sigmoid() for m in head.mask_heads) / 3
            assert torch.equal(ours.masks, det_ops.paste_masks(mean, original, info.original_size))
