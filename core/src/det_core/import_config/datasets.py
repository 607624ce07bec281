"""Data of mmdetection: data sets with their wrappers, files and classes, batches and pipelines."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from typing import Any

from det_core.data.coco_classes import COCO_CLASSES
from det_core.data.data_config import VOC_CLASSES
from det_core.import_config.ledger import NO_COUNTERPART, Node, shown
from det_core.import_config.target import Target
from det_core.import_config.transforms import OLDER, check_test_pipeline, older_transforms, train_transforms
from det_core.weights.mmdet_values import number, parts, whole

# The files of COCO 2017, which are found by themselves.
_USUAL = {
    "train": ("annotations/instances_train2017.json", "train2017"),
    "val": ("annotations/instances_val2017.json", "val2017"),
}
_COCO_TYPES = (
    "CocoDataset",
    "LVISDataset",
    "LVISV1Dataset",
    "LVISV05Dataset",
    "CityscapesDataset",
    "Objects365V1Dataset",
)
GPUS = 8  # of the machine that mmdetection's learning rates are for


def translate_data(target: Target, root: Node, *, modern: bool) -> None:
    """Data sets, transforms, batch size and workers."""
    place = "{}_dataloader.dataset" if modern else "data.{}"
    sets = [_Set(root.at(place.format(split)), split) for split in ("train", "val", "test")]
    folder = _folder(root, sets)
    if folder:
        target.put("data.root", folder, root.at("data_root"))
    if sets[0].parts:
        _put_dataset(target, sets[0], folder, modern)
        _wrappers(target, sets[0])
        _pipeline(target, sets[0], root, modern)
    if sets[1].parts:
        _put_dataset(target, sets[1], folder, modern)
        check_test_pipeline(sets[1].pipeline(root))
    if sets[2].parts:
        _check_test(sets[1], sets[2])
        check_test_pipeline(sets[2].pipeline(root))
    _batches(target, root, sets[0], modern)


class _Set:
    """A data set of a configuration: its wrappers, and the innermost data sets, of which there may be several."""

    def __init__(self, node: Node, split: str) -> None:
        self.node, self.split = node, split
        self.repeat: Node | None = None
        self.balance: Node | None = None
        self.outer_pipelines: list[Node] = []
        self.parts: list[Node] = []
        self._open(node)

    def _open(self, node: Node) -> None:
        if isinstance(node.value, (list, tuple)):
            for item in node.items():
                self._open(item)
            return
        if not isinstance(node.value, Mapping):
            return
        kind = node.type
        if kind == "RepeatDataset":
            self.repeat = node.at("times")
            self._open(node.at("dataset"))
        elif kind == "ClassBalancedDataset":
            self.balance = node.at("oversample_thr")
            node.expect("filter_empty_gt", True)
            self._open(node.at("dataset"))
        elif kind == "MultiImageMixDataset":
            self.outer_pipelines.append(node.at("pipeline"))
            node.ignore("skip_type_keys", "dynamic_scale", "max_refetch")
            self._open(node.at("dataset"))
        elif kind == "ConcatDataset":
            node.ignore("separate_eval", "lazy_init", "ignore_keys")
            self._open(node.at("datasets"))
        else:
            self.parts.append(node)

    def pipeline(self, root: Node) -> Node:
        """The pipeline of the first data set."""
        return self.parts[0].at("pipeline") if self.parts else root.at("no_pipeline")


def _strings(value: Any) -> list[str]:
    return [item for item in parts(value) if isinstance(item, str)]


def _ann_files(node: Node) -> list[str]:
    return _strings(node.at("ann_file").value)


def _images(node: Node) -> str:
    found = node.first("data_prefix.img", "data_prefix.img_path", "img_prefix").value
    return next(iter(_strings(found)), "")


def _placed(node: Node, name: str) -> str:
    """A path of a data set, below its `data_root`."""
    base = node.at("data_root").value
    return posixpath.join(base, name) if isinstance(base, str) else name


def _folder(root: Node, sets: list[_Set]) -> str:
    """The folder that all files are below: the `data_root` of the configuration, or else the deepest one."""
    paths = [
        _placed(node, name)
        for one in sets
        for node in one.parts
        for name in (*_ann_files(node), *([_images(node)] if _images(node) else []))
    ]
    said = [root.at("data_root").value, *(n.at("data_root").value for one in sets for n in one.parts)]
    for folder in (f for f in said if isinstance(f, str) and f):
        if all(path.startswith(folder.rstrip("/") + "/") for path in paths):
            return folder.rstrip("/")
    if len({os.path.isabs(path) for path in paths}) != 1:
        return ""
    return posixpath.commonpath([posixpath.dirname(path) or path for path in paths])


def _below(folder: str, path: str) -> str:
    start = folder.rstrip("/") + "/"
    return path.removeprefix(start) if folder else path


def _put_dataset(target: Target, one: _Set, folder: str, modern: bool) -> None:
    """The data set of a split; several become one."""
    path = f"data.{one.split}"
    made = [
        _dataset(target, node, one.split, folder, name, modern)
        for node in one.parts
        for name in _ann_files(node) or [""]
    ]
    found = _sets_together([part for part in made if part is not None])
    if not found:
        return
    if len(found) == 1:
        target.put(path, found[0], one.parts[0].at("ann_file"))
    else:
        target.put(path, {"type": "joined", "sources": found}, one.node)


def _sets_together(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """VOC data that differ in their sets alone are one data set."""
    rest = [{key: value for key, value in part.items() if key != "sets"} for part in found]
    if len(found) < 2 or any("sets" not in part for part in found) or any(other != rest[0] for other in rest):
        return found
    return [{**rest[0], "sets": [name for part in found for name in part["sets"]]}]


def _dataset(target: Target, node: Node, split: str, folder: str, file: str, modern: bool) -> dict[str, Any] | None:
    """One data set with one annotation file."""
    kind = node.type
    node.ignore("data_root", "ann_file", "img_prefix", "test_mode", "pipeline", "lazy_init", "serialize_data")
    node.ignore("data_prefix.img", "data_prefix.img_path", "max_refetch", "img_suffix", *OLDER)
    for key in ("backend_args", "file_client_args"):
        node.at(key).expect("backend", "disk", "local", why="files are read from this machine's disks")
        node.ignore(key)
    node.at("proposal_file").refuse("proposals are made by det-core proposals, and set as data.train.proposals")
    if "VOC" in kind:
        made = _voc(node, split, folder, file)
    else:
        if kind not in _COCO_TYPES:
            as_coco = file.endswith(".json") or not file
            if not as_coco:
                node.refuse(f"data set {kind} of {file!r} {NO_COUNTERPART}; the recipe's data are kept")
                return None
            node.ledger.note(node.place, f"{node.name}.type", f"data set {kind} is read as COCO's format")
        made = _coco(target, node, split, folder, file, modern)
    _semantic(node, folder, made)
    names = _classes(node)
    if names and (kind, names) != ("CocoDataset", COCO_CLASSES):
        made["classes"] = list(names)
    node.ignore("seg_prefix", "data_prefix.seg", "filter_cfg", "metainfo.palette", "metainfo.PALETTE")
    return made


def _coco(target: Target, node: Node, split: str, folder: str, file: str, modern: bool) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "coco", "split": split}
    files = _below(folder, _placed(node, file)), _below(folder, _placed(node, _images(node))).rstrip("/")
    if file and files != _USUAL[split]:
        made["annotations"] = files[0]
        made["images"] = files[1] or "."
    if split != "train":
        return made
    rules = node.at("filter_cfg")
    empty = rules.at("filter_empty_gt") if modern else node.at("filter_empty_gt")
    made["filter_empty"] = bool(empty.take(not modern))
    made["min_size"] = whole(rules.at("min_size").take(0 if modern else 32)) or 0
    node.ledger.list_unused(rules)
    return made


def _voc(node: Node, split: str, folder: str, file: str) -> dict[str, Any]:
    """VOC: `VOC2007/ImageSets/Main/trainval.txt` is the set VOC2007/trainval; what is above it is its folder."""
    place = _below(folder, _placed(node, file))
    found = re.fullmatch(r"(?:(?:(?P<above>.*)/)?(?P<name>[^/]+)/)?ImageSets/Main/(?P<set>[^/]+)\.txt", place)
    made: dict[str, Any] = {"type": "voc", "split": split, "folder": (found and found["above"]) or ""}
    if found is not None:
        made["sets"] = [f"{found['name']}/{found['set']}" if found["name"] else found["set"]]
    else:
        node.at("ann_file").refuse(f"{file!r} is not a list of images below ImageSets/Main; the usual sets are used")
    if split == "train":
        made["filter_empty"] = True
        made["min_size"] = whole(node.first("filter_cfg.min_size", "min_size").take(32)) or 0
    node.ignore("min_size", "data_prefix.sub_data_root")
    small = node.first("filter_cfg.bbox_min_size", "bbox_min_size")
    if small.given and small.value is not None:
        small.refuse(f"{shown(small.value)}; objects that are smaller are not left out")
    return made


def _semantic(node: Node, folder: str, made: dict[str, Any]) -> None:
    maps = next(iter(_strings(node.first("data_prefix.seg", "seg_prefix").value)), "")
    if maps and made["type"] == "coco":
        made["semantic_dir"] = _below(folder, _placed(node, maps)).rstrip("/")


def _classes(node: Node) -> tuple[str, ...]:
    found = node.first("metainfo.classes", "metainfo.CLASSES", "classes")
    value = found.take()
    if isinstance(value, str):
        found.refuse(f"{value!r} is a file of names; write them as data.train.classes")
        return ()
    names = tuple(_strings(value))
    return VOC_CLASSES if names == VOC_CLASSES else names


def _wrappers(target: Target, one: _Set) -> None:
    if one.repeat is not None:
        target.copy("data.repeat", one.repeat, 1)
    elif target.get("data.repeat") != 1:
        target.put("data.repeat", 1, one.node)
    if one.balance is not None:
        target.put("data.repeat_threshold", number(one.balance.take()), one.balance)


def _pipeline(target: Target, one: _Set, root: Node, modern: bool) -> None:
    """Transforms of training images, those of a wrapper last."""
    old = target.get("data.train_transforms") or []
    template: dict[str, Any] = next(
        (t for t in (*old, *(target.get("data.test_transforms") or [])) if t["type"] == "resize"), {}
    )
    made: list[dict[str, Any]] = []
    found = [node for node in (one.pipeline(root), *one.outer_pipelines) if node.given]
    if not found:
        size = one.parts[0].at("img_scale")
        if size.given:
            older = older_transforms(one.parts[0], template)
            target.put("data.train_transforms", [_with_settings(old, part) for part in older], size)
        return
    for node in found:
        made += train_transforms(node, template, modern=modern)
        node.take()
    for other in one.parts[1:]:
        if other.at("pipeline").value != one.parts[0].at("pipeline").value:
            other.at("pipeline").refuse("differs from that of the first data set, which is used for all")
        other.ignore("pipeline")
    filled = [_with_settings(old, part) for part in made]
    target.put("data.train_transforms", filled, found[0])


def _with_settings(old: list[dict[str, Any]], part: dict[str, Any]) -> dict[str, Any]:
    """A transform with the other settings that the recipe's of the same type has."""
    return {**next((t for t in old if t["type"] == part["type"]), {}), **part}


