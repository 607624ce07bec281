"""Contract checks for the tests of plugins.

`check_backbone(MyConfig())` etc. build a part, with two class counts if it has classes, and raise AssertionError with
the broken contract. `check_component(config)` runs the check of the part's slot, and `check_plugin("my_plugin")` checks
everything that an installed plugin provides. The checks of layers, losses, data sets, transforms, evaluators,
optimisers and learning rates are in modules of their own and importable from here.

Letters: N images, R regions, K foreground classes. Inputs are small, from fixed seeds, on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from det_core.contracts import (
    Backbone,
    BoxHead,
    BoxOutputs,
    DenseHead,
    Losses,
    MaskHead,
    ProposalHead,
    RoIHead,
    class_dependent,
    is_within,
)
from det_core.model.detector import Detector
from det_core.model.detector_config import DetectorConfig
from det_core.offers import RecipeEntry
from det_core.plugins import PluginState, plugin_manager
from det_core.recipe import Recipe
from det_core.settings import Component, evolve, fields_of
from det_core.slots import (
    SLOTS,
    BackboneConfig,
    BoxHeadConfig,
    ConvConfig,
    DatasetConfig,
    DenseHeadConfig,
    EvaluatorConfig,
    LearningRateConfig,
    LossConfig,
    MaskHeadConfig,
    NeckConfig,
    NormConfig,
    OptimizerConfig,
    RoIHeadConfig,
    RoIPoolConfig,
    TransformConfig,
    TrunkConfig,
)
from det_core.specs import FeatureSpec, RegionSpec
from det_core.structures import Batch, Detections, LossTerm
from det_core.testing.config_checks import (
    check_config as check_config,
    check_import_light as check_import_light,
    check_round_trip,
    equal,
    who,
)
from det_core.testing.dataset_checks import check_dataset as check_dataset
from det_core.testing.evaluator_checks import check_evaluator as check_evaluator
from det_core.testing.layer_checks import check_conv as check_conv, check_norm as check_norm
from det_core.testing.module_checks import (
    built,
    check_finite,
    check_gradients,
    check_module,
    check_saving,
)
from det_core.testing.tiny_inputs import (
    PYRAMID,
    REGIONS,
    STAGES,
    make_batch,
    make_features,
    make_proposals,
    make_targets,
)
from det_core.testing.training_checks import (
    check_learning_rate as check_learning_rate,
    check_loss as check_loss,
    check_optimizer as check_optimizer,
)
from det_core.testing.transform_checks import check_transform as check_transform

CLASS_COUNTS = (3, 5)


# One function per slot


def check_backbone(config: BackboneConfig) -> None:
    """Check the spec, gradients, autocast, save and load, configuration and light import of a backbone."""
    check_config(config)
    batch = make_batch()
    channels, images = config.input_channels(), batch.images
    if channels != images.shape[1]:
        images = images[:, :1].repeat(1, channels, 1, 1)
    _check_maps(config, config.build, config.feature_spec(), lambda m: list(m(images)), batch)
    _check_layers(config, config.build())


def _check_layers(config: BackboneConfig, module: Backbone) -> None:
    """If a backbone has layers, each of its parameters must be in exactly one."""
    layers = module.layers()
    for name, _ in module.named_parameters() if layers else ():
        places = [n for n, layer in enumerate(layers) if is_within(name, layer)]
        assert len(places) == 1, f"{who(config)}: parameter {name} is in layers {places}, expected exactly one"


def check_neck(config: NeckConfig, inputs: FeatureSpec = STAGES) -> None:
    """Check the spec, gradients, autocast, save and load, configuration and light import of a neck."""
    check_config(config)
    batch = make_batch()
    features = make_features(inputs, batch)
    _check_maps(config, partial(config.build, inputs), config.feature_spec(inputs), lambda m: list(m(features)), batch)


def check_roi_pool(config: RoIPoolConfig, inputs: FeatureSpec = PYRAMID) -> None:
    """Check the spec, empty input, gradients, save and load of a RoI pooling layer."""
    check_config(config)
    batch = make_batch()
    features = make_features(inputs, batch)
    rois = _rois(make_proposals(batch, make_targets(batch, 1)))
    build, spec = partial(config.build, inputs), config.region_spec(inputs)
    _check_regions(config, build, spec, lambda m, count: m(features, rois[:count]), len(rois))


def check_trunk(config: TrunkConfig, inputs: RegionSpec = REGIONS) -> None:
    """Check the spec, empty input, gradients, autocast, save and load of a RoI head's shared stage."""
    check_config(config)
    build, spec = partial(config.build, inputs), config.region_spec(inputs)
    _check_regions(config, build, spec, lambda m, count: m(_regions(inputs, count)), 4)


