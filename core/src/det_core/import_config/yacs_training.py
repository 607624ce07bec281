"""Data, schedules, tests and runs of detectron2's configurations as changes to the nearest recipe."""

from __future__ import annotations

from typing import Any

from attrs import frozen

from det_core.import_config.ledger import NO_COUNTERPART, Node, shown
from det_core.import_config.target import Target
from det_core.import_config.yacs_defaults import taken
from det_core.import_config.yacs_parts import put_key
from det_core.weights.mmdet_values import number, numbers, parts, whole

GPUS = 8  # of the machine that detectron2's configurations are for
RATE = "schedule.learning_rate"


@frozen
class _Known:
    """A data set that detectron2 knows by name. images: with objects, those that are trained on."""

    kind: str
    place: str = ""
    images: int | None = None


_KNOWN = {
    "coco_2017_train": _Known("coco", "train", 117_266),
    "coco_2017_val": _Known("coco", "val"),
    "voc_2007_trainval": _Known("voc", "VOC2007/trainval", 5_011),
    "voc_2012_trainval": _Known("voc", "VOC2012/trainval", 11_540),
    "voc_2007_train": _Known("voc", "VOC2007/train", 2_501),
    "voc_2007_val": _Known("voc", "VOC2007/val", 2_510),
    "voc_2012_train": _Known("voc", "VOC2012/train", 5_717),
    "voc_2012_val": _Known("voc", "VOC2012/val", 5_823),
    "voc_2007_test": _Known("voc", "VOC2007/test"),
}


def translate_training(target: Target, root: Node) -> None:
    """Data, transforms, optimiser, schedule, evaluation, and what a run has besides."""
    _datasets(target, root)
    _transforms(target, root)
    _loader(target, root)
    _optimizer(target, root)
    _schedule(target, root)
    _tests(target, root)
    _run(target, root)


# Data


def _datasets(target: Target, root: Node) -> None:
    for key, split in (("TRAIN", "train"), ("TEST", "val")):
        node = root.at(f"DATASETS.{key}")
        names = _names(root, key)
        known = [_KNOWN.get(name) for name in names]
        sets = [one.place for one in known if one is not None and one.kind == "voc"]
        if names and len(sets) == len(names):
            _voc(target, split, sets, node)
        elif names and not all(one is not None and one.place == split for one in known):
            node.refuse(
                f"{', '.join(names)}: the name stands for files that the configuration does not say; give their "
                f"folder with --data, or set data.{split}.annotations and data.{split}.images"
            )
    data = root.at("DATASETS")
    for split in ("TRAIN", "TEST"):
        files = data.at(f"PROPOSAL_FILES_{split}")
        if parts(files.take()):
            files.refuse("proposals are made by det-core proposals, and set as data.train.proposals")
    if target.has("data.train.max_proposals"):
        target.copy_given("data.train.max_proposals", data.at("PRECOMPUTED_PROPOSAL_TOPK_TRAIN"))
    data.ignore("PRECOMPUTED_PROPOSAL_TOPK_TEST")


def _names(root: Node, split: str) -> list[str]:
    return [str(name) for name in parts(taken(root, f"DATASETS.{split}"))]


def _voc(target: Target, split: str, sets: list[str], node: Node) -> None:
    path = f"data.{split}"
    if target.get(f"{path}.type") == "voc":
        target.put(f"{path}.sets", sets, node)
        return
    made: dict[str, Any] = {"type": "voc", "split": split, "sets": sets}
    if split == "train":
        made |= {"filter_empty": True, "min_size": 32}
    target.put(path, made, node)
    if split == "val":
        target.put("evaluation", {"evaluators": [{"type": "voc"}], "best": "voc_map11"}, node)


def _transforms(target: Target, root: Node) -> None:
    resize = _index(target, "resize")
    flip = _index(target, "flip")
    least, most = root.at("INPUT.MIN_SIZE_TRAIN"), taken(root, "INPUT.MAX_SIZE_TRAIN")
    edges = [edge for value in parts(taken(root, least.name)) if (edge := whole(value))]
    if edges and resize is not None:
        path = f"data.train_transforms[{resize}]"
        by = root.at("INPUT.MIN_SIZE_TRAIN_SAMPLING")
        target.put(f"{path}.scales", [[most, edge] for edge in edges], least)
        target.put(f"{path}.mode", "range" if taken(root, by.name) == "range" else "choice", by)
        root.at("INPUT.MAX_SIZE_TRAIN").take()
    elif resize is None:
        least.refuse("the recipe has no such transform; its transforms of training images are kept")
    else:
        least.refuse(f"{shown(least.value)}: expected sizes above 0; the recipe's are kept")
    test = taken(root, "INPUT.MIN_SIZE_TEST")
    node = root.at("INPUT.MIN_SIZE_TEST")
    if whole(test):
        target.put("data.test_transforms[0].scales", [[taken(root, "INPUT.MAX_SIZE_TEST"), test]], node)
        root.at("INPUT.MAX_SIZE_TEST").take()
    else:
        node.refuse("0: test images are resized here; leave out data.test_transforms for none")
    _flip(target, root, flip)
    crop = root.at("INPUT.CROP")
    if crop.at("ENABLED").take(False) is True:
        crop.refuse("a crop before resizing; add one of the transforms of data.train_transforms (docs/training.md)")
    crop.take()
    root.at("INPUT").ignore("MASK_FORMAT")