def _check_test(val: _Set, test: _Set) -> None:
    """The test data are found by name; a note if they are others than those of validation."""
    same = [(_ann_files(n), _images(n)) for n in val.parts] == [(_ann_files(n), _images(n)) for n in test.parts]
    for node in test.parts:
        node.ignore("type", "data_root", "ann_file", "img_prefix", "data_prefix", "test_mode", "pipeline", "classes")
        node.ignore("metainfo", "filter_cfg", "backend_args", "file_client_args", "seg_prefix", "proposal_file", *OLDER)
        if not same:
            files = ", ".join(_ann_files(node))
            node.at("ann_file").refuse(
                f"{files or 'the test data'}: a recipe has no test data of its own; evaluate on them with det-core "
                "test --set data.val.annotations=FILE --set data.val.images=FOLDER"
            )


def _batches(target: Target, root: Node, train: _Set, modern: bool) -> None:
    if modern:
        loader = root.at("train_dataloader")
        size, workers = loader.at("batch_size"), loader.at("num_workers")
        loader.ignore("persistent_workers", "sampler.shuffle", "collate_fn", "pin_memory", "drop_last")
        loader.ignore("num_batch_per_epoch")
        kind = loader.at("sampler").type
        if kind not in ("", "DefaultSampler", "InfiniteSampler"):
            loader.at("sampler").refuse(f"sampler {kind} {NO_COUNTERPART}")
        batches = loader.at("batch_sampler")
        grouped = batches.type == "AspectRatioBatchSampler" if batches.value is not None else False
        if batches.given and batches.value is not None and not grouped:
            batches.refuse(f"batch sampler {shown(batches.value)} {NO_COUNTERPART}")
        batches.ignore("drop_last")
        batches.take()
        if loader.given:
            target.put("data.group_by_aspect", grouped, batches)
        for name in ("val_dataloader", "test_dataloader"):
            keys = ("batch_size", "num_workers", "persistent_workers", "drop_last", "sampler", "pin_memory")
            root.at(name).ignore(*keys)
    else:
        data = root.at("data")
        size, workers = data.first("samples_per_gpu", "imgs_per_gpu"), data.at("workers_per_gpu")
        for name in ("train_dataloader", "val_dataloader", "test_dataloader"):
            data.at(name).ignore("samples_per_gpu", "workers_per_gpu", "persistent_workers")
    target.copy_given("data.images_per_rank", size)
    target.copy_given("data.workers", workers)
    base = root.at("auto_scale_lr.base_batch_size")
    total = whole(base.take()) if base.given else None
    if total is None and size.given and whole(size.value):
        total = GPUS * (whole(size.value) or 1)
        size.note(
            f"the learning rate is taken to be for {GPUS} GPUs with {size.value} images each (optimizer.lr_batch: "
            f"{total}), and is scaled to the total batch of a run; if it is for another total, set that"
        )
    if total is not None:
        target.put("optimizer.lr_batch", total, base if base.given else size)
    root.at("auto_scale_lr").ignore("enable")