def check_box_head(config: BoxHeadConfig, inputs: RegionSpec = REGIONS) -> None:
    """Check the shapes (also of empty input), class counts, gradients, autocast, save and load of a box head."""

    def check(module: BoxHead, k: int, count: int) -> None:
        out = module(_regions(inputs, count))
        assert isinstance(out, BoxOutputs), f"{who(config)}: forward gives {type(out).__name__}, not BoxOutputs"
        equal(config, f"scores of {count} regions", tuple(out.scores.shape), (count, k + 1))
        deltas = 4 if module.class_agnostic else 4 * k
        equal(config, f"deltas of {count} regions", tuple(out.deltas.shape), (count, deltas))

    _check_region_head(config, inputs, check)


def check_mask_head(config: MaskHeadConfig, inputs: RegionSpec = REGIONS) -> None:
    """Check the shapes (also of empty input), class counts, gradients, autocast, save and load of a mask head."""

    def check(module: MaskHead, k: int, count: int) -> None:
        shape = tuple(module(_regions(inputs, count)).shape)
        equal(config, f"masks of {count} regions", shape, (count, 1 if module.class_agnostic else k, *module.size))

    _check_region_head(config, inputs, check)


def check_dense_head(config: DenseHeadConfig, inputs: FeatureSpec = PYRAMID) -> None:
    """Check the losses with and without objects, detections, proposals, class counts, autocast, save and load."""
    check_config(config)
    config.check(inputs)
    batch = make_batch()
    features = make_features(inputs, batch)

    def check(head: DenseHead[Any], k: int) -> None:
        _check_losses(config, head, lambda e: head.losses(head(features), make_targets(batch, k, empty=e), batch))
        with torch.no_grad():
            _check_detections(config, head.predict(head(features), batch), batch, k)
            if isinstance(head, ProposalHead):
                _check_proposals(config, head, head(features), batch)

    _check_with_classes(config, partial(config.build, inputs), check, lambda m: m(features))


def check_roi_head(config: RoIHeadConfig, inputs: FeatureSpec = PYRAMID) -> None:
    """Check the losses with and without objects, detections, class counts, autocast, save and load of a RoI head."""
    check_config(config)
    config.check(inputs)
    batch = make_batch()
    features = make_features(inputs, batch)
    nothing = [torch.zeros(0, 4)] * len(batch)

    def check(head: RoIHead, k: int) -> None:
        equal(config, "needs_masks", head.needs_masks, config.needs_masks())
        equal(config, "needs_semantic", head.needs_semantic, config.needs_semantic())

        def losses(empty: bool) -> Losses:
            targets = make_targets(batch, k, empty=empty)
            return head.losses(features, make_proposals(batch, targets), targets, batch)

        _check_losses(config, head, losses)
        terms = head.losses(features, nothing, make_targets(batch, k, empty=True), batch)
        _check_terms(config, head, terms, "a batch without objects and proposals")
        for proposals in (make_proposals(batch, make_targets(batch, k)), nothing):
            with torch.no_grad():
                _check_detections(config, head.predict(features, proposals, batch), batch, k)

    proposals = make_proposals(batch, make_targets(batch, 3))
    _check_with_classes(config, partial(config.build, inputs), check, lambda m: m.predict(features, proposals, batch))