def _index(target: Target, kind: str) -> int | None:
    found = [number_ for number_, one in enumerate(target.get("data.train_transforms") or []) if one["type"] == kind]
    return found[0] if found else None


def _flip(target: Target, root: Node, index: int | None) -> None:
    node, how = root.at("INPUT.RANDOM_FLIP"), taken(root, "INPUT.RANDOM_FLIP")
    if how not in ("horizontal", "vertical", "none"):
        node.refuse(f"{shown(how)}: expected horizontal, vertical or none")
    elif index is None:
        node.refuse("the recipe has no flip; add it to data.train_transforms")
    else:
        path = f"data.train_transforms[{index}]"
        target.put(f"{path}.probability", 0.5 if how == "horizontal" else 0.0, node)
        target.put(f"{path}.vertical_probability", 0.5 if how == "vertical" else 0.0, node)


def _loader(target: Target, root: Node) -> None:
    node = root.at("DATALOADER")
    target.copy_given("data.workers", node.at("NUM_WORKERS"))
    if _index(target, "fixed_size_crop") is None:
        put_key(target, root, "DATALOADER.ASPECT_RATIO_GROUPING", "data.group_by_aspect")
    put_key(target, root, "DATALOADER.FILTER_EMPTY_ANNOTATIONS", "data.train.filter_empty")
    sampler, kind = node.at("SAMPLER_TRAIN"), taken(root, "DATALOADER.SAMPLER_TRAIN")
    threshold = number(taken(root, "DATALOADER.REPEAT_THRESHOLD"))
    if kind == "RepeatFactorTrainingSampler":
        target.put("data.repeat_threshold", float(threshold or 0) or None, node.at("REPEAT_THRESHOLD"))
    elif kind == "TrainingSampler":
        target.put("data.repeat_threshold", None, sampler)
    else:
        sampler.refuse(f"sampler {kind!r} {NO_COUNTERPART}, only TrainingSampler and RepeatFactorTrainingSampler")


# Schedule


