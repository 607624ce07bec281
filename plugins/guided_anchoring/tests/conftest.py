"""Small scenes for heads with guided anchors: two levels of few channels, images of two sizes in one batch."""

from __future__ import annotations

import pytest
import torch
from attrs import evolve
from torch import Tensor

from det_core.contracts import DenseHead, Losses
from det_core.specs import FeatureSpec
from det_core.structures import Batch, Detections, Targets
from det_core.testing import contract_checks
from det_core.testing.tiny_inputs import make_batch, make_features
from det_plugin_guided_anchoring.retinanet import GARetinaNetHead
from det_plugin_guided_anchoring.rpn import GARPN


class Scene:
    """Inputs from fixed seeds, and what heads make of them."""

    spec = FeatureSpec(channels=(8, 8), strides=(8, 16))
    sizes = ((64, 96), (48, 80))

    def batch(self) -> Batch:
        """Two images, shown at half of their height."""
        return make_batch(2, self.sizes[0], last_size=self.sizes[1], scale=(0.5, 1.0))

    def features(self, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """Two levels (2, 8, h, w)."""
        return [x.to(dtype) for x in make_features(self.spec, self.batch())]

    def objects(self, count: int, seed: int = 0, classes: int = 3) -> Targets:
        """Boxes of 6 to 46 pixels."""
        generator = torch.Generator().manual_seed(seed)
        corners = torch.rand(count, 2, generator=generator) * torch.tensor([60.0, 30.0])
        sides = 6 + 40 * torch.rand(count, 2, generator=generator)
        return Targets(boxes=torch.cat([corners, corners + sides], 1), labels=torch.arange(count) % classes)

    def lively(self, head: GARPN | GARetinaNetHead) -> GARPN | GARetinaNetHead:
        """The head in float64 and evaluation mode; scores and shapes differ a lot, about half of the cells are kept."""
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in head.double().parameters():
                fan = max(1, parameter[0].numel()) if parameter.dim() > 1 else 1
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / fan**0.5)
            head.prediction.location.bias.fill_(-4.6)
            head.deltas.weight.mul_(0.2)
        return head.eval()

    def alone(self, batch: Batch, row: int) -> Batch:
        """One image of a batch, in its padding."""
        return evolve(batch, images=batch.images[row : row + 1], infos=(batch.infos[row],))

    def backward(self, head: DenseHead, terms: Losses) -> dict[str, float]:
        """The losses as numbers; every parameter has got a finite gradient."""
        return contract_checks.check_backward(head, terms)

    def same(self, found: Detections, wanted: Detections, atol: float = 1e-4) -> bool:
        """Whether these are the same detections in the same order."""
        return (
            len(found) == len(wanted)
            and torch.equal(found.labels, wanted.labels)
            and torch.allclose(found.boxes, wanted.boxes, atol=atol)
            and torch.allclose(found.scores, wanted.scores, atol=1e-5)
        )


@pytest.fixture
def scene() -> Scene:
    return Scene()
