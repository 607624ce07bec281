"""The kinds of parts for which `det-core plugins new` creates a package: what of it depends on the kind."""

from __future__ import annotations

from attrs import Factory, frozen


@frozen(kw_only=True)
class Kind:
    """A kind of part, whose templates are in `templates/SLOT`.

    part: end of the part's class name. title: its name in texts. Both are the words of the slot by default. hook: the
    hook that returns it. base: the recipe that the package's own recipe changes, of the distribution `requires`;
    changes: the changes, with `$type` for the part's type. demo: whether this recipe trains on the bundled sample;
    otherwise the user gives the data. content: what the part's module has. export: its public name, if it is not the
    part's class.
    """

    slot: str
    part: str = Factory(lambda self: self.slot.title().replace("_", ""), takes_self=True)
    title: str = Factory(lambda self: self.slot.replace("_", " "), takes_self=True)
    hook: str
    base: str = "faster-rcnn/r18-fpn-demo"
    changes: tuple[str, ...]
    requires: str = "det-plugin-rcnn"
    summary: str
    demo: bool = True
    content: str = "the module"
    export: str | None = None


_KINDS = (
    Kind(
        slot="backbone",
        hook="det_backbones",
        changes=("detector.backbone={type: $type}",),
        summary="the Faster R-CNN demo with another backbone",
    ),
    Kind(
        slot="neck",
        hook="det_necks",
        changes=("detector.neck={type: $type, channels: 64}",),
        summary="the Faster R-CNN demo with another neck",
    ),
    Kind(
        slot="dense_head",
        hook="det_heads",
        base="retinanet/r18-fpn-demo",
        changes=("detector.dense_head={type: $type}",),
        requires="det-plugin-retinanet",
        summary="the RetinaNet demo with another head",
    ),
    Kind(
        slot="roi_head",
        part="RoIHead",
        title="RoI head",
        hook="det_heads",
        changes=("detector.roi_head={type: $type}",),
        summary="the Faster R-CNN demo with another RoI head",
    ),
    Kind(
        slot="box_head",
        hook="det_heads",
        base="mask-rcnn/r18-fpn-demo",
        changes=("detector.roi_head.box_head={type: $type}",),
        summary="the Mask R-CNN demo with another box head",
    ),
    Kind(
        slot="mask_head",
        hook="det_heads",
        base="mask-rcnn/r18-fpn-demo",
        changes=("detector.roi_head.mask_head={type: $type, channels: 64}",),
        summary="the Mask R-CNN demo with another mask head",
    ),
    Kind(
        slot="loss",
        hook="det_losses",
        changes=("detector.roi_head.box_loss={type: $type}",),
        summary="the Faster R-CNN demo with another box loss",
    ),
    Kind(
        slot="dataset",
        title="data set",
        hook="det_datasets",
        changes=(
            "data.train={type: $type, annotations: train.csv}",
            "data.val={type: $type, annotations: val.csv}",
        ),
        summary="the Faster R-CNN demo on images with a CSV file of boxes",
        demo=False,
        content="the data set",
    ),
    Kind(
        slot="transform",
        hook="det_transforms",
        changes=("data.train_transforms=[{type: resize, scales: [[320, 320]]}, {type: flip}, {type: $type}]",),
        summary="the Faster R-CNN demo with one more augmentation",
        content="the transform",
    ),
    Kind(
        slot="evaluator",
        hook="det_evaluators",
        changes=("evaluation.evaluators=[{type: coco}, {type: $type}]",),
        summary="the Faster R-CNN demo with one more metric",
        content="the metric",
    ),
    Kind(
        slot="optimizer",
        title="optimiser",
        hook="det_optimizers",
        changes=("optimizer={type: $type, lr_batch: 0}",),
        summary="the Faster R-CNN demo with another optimiser",
        content="the optimiser",
    ),
    Kind(
        slot="learning_rate",
        title="learning-rate schedule",
        hook="det_schedules",
        changes=("schedule.learning_rate={type: $type}",),
        summary="the Faster R-CNN demo with another learning-rate schedule",
        content="the factor of a step",
        export="inverse_square_root",
    ),
)
KINDS = {kind.slot.replace("_", "-"): kind for kind in _KINDS}  # by the word of --kind
DEFAULT_KIND = "box-head"