def _optimizer(target: Target, root: Node) -> None:
    node = root.at("SOLVER")
    for theirs, ours in (
        ("BASE_LR", "lr"),
        ("MOMENTUM", "momentum"),
        ("NESTEROV", "nesterov"),
        ("WEIGHT_DECAY", "weight_decay"),
        ("WEIGHT_DECAY_NORM", "norm_weight_decay"),
        ("WEIGHT_DECAY_BIAS", "bias_weight_decay"),
    ):
        value = taken(root, f"SOLVER.{theirs}")
        if ours != "nesterov" and value is not None:
            value = float(value) if number(value) is not None else value
        if ours == "bias_weight_decay" and value == target.get("optimizer.weight_decay"):
            value = None
        target.put(f"optimizer.{ours}", value, node.at(theirs))
    images, ranks = taken(root, "SOLVER.IMS_PER_BATCH"), whole(taken(root, "SOLVER.REFERENCE_WORLD_SIZE")) or GPUS
    target.put("optimizer.lr_batch", images, node.at("IMS_PER_BATCH"))
    if node.at("IMS_PER_BATCH").given and whole(images):
        target.put("data.images_per_rank", max(1, images // ranks), node.at("IMS_PER_BATCH"))
    node.expect(
        "BIAS_LR_FACTOR", 1.0, why="a learning rate of all biases is a rule: optimizer.rules with pattern '*.bias'"
    )
    _clip(target, root)
    precise = taken(root, "SOLVER.AMP.ENABLED") is True
    target.put("schedule.precision", "fp16" if precise else "fp32", node.at("AMP.ENABLED"))


def _clip(target: Target, root: Node) -> None:
    key = "SOLVER.CLIP_GRADIENTS"
    node, on, kind = root.at(key), taken(root, f"{key}.ENABLED"), taken(root, f"{key}.CLIP_TYPE")
    if on is True and (kind == "value" or number(taken(root, f"{key}.NORM_TYPE")) != 2):
        node.refuse(f"gradients are clipped by their 2-norm here (schedule.clip_norm), not by {kind}")
    elif on is True:
        node.note("each parameter's gradient there, the gradients of all together here")
        target.put("schedule.clip_norm", float(taken(root, f"{key}.CLIP_VALUE")), node.at("CLIP_VALUE"))
    elif target.get("schedule.clip_norm") is not None:
        target.put("schedule.clip_norm", None, node)
    node.take()


def _schedule(target: Target, root: Node) -> None:
    node = root.at("SOLVER")
    for theirs, ours in (("WARMUP_ITERS", "warmup_steps"), ("WARMUP_FACTOR", "warmup_factor")):
        value = taken(root, f"SOLVER.{theirs}")
        target.put(f"schedule.{ours}", value if ours == "warmup_steps" else float(value), node.at(theirs))
    node.expect("WARMUP_METHOD", "linear")
    node.expect("RESCALE_INTERVAL", False)
    node.ignore("NUM_DECAYS")
    kind = taken(root, "SOLVER.LR_SCHEDULER_NAME")
    steps = [int(v) for v in numbers(parts(taken(root, "SOLVER.STEPS"))) or ()]
    _length(target, root, steps if kind == "WarmupMultiStepLR" else [])
    if kind == "WarmupCosineLR":
        last, first = number(taken(root, "SOLVER.BASE_LR_END")) or 0.0, number(taken(root, "SOLVER.BASE_LR")) or 1.0
        target.put(RATE, {"type": "cosine", "floor": last / first, "by": "step"}, node.at("LR_SCHEDULER_NAME"))
        node.ignore("STEPS", "GAMMA")
    elif kind == "WarmupMultiStepLR":
        target.put(f"{RATE}.gamma", float(taken(root, "SOLVER.GAMMA")), node.at("GAMMA"))
        node.ignore("BASE_LR_END")
    else:
        node.at("LR_SCHEDULER_NAME").refuse(f"schedule {kind!r} {NO_COUNTERPART}; the recipe's is kept")
        node.ignore("STEPS", "GAMMA")


def _length(target: Target, root: Node, steps: list[int]) -> None:
    """Epochs, if the number of images is known. A recipe that is within an epoch has them rounded, and is kept."""
    node, images = root.at("SOLVER.MAX_ITER"), _images(root)
    total, batch = taken(root, "SOLVER.MAX_ITER"), taken(root, "SOLVER.IMS_PER_BATCH")
    key = root.at("SOLVER.STEPS")
    key.take()
    if not images or not whole(total) or not whole(batch):
        node.note(
            f"{total} iterations of {batch} images, and steps at {steps}: the number of images is not known, so the "
            f"recipe's {target.get('schedule.epochs')} epochs are kept; set schedule.epochs and schedule.learning_rate"
        )
        return
    epochs = total * batch / images
    if abs(epochs - target.get("schedule.epochs")) >= 1:
        target.put("schedule.epochs", max(1, round(epochs)), node)
    drops = [step * batch / images for step in steps]
    old = target.get(f"{RATE}.milestones")
    comparable = isinstance(old, list) and target.get(f"{RATE}.by") == "epoch" and len(old) == len(drops)
    same = comparable and all(abs(drop - ours) < 1 for drop, ours in zip(drops, old, strict=True))
    if steps and not same:
        made = {"type": "step", "milestones": [max(1, round(drop)) for drop in drops], "by": "epoch"}
        target.put(RATE, made, key)


def _images(root: Node) -> int | None:
    """The number of training images, if it is known for all data sets."""
    counts = [_KNOWN[name].images if name in _KNOWN else None for name in _names(root, "TRAIN")]
    known = [count for count in counts if count]
    return sum(known) if known and len(known) == len(counts) else None


# Tests and runs


def _tests(target: Target, root: Node) -> None:
    node = root.at("TEST")
    node.ignore("EXPECTED_RESULTS", "KEYPOINT_OKS_SIGMAS")
    if node.at("EVAL_PERIOD").take(0):
        node.at("EVAL_PERIOD").refuse("evaluation is every evaluation.every_epochs epochs")
    augmented = node.at("AUG")
    if augmented.at("ENABLED").take(False) is True:
        most = number(augmented.at("MAX_SIZE").take(4000))
        sizes = parts(augmented.at("MIN_SIZES").take([400, 500, 600, 700, 800, 900, 1000, 1100, 1200]))
        options = " ".join(f"--scale {most:g}x{size}" for size in sizes) + (
            " --flip" if augmented.at("FLIP").take(True) else ""
        )
        augmented.refuse(f"test-time augmentation is an option of the command: det-core test {options}")
    augmented.take()
    precise = node.at("PRECISE_BN")
    if precise.at("ENABLED").take(False) is True:
        precise.refuse(f"precise statistics of batch norm {NO_COUNTERPART}; schedule.ema_decay averages weights")
    precise.take()


def _run(target: Target, root: Node) -> None:
    seed = whole(taken(root, "SEED"))
    if seed is not None and seed >= 0:  # detectron2 chooses a negative one anew each time
        target.put("schedule.seed", seed, root.at("SEED"))
    for key, why in (
        ("OUTPUT_DIR", "the run folder is an option: det-core train --work-dir"),
        ("SOLVER.CHECKPOINT_PERIOD", "a checkpoint is written after each epoch; --save-every adds others"),
    ):
        if root.at(key).given:
            root.at(key).refuse(why)
    root.ignore("VERSION", "CUDNN_BENCHMARK", "VIS_PERIOD", "GLOBAL", "FLOAT32_PRECISION")
