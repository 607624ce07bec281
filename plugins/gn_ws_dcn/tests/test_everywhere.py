"""These convolutions in every place of every model that takes one: its small recipe learns with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from det_core.data.data_config import ResizeConfig
from det_core.data.loader import prepare
from det_core.engine.predict import to_batch, to_targets
from det_core.load import load_recipe, recipe_from_plain
from det_core.recipe import Recipe
from det_core.structures import Key
from det_plugin_gn_ws_dcn.convolution import DeformConv2d, WSConv2d

DEMOS = [
    "rpn/r18-fpn-demo",
    "mask-rcnn/r18-fpn-demo",
    "cascade-mask-rcnn/r18-fpn-demo",
    "htc/r18-fpn-demo",
    "retinanet/r18-fpn-demo",
    "ga-retinanet/r18-fpn-demo",
    "ssd/vgg16-demo",
]
CONVOLUTIONS = {
    "standardised": ({"type": "ws_conv2d"}, WSConv2d),
    "modulated": ({"type": "deform_conv2d", "modulated": True}, DeformConv2d),
}


def with_convolution(name: str, conv: dict[str, Any]) -> tuple[Recipe, int]:
    """A recipe with every `conv` of the neck and behind it of this kind, and how many settings that were."""
    plain = load_recipe(name).to_plain()
    count = 0

    def change(node: Any) -> None:
        nonlocal count
        for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            if key == "conv":
                node[key] = conv
                count += 1
            else:
                change(value)

    for part in ("neck", "dense_head", "roi_head"):
        change(plain["detector"][part])
    return recipe_from_plain(plain), count


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("name", DEMOS)
def test_every_parameter_has_a_gradient(name: str, kind: str) -> None:
    conv, layer = CONVOLUTIONS[kind]
    recipe, count = with_convolution(name, conv)
    assert count > 0
    torch.manual_seed(0)
    detector = recipe.detector.build(num_classes=1)
    assert sum(isinstance(module, layer) for module in detector.modules()) >= count
    data = recipe.open_train()
    resize = ResizeConfig(scales=((96, 96),), keep_ratio=False).build()
    loaded = [prepare(data.load(i), [resize], Key(index=i)) for i in range(2)]
    batch = to_batch(detector, loaded)
    terms = detector.train().losses(batch, to_targets(batch, loaded))
    total = sum((term.value() for term in terms.values()), torch.zeros(()))
    assert total.isfinite()
    total.backward()
    assert [name for name, p in detector.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    assert len(detector.eval().predict(batch)) == 2