def check_detector(config: DetectorConfig) -> None:
    """Check the losses with and without objects, detections, class counts, autocast, save and load of a detector."""
    check_round_trip(config)
    batch = make_batch()
    if config.dense_head is None:  # the data provide the proposals
        proposals = make_proposals(batch, make_targets(batch, 3))
        batch = attrs.evolve(batch, proposals=tuple(proposals))

    def check(detector: Detector, k: int) -> None:
        equal(config, "features", tuple(f.shape[1] for f in detector.features(batch)), config.feature_spec().channels)
        _check_losses(config, detector, lambda e: detector.losses(batch, make_targets(batch, k, empty=e)))
        has_classes = config.roi_head is not None or not isinstance(detector.dense_head, ProposalHead)
        _check_detections(config, detector.eval().predict(batch), batch, k if has_classes else 1)

    _check_with_classes(config, lambda k: config.build(num_classes=k), check, lambda m: m.predict(batch))


def check_backward(module: nn.Module, losses: Losses) -> dict[str, float]:
    """Check that a backward pass gives every trainable parameter a finite gradient; returns the losses' values."""
    values = {name: term.value() for name, term in losses.items()}
    for name, value in values.items():
        check_finite(module, [value], f"loss {name!r}")
    check_gradients(module, module, torch.stack(list(values.values())).sum(), "a training step")
    return {name: value.item() for name, value in values.items()}


CHECKS: dict[type[Component], Callable[[Any], None]] = {
    BackboneConfig: check_backbone,
    NeckConfig: check_neck,
    RoIPoolConfig: check_roi_pool,
    TrunkConfig: check_trunk,
    BoxHeadConfig: check_box_head,
    MaskHeadConfig: check_mask_head,
    DenseHeadConfig: check_dense_head,
    RoIHeadConfig: check_roi_head,
    NormConfig: check_norm,
    ConvConfig: check_conv,
    LossConfig: check_loss,
    TransformConfig: check_transform,
    EvaluatorConfig: check_evaluator,
    OptimizerConfig: check_optimizer,
    LearningRateConfig: check_learning_rate,
}


def check_component(config: Component, root: str | Path | None = None) -> None:
    """Run the check of the component's slot, or `check_config` for slots without a check.

    root: the folder of a data set; without it, only the configuration of a data set is checked.
    """
    if isinstance(config, DatasetConfig) and root is not None:
        check_dataset(config, root)
        return
    check = next((c for base, c in CHECKS.items() if isinstance(config, base)), check_config)
    check(config)


def check_plugin(name: str, *, build: bool = True) -> None:
    """Check an installed plugin: it loads completely and without torch; its parts, recipes and commands are valid.

    Components whose configuration needs no arguments are built and checked by slot, unless `build` is False. Check the
    others with `check_component`, and data sets, which need a folder, with `check_dataset`.
    """
    manager = plugin_manager()
    assert any(name in (p.name, p.distribution) for p in manager.plugins), (
        f"plugin {name!r} is not installed in this environment; install it first: pip install -e ."
    )
    state = manager.plugin(name)
    assert state.state == "ok", f"plugin {name!r} failed: {'; '.join(state.errors)}"
    check_import_light(_entry_module(state))
    for slot, types in state.provides.items():
        for type_name in types if slot in SLOTS else ():
            _check_component_class(manager.component(slot, type_name), build=build)
    for command in state.provides.get("command", ()):
        manager.command(command)
    _check_recipes([e for e in manager.recipes().values() if e.name in state.provides.get("recipe", [])])


def _entry_module(state: PluginState) -> str:
    from importlib.metadata import entry_points

    from det_core.hookspecs import ENTRY_POINT_GROUP

    for point in entry_points(group=ENTRY_POINT_GROUP, name=state.name):
        if point.dist is None or point.dist.name == state.distribution:
            return point.module
    raise AssertionError(f"plugin {state.name!r} has no entry point in the group {ENTRY_POINT_GROUP}")


