"""What a checkpoint of mmdetection says of itself: version, model, classes and numbers, from its configuration text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen

from det_core.data.coco_classes import COCO_CLASSES, COCO_IDS
from det_core.data.data_config import VOC_CLASSES
from det_core.errors import DetError, counted
from det_core.weights.mmdet_config import parse_config
from det_core.weights.mmdet_generation import Generation, generation_of_version, version_numbers
from det_core.weights.mmdet_model import (
    box_deviations,
    box_heads,
    dense_part,
    kind_name,
    model_name,
    network_name,
    schedule_name,
    variant_name,
)
from det_core.weights.mmdet_numbers import (
    AnchorFacts,
    ImageFacts,
    LimitFacts,
    Numbers,
    anchor_facts,
    image_facts,
    limit_facts,
    limit_notes,
)
from det_core.weights.mmdet_values import at, first_at, parts, type_of, whole

if TYPE_CHECKING:
    from det_core.weights.read_files import SourceFile

# The classes of a data set, by mmdet's name for it.
_DATASETS: Mapping[str, tuple[str, ...]] = {"CocoDataset": COCO_CLASSES, "VOCDataset": VOC_CLASSES}
_WRAPPERS = ("RepeatDataset", "ClassBalancedDataset", "ConcatDataset", "MultiImageMixDataset")


@frozen(kw_only=True)
class BackboneFacts:
    """The backbone. None: the configuration does not say."""

    depth: int | None = None
    groups: int | None = None
    base_width: int | None = None
    style: str | None = None


@frozen(kw_only=True)
class FileFacts:
    """What a checkpoint of mmdetection says of itself. None, or "" for a variant: it does not say.

    version: its numbers, to compare. model, network, kind, variant, schedule: the parts of a recipe's name. described:
    the model in mmdet's words. roi_deviations: of the box targets, per stage of the RoI head. num_classes: without
    background. class_names and class_ids: of the data set; ids are COCO's for its 80 classes, otherwise 1, 2, ...
    notes: what could not be found out, as sentences.
    """

    version: tuple[int, ...] | None = None
    generation: Generation | None = None
    model: str | None = None
    network: str | None = None
    kind: str | None = None
    variant: str = ""
    schedule: str | None = None
    described: str = ""
    backbone: BackboneFacts = BackboneFacts()
    image: ImageFacts = ImageFacts()
    anchors: AnchorFacts = AnchorFacts()
    limits: LimitFacts = LimitFacts()
    roi_deviations: tuple[Numbers, ...] | None = None
    num_classes: int | None = None
    class_names: tuple[str, ...] | None = None
    class_ids: tuple[int, ...] | None = None
    notes: tuple[str, ...] = ()


def facts_of(file: SourceFile) -> FileFacts:
    """What a checkpoint says of itself. A configuration text that cannot be read is a note, not an error."""
    version = version_numbers(file.version)
    notes: list[str] = []
    config = _config(file, notes)
    return _facts(
        config, version, generation_of_version(version) or _generation(file, at(config, "model")), notes, file
    )


def facts_of_config(config: Mapping[str, Any], generation: Generation) -> FileFacts:
    """What a configuration file, without a checkpoint, says of its model."""
    return _facts(config, None, generation, [], None)


def _facts(
    config: Mapping[str, Any],
    version: tuple[int, ...] | None,
    generation: Generation | None,
    notes: list[str],
    file: SourceFile | None,
) -> FileFacts:
    model: Any = at(config, "model")
    count = _num_classes(model, generation)
    names, ids = _classes(file, config, count, notes)
    image = image_facts(config)
    name = model_name(model)
    return FileFacts(
        version=version,
        generation=generation,
        model=name,
        network=network_name(at(model, "backbone")),
        kind=kind_name(model),
        variant=variant_name(model, image.order),
        schedule=schedule_name(config, repeated=name == "ssd"),
        described=_description(model),
        backbone=_backbone(at(model, "backbone")),
        image=image,
        anchors=anchor_facts(model),
        limits=limit_facts(config),
        roi_deviations=box_deviations(model),
        num_classes=count,
        class_names=names,
        class_ids=ids,
        notes=(*notes, *limit_notes(config)),
    )


def _config(file: SourceFile, notes: list[str]) -> Mapping[str, Any]:
    """The configuration in the file; empty if there is none."""
    if not file.config_text:
        notes.append("the file does not contain the text of its configuration")
        return {}
    try:
        parsed = parse_config(file.config_text, "configuration text")
    except DetError as error:
        notes.append(str(error))
        return {}
    # Other names are of training, files and logs; a statement without a name may change anything.
    used = [u for u in parsed.unread if re.split(r"[.\[]", u.path)[0] in ("", "model", "train_cfg", "test_cfg")]
    notes += [f"not read in the configuration text: {unread}" for unread in used]
    if not isinstance(parsed.values.get("model"), Mapping):
        notes.append("the configuration text does not define `model`")
    return parsed.values


def _generation(file: SourceFile, model: Any) -> Generation | None:
    """The generation of a file without a version, by what else it records and by the words of its configuration."""
    if file.message_hub or at(file.meta, "mmengine_version") is not None:
        return "mmdet"
    return generation_of_model(model)


def generation_of_model(model: Any) -> Generation | None:
    """The generation of a model, by the words of its configuration; None if they are of both."""
    head = dense_part(model)
    heads = [head, *box_heads(model)]
    if any(at(model, part) is not None for part in ("roi_head", "data_preprocessor")):
        return "mmdet"
    if any(at(part, key) is not None for part in heads for key in ("anchor_generator", "bbox_coder")):
        return "mmdet"
    old = ("anchor_scales", "anchor_ratios", "octave_ratios", "anchor_strides", "target_stds")
    return "mmdet1" if any(at(part, key) is not None for part in heads for key in old) else None


def _backbone(backbone: Any) -> BackboneFacts:
    resnext = type_of(backbone) == "ResNeXt"
    style = at(backbone, "style")
    return BackboneFacts(
        depth=whole(at(backbone, "depth")),
        groups=whole(at(backbone, "groups")) if resnext else 1 if type_of(backbone) == "ResNet" else None,
        base_width=whole(at(backbone, "base_width")) if resnext else None,
        style=style if isinstance(style, str) else None,
    )


def _num_classes(model: Any, generation: Generation | None) -> int | None:
    """The number of classes. Before 2.0 it counts the background, also in RetinaNet, which has no output for it."""
    head = next(iter(box_heads(model)), at(model, "bbox_head"))
    found = whole(at(head, "num_classes"))
    if found is None or generation is None:
        return None
    return found - 1 if generation == "mmdet1" else found


def _classes(
    file: SourceFile | None, config: Any, count: int | None, notes: list[str]
) -> tuple[tuple[str, ...] | None, tuple[int, ...] | None]:
    """The names and ids of the classes: as the file records them, or else by the data set of its configuration."""
    names = (file.class_names if file else None) or _told_classes(config)
    if names is None:
        notes.append("the file does not contain the names of its classes")
        return None, None
    if count is not None and len(names) != count:
        notes.append(
            f"the file names {counted(len(names), 'class', 'es')}, but its model has {count}; the names are ignored"
        )
        return None, None
    # mmdet 0.x and 1.x write underscores in COCO's names.
    if tuple(name.replace("_", " ") for name in names) == COCO_CLASSES:
        return COCO_CLASSES, COCO_IDS
    return names, tuple(range(1, len(names) + 1))


def _told_classes(config: Any) -> tuple[str, ...] | None:
    """The classes that the configuration lists, or those of its data set."""
    places = ("data.test", "test_dataloader.dataset", "data.train", "train_dataloader.dataset")
    for data in (part for place in places for part in parts(at(config, place))):
        inner = at(data, "dataset") if type_of(data) in _WRAPPERS else data
        listed = first_at(inner, "classes", "metainfo.classes", "metainfo.CLASSES")
        if isinstance(listed, (list, tuple)) and listed and all(isinstance(name, str) for name in listed):
            return tuple(listed)
        if type_of(inner) in _DATASETS:
            return _DATASETS[type_of(inner)]
        if type_of(inner):
            return None  # a data set of the user's
    return None


def _description(model: Any) -> str:
    """The model in mmdet's words, such as `MaskRCNN (ResNet-50, FPN, RPNHead)`; "" if there is none."""
    if not type_of(model):
        return ""
    backbone, depth = type_of(at(model, "backbone")), whole(at(model, "backbone.depth"))
    words = [f"{backbone}-{depth}" if depth else backbone, *(type_of(neck) for neck in parts(at(model, "neck")))]
    inner = ", ".join(word for word in [*words, type_of(dense_part(model))] if word)
    return f"{type_of(model)} ({inner})" if inner else type_of(model)