def _check_component_class(cls: type[Component], *, build: bool) -> None:
    undocumented = [f.name for f in fields_of(cls) if not f.metadata.get("doc")]
    assert not undocumented, (
        f"{cls.__name__}: fields without a doc: {', '.join(undocumented)}; declare them with det_core.settings.setting"
    )
    assert cls.__dict__.get("__doc__"), f"{cls.__name__} has no docstring; `recipes schema` shows its first paragraph"
    check_import_light(cls.__module__)
    if all(f.default is not attrs.NOTHING for f in fields_of(cls)):
        (check_component if build else check_config)(cls())


def _check_recipes(entries: Iterable[RecipeEntry]) -> None:
    entries = list(entries)
    for kind in ("default", "demo"):
        marked = [e.name for e in entries if getattr(e, kind)]
        assert len(marked) <= 1, f"several recipes are marked {kind}: {', '.join(marked)}; mark one"
    for entry in entries:
        if entry.missing():
            continue
        recipe = entry.make()
        assert isinstance(recipe, Recipe), f"recipe {entry.name!r}: make() gives {type(recipe).__name__}, not a Recipe"
        assert recipe.name == entry.name, f"recipe {entry.name!r}: make() names it {recipe.name!r}"
        assert recipe.published == entry.published, f"recipe {entry.name!r}: `published` differs from its entry's"
        check_round_trip(recipe)


# Contracts


def _regions(spec: RegionSpec, count: int = 4) -> Tensor:
    return torch.randn(count, spec.channels, *spec.size, generator=torch.Generator().manual_seed(4))


def _rois(proposals: Sequence[Tensor]) -> Tensor:
    return torch.cat([torch.cat([torch.full((len(p), 1), float(i)), p], 1) for i, p in enumerate(proposals)])


def _check_spec(config: object, stated: object, built: object) -> None:
    assert built == stated, f"{who(config)}: the configuration gives {stated}, but the module's `out` is {built}"


def _check_maps(
    config: Component,
    build: Callable[[], nn.Module],
    spec: FeatureSpec,
    run: Callable[[nn.Module], list[Tensor]],
    batch: Batch,
) -> None:
    module = built(build)
    _check_spec(config, spec, module.out)
    height, width = batch.padded_size
    expected = [
        (len(batch), c, -(-height // s), -(-width // s)) for c, s in zip(spec.channels, spec.strides, strict=True)
    ]
    equal(config, "feature shapes", [tuple(m.shape) for m in run(module)], expected)
    assert list(spec.strides) == sorted(spec.strides), f"{who(config)}: strides {spec.strides} are not finest first"
    check_module(config, build, run)


def _check_regions(
    config: Component, build: Callable[[], nn.Module], spec: RegionSpec, run: Callable[[Any, int], Tensor], count: int
) -> None:
    """Check the spec, the module and the regions that it gives for `count` regions and for none."""
    module = built(build)
    _check_spec(config, spec, module.out)
    for n in (count, 0):
        shape = tuple(run(module, n).shape)
        assert shape == (n, spec.channels, *spec.size), f"{who(config)}: {n} regions give {shape}, not {spec}"
    check_module(config, build, lambda m: run(m, count))


def _check_region_head(
    config: BoxHeadConfig | MaskHeadConfig, inputs: RegionSpec, check: Callable[[Any, int, int], None]
) -> None:
    """Check a head on pooled regions; `check` takes the module, its class count, and a number of regions."""
    check_config(config)
    for k in CLASS_COUNTS:
        module = built(partial(config.build, inputs, k))
        equal(config, "num_classes", module.num_classes, k)
        for count in (4, 0):
            check(module, k, count)
    _check_class_dependent(config, partial(config.build, inputs))
    check_module(
        config, partial(config.build, inputs, 3), lambda m: m(_regions(inputs)), may_be_empty=_regions(inputs, 0)
    )


def _check_with_classes(
    config: object,
    build: Callable[[int], nn.Module],
    check: Callable[[Any, int], None],
    run: Callable[[Any], object],
) -> None:
    """Check modules of two class counts, which weights depend on the count, save and load."""
    for k in CLASS_COUNTS:
        check(built(partial(build, k)), k)
    _check_class_dependent(config, build)
    check_saving(config, partial(build, CLASS_COUNTS[0]), run)


def _check_losses(config: object, module: nn.Module, losses: Callable[[bool], Losses]) -> None:
    """Check that losses and gradients of all parameters are finite: with objects, without, and under autocast."""
    for empty in (False, True):
        where = "a batch without objects" if empty else "a batch with objects"
        _check_terms(config, module, losses(empty), where)
        with torch.autocast("cpu", torch.bfloat16):
            terms = losses(empty)
        _check_terms(config, module, terms, f"{where} under autocast")


def _check_terms(config: object, module: nn.Module, terms: Losses, where: str) -> None:
    assert terms, f"{who(config)}: no losses on {where}"
    for name, term in terms.items():
        assert isinstance(term, LossTerm), f"{who(config)}: loss {name!r} is {type(term).__name__}, not LossTerm"
        equal(config, f"shape of loss {name!r}", tuple(term.total.shape), ())
        check_finite(config, [term.value()], f"loss {name!r} on {where}")
        if isinstance(term.count, Tensor):
            assert not term.count.requires_grad, f"{who(config)}: the count of loss {name!r} has a gradient"
    check_gradients(config, module, sum((t.value() for t in terms.values()), torch.zeros(())), where)


def _check_detections(config: object, found: Sequence[Detections], batch: Batch, num_classes: int) -> None:
    equal(config, "number of results", len(found), len(batch))
    for detections, info in zip(found, batch.infos, strict=True):
        n, (height, width) = len(detections), info.original_size
        equal(config, "shape of boxes", tuple(detections.boxes.shape), (n, 4))
        equal(config, "shape of scores", tuple(detections.scores.shape), (n,))
        equal(config, "shape of labels", tuple(detections.labels.shape), (n,))
        equal(config, "type of labels", detections.labels.dtype, torch.int64)
        assert detections.boxes.dtype in (torch.float32, torch.float64), f"{who(config)}: boxes in half precision"
        in_range = (detections.labels >= 0) & (detections.labels < num_classes)
        assert bool(in_range.all()), f"{who(config)}: labels outside 0..{num_classes - 1}"
        assert bool((detections.scores.diff() <= 0).all()), f"{who(config)}: detections are not best first"
        limit = torch.tensor([width, height, width, height]) + 1e-3
        inside = (detections.boxes >= -1e-3) & (detections.boxes <= limit)
        assert bool(inside.all()), f"{who(config)}: boxes outside the original image of size {(height, width)}"
        if detections.masks is not None:
            equal(config, "shape of masks", tuple(detections.masks.shape), (n, height, width))
            equal(config, "type of masks", detections.masks.dtype, torch.bool)


def _check_proposals(config: object, head: ProposalHead[Any], outputs: object, batch: Batch) -> None:
    for limit in (1, 7):
        limits = evolve(head.test_limits, before_nms=50, after_nms=limit)
        proposals = head.proposals(outputs, batch, limits)
        equal(config, "number of proposal lists", len(proposals), len(batch))
        for boxes in proposals:
            assert len(boxes) <= limit, f"{who(config)}: {len(boxes)} proposals, expected at most {limit}"
            equal(config, "width of proposals", tuple(boxes.shape[1:]), (4,))
            assert not boxes.requires_grad, f"{who(config)}: proposals require a gradient; detach them"


def _check_class_dependent(config: object, build: Callable[[int], nn.Module]) -> None:
    """Check that `class_dependent()` names exactly the weights whose shapes depend on the class count."""
    few, many = (built(partial(build, k)).state_dict() for k in CLASS_COUNTS)
    assert few.keys() == many.keys(), f"{who(config)}: the names of the weights depend on the class count"
    differing = {name for name in few if few[name].shape != many[name].shape}
    declared = set(class_dependent(built(partial(build, CLASS_COUNTS[0]))))
    missed, extra = sorted(differing - declared), sorted(declared - differing)
    assert not missed, f"{who(config)}: class_dependent() lacks {', '.join(missed)}"
    assert not extra, (
        f"{who(config)}: class_dependent() names {', '.join(extra)}, which do not depend on the class count"
    )
