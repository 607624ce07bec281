"""`det-core import-config`: recipes from configuration files of detectron2."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

from detectron2_configs import BASES, CASCADE, PUBLISHED, on
from test_import_config import line_of, notes, value_at

from det_core.cli.main import run
from det_core.errors import DetError
from det_core.import_config.import_config import import_config
from det_core.import_config.imported_config import ImportedConfig
from det_core.import_config.yacs_defaults import DEFAULTS
from det_core.load import load_recipe


def lay_out(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    """Write a configuration beside its bases."""
    for place, content in {**BASES, f"x/{name}": text}.items():
        file = folder / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf8")
    return folder / "x" / name


@pytest.fixture
def imported(tmp_path):
    def make(text: str, *options: str) -> ImportedConfig:
        return import_config(lay_out(tmp_path, text), options)

    return make


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_configuration_is_the_recipe(name, imported):
    made = imported(PUBLISHED[name])
    assert (made.base, made.changes) == (name, {})
    assert made.recipe.to_plain()["detector"] == load_recipe(name).to_plain()["detector"]
    if "lvis" not in name:
        assert not made.notes


CHANGES: list[tuple[str, str, Any]] = [
    ("MODEL.RESNETS.DEPTH=101", "detector.backbone.depth", 101),
    ("MODEL.RESNETS.STRIDE_IN_1X1=False", "detector.backbone.style", "pytorch"),
    ("MODEL.RESNETS.NUM_GROUPS=32", "detector.backbone.groups", 32),
    ("MODEL.RESNETS.NORM=BN", "detector.backbone.norm.type", "batch_norm"),
    ("MODEL.RESNETS.NORM=SyncBN", "detector.backbone.norm.synchronised", True),
    ("MODEL.RESNETS.DEFORM_ON_PER_STAGE=[False,False,False,True]", "detector.backbone.spatial_stages", [4]),
    ("MODEL.BACKBONE.FREEZE_AT=0", "detector.backbone.frozen_stages", -1),
    (
        "MODEL.WEIGHTS=detectron2://ImageNetPretrained/MSRA/R-101.pkl",
        "detector.backbone.pretrained",
        "detectron2:R-101",
    ),
    ("MODEL.WEIGHTS=''", "detector.backbone.pretrained", None),
    ("MODEL.PIXEL_STD=[57.375, 57.12, 58.395]", "detector.preprocess.std", [57.375, 57.12, 58.395]),
    ("INPUT.FORMAT=RGB", "detector.preprocess.order", "rgb"),
    ("MODEL.FPN.OUT_CHANNELS=128", "detector.neck.channels", 128),
    ("MODEL.FPN.OUT_CHANNELS=128", "detector.dense_head.channels", 128),
    ("MODEL.FPN.NORM=GN", "detector.neck.norm.type", "group_norm"),
    (
        "MODEL.ANCHOR_GENERATOR.SIZES=[[16], [32], [64], [128], [256]]",
        *("detector.dense_head.anchors.scales", [4.0]),
    ),
    ("MODEL.ANCHOR_GENERATOR.SIZES=[[32, 64]]", "detector.dense_head.anchors.sides", [32.0, 64.0]),
    ("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS=[[1.0]]", "detector.dense_head.anchors.ratios", [1.0]),
    ("MODEL.RPN.IOU_THRESHOLDS=[0.2, 0.8]", "detector.dense_head.assigner.positive", 0.8),
    ("MODEL.RPN.BATCH_SIZE_PER_IMAGE=128", "detector.dense_head.loss_anchors", 128),
    ("MODEL.RPN.LOSS_WEIGHT=2.0", "detector.dense_head.cls_loss.weight", 2.0),
    ("MODEL.RPN.LOSS_WEIGHT=2.0", "detector.dense_head.box_loss.weight", 2.0),
    ("MODEL.RPN.CONV_DIMS=[-1, -1]", "detector.dense_head.num_convs", 2),
    ("MODEL.RPN.CONV_DIMS=[64]", "detector.dense_head.channels", 64),
    ("MODEL.RPN.BBOX_REG_WEIGHTS=(2.0, 2.0, 4.0, 4.0)", "detector.dense_head.coder.stds", [0.5, 0.5, 0.25, 0.25]),
    ("MODEL.RPN.NMS_THRESH=0.6", "detector.dense_head.nms_threshold", 0.6),
    ("MODEL.PROPOSAL_GENERATOR.MIN_SIZE=4", "detector.dense_head.min_size", 4.0),
    ("MODEL.ROI_HEADS.SCORE_THRESH_TEST=0.3", "detector.roi_head.score_threshold", 0.3),
    ("MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE=128", "detector.roi_head.sampler.count", 128),
    ("MODEL.ROI_HEADS.IOU_THRESHOLDS=[0.6]", "detector.roi_head.assigner.positive", 0.6),
    ("MODEL.ROI_HEADS.PROPOSAL_APPEND_GT=False", "detector.roi_head.add_ground_truth", False),
    ("MODEL.ROI_BOX_HEAD.NUM_CONV=4", "detector.roi_head.box_head.num_convs", 4),
    ("MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO=2", "detector.roi_head.roi_pool.sampling", 2),
    ("MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA=0.5", "detector.roi_head.box_loss.beta", 0.5),
    ("MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT=3", "detector.roi_head.box_loss.weight", 3.0),
    ("TEST.DETECTIONS_PER_IMAGE=7", "detector.roi_head.max_detections", 7),
    ("INPUT.MAX_SIZE_TRAIN=1000", "data.train_transforms[0].scales[0]", [1000, 640]),
    ("INPUT.MIN_SIZE_TEST=600", "data.test_transforms[0].scales", [[1333, 600]]),
    ("INPUT.RANDOM_FLIP=vertical", "data.train_transforms[1].vertical_probability", 0.5),
    ("INPUT.RANDOM_FLIP=none", "data.train_transforms[1].probability", 0.0),
    ("DATALOADER.NUM_WORKERS=0", "data.workers", 0),
    ("DATALOADER.ASPECT_RATIO_GROUPING=False", "data.group_by_aspect", False),
    ("DATALOADER.FILTER_EMPTY_ANNOTATIONS=False", "data.train.filter_empty", False),
    ("SOLVER.IMS_PER_BATCH=8", "optimizer.lr_batch", 8),
    ("SOLVER.IMS_PER_BATCH=8", "data.images_per_rank", 1),
    ("SOLVER.BASE_LR=0.005", "optimizer.lr", 0.005),
    ("SOLVER.WEIGHT_DECAY_BIAS=0.0", "optimizer.bias_weight_decay", 0.0),
    ("SOLVER.MAX_ITER=180000", "schedule.epochs", 25),
    ("SOLVER.STEPS=(30000,)", "schedule.learning_rate.milestones", [4]),
    ("SOLVER.GAMMA=0.2", "schedule.learning_rate.gamma", 0.2),
    ("SOLVER.LR_SCHEDULER_NAME=WarmupCosineLR", "schedule.learning_rate.type", "cosine"),
    ("SOLVER.WARMUP_ITERS=0", "schedule.warmup_steps", 0),
    ("SOLVER.AMP.ENABLED=True", "schedule.precision", "fp16"),
    ("SEED=7", "schedule.seed", 7),
]


@pytest.mark.parametrize(("option", "path", "value"), CHANGES, ids=[f"{case[0]}-{case[1]}" for case in CHANGES])
def test_a_key_becomes_a_setting(option, path, value, imported):
    made = imported(on("fpn"), option)
    assert value_at(made.recipe.to_plain(), path) == value
    assert not made.notes


def test_sizes_from_a_range(imported):
    made = imported(on("fpn"), "INPUT.MIN_SIZE_TRAIN_SAMPLING=range", "INPUT.MIN_SIZE_TRAIN=(640, 800)")
    resize = made.recipe.to_plain()["data"]["train_transforms"][0]
    assert (resize["mode"], resize["scales"]) == ("range", [[1333, 640], [1333, 800]])
    assert not made.notes


def test_settings_of_retinanet(imported):
    made = imported(
        on("retinanet"),
        *("MODEL.RETINANET.NUM_CONVS=2", "MODEL.RETINANET.FOCAL_LOSS_ALPHA=0.5", "MODEL.RETINANET.PRIOR_PROB=0.02"),
        *("MODEL.RETINANET.SMOOTH_L1_LOSS_BETA=0.1", "TEST.DETECTIONS_PER_IMAGE=9", "MODEL.RETINANET.NORM=GN"),
    )
    head = made.changes["detector"]["dense_head"]
    assert head == {
        "num_convs": 2,
        "cls_loss": {"alpha": 0.5},
        "prior": 0.02,
        "box_loss": {"type": "smooth_l1", "beta": 0.1},
        "max_detections": 9,
        "norm": {"type": "group_norm"},
    }


def test_a_cascade_without_masks_is_that_with_masks_without_them(imported):
    made = imported(on("fpn", CASCADE.replace("MASK_ON: True", "MASK_ON: False")))
    assert made.base == "cascade-mask-rcnn/detectron2-r50-fpn-1x"
    assert made.changes == {
        "detector": {"roi_head": {"mask_roi_pool": None, "mask_head": None}},
        "evaluation": {"evaluators": [{"type": "coco"}]},
    }
    stages = imported(on("fpn", CASCADE), "MODEL.ROI_BOX_CASCADE_HEAD.IOUS=(0.5, 0.6, 0.8)").recipe.to_plain()
    assert value_at(stages, "detector.roi_head.stages[2].assigner.positive") == 0.8


def test_given_proposals_of_a_model_with_masks_are_listed(imported):
    text = PUBLISHED["fast-rcnn/detectron2-r50-fpn-1x"].replace("MODEL:\n", "MODEL:\n  MASK_ON: True\n", 1)
    made = imported(text)
    assert made.base == "mask-rcnn/detectron2-r50-fpn-1x"
    assert any("'PrecomputedProposals' has no counterpart here in this model" in note for note in notes(made))


def test_data_sets_of_ones_own(imported):
    text = on("fpn", 'MODEL:\n  ROI_HEADS: {NUM_CLASSES: 3}\nDATASETS:\n  TRAIN: ("parts_train",)\n')
    made = imported(text)
    assert (made.base, made.changes) == ("faster-rcnn/detectron2-r50-fpn-1x", {})
    assert notes(made) == [
        f"mine.yaml:{line_of(text, 'NUM_CLASSES')}: MODEL.ROI_HEADS.NUM_CLASSES: 3 classes; the number is that of the "
        "data, whose classes are all in their annotations unless data.train.classes lists them",
        f"mine.yaml:{line_of(text, 'TRAIN')}: DATASETS.TRAIN: parts_train: the name stands for files that the "
        "configuration does not say; give their folder with --data, or set data.train.annotations and "
        "data.train.images",
        f"fpn.yaml:{line_of(BASES['bases/fpn.yaml'], 'MAX_ITER')}: SOLVER.MAX_ITER: 90000 iterations of 16 images, and "
        "steps at [60000, 80000]: the number of images is not known, so the recipe's 12 epochs are kept; set "
        "schedule.epochs and schedule.learning_rate",
    ]


NOTED = {
    "MODEL.KEYPOINT_ON=True": "a keypoint head has no counterpart here; the detector is built without it",
    "MODEL.PROPOSAL_GENERATOR.NAME=RRPN": "'RRPN' has no counterpart here in this model; it has an RPN",
    "INPUT.MIN_SIZE_TRAIN=[0]": "[0]: expected sizes above 0; the recipe's are kept",
    "MODEL.RESNETS.NORM=LN": "norm 'LN' has no counterpart here; the recipe's is kept",
    "MODEL.RESNETS.STEM_OUT_CHANNELS=32": "32 has no counterpart here, only 64",
    "MODEL.RESNETS.DEPTH=77": "is not taken over: detector.backbone.depth: found 77, allowed: 18, 34, 50, 101, 152",
    "MODEL.WEIGHTS=mine.pth": "weights 'mine.pth' are not part of a recipe, and the recipe's (detectron2:R-50) are",
    "INPUT.FORMAT=YUV-BT.601": "'YUV-BT.601' has no counterpart here, only RGB and BGR",
    "INPUT.RANDOM_FLIP=both": "'both': expected horizontal, vertical or none",
    "INPUT.CROP.ENABLED=True": "a crop before resizing; add one of the transforms of data.train_transforms",
    "INPUT.MIN_SIZE_TEST=0": "0: test images are resized here",
    "MODEL.FPN.FUSE_TYPE=avg": "'avg' has no counterpart here, only 'sum'",
    "MODEL.FPN.IN_FEATURES=['p1']": "['p1']: not stages of a ResNet",
    "MODEL.ANCHOR_GENERATOR.SIZES=[[32], [64], [128], [256], [300]]": "the same sizes, in strides, on all 5 levels",
    "MODEL.ANCHOR_GENERATOR.SIZES=many": "'many': expected a list of sizes for each level",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS=[[1], [2]]": "anchors here have the same ratios on all levels",
    "MODEL.ANCHOR_GENERATOR.OFFSET=0.5": "anchors here are centred on the corner of their cell",
    "MODEL.RPN.IN_FEATURES=['p2', 'p3']": "here it works on all of ['p2', 'p3', 'p4', 'p5', 'p6']",
    "MODEL.RPN.IOU_THRESHOLDS=[0.3]": "[0.3]: expected two thresholds",
    "MODEL.RPN.BBOX_REG_LOSS_TYPE=diou": "loss 'diou' has no counterpart here, only smooth_l1 and giou",
    "MODEL.RPN.BBOX_REG_WEIGHTS=[1, 1, 0, 1]": "[1, 1, 0, 1]: expected four weights above 0",
    "MODEL.ROI_HEADS.IOU_THRESHOLDS=[0.3, 0.7]": "[0.3, 0.7]: expected one threshold",
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE=ROIPool": "pooling 'ROIPool' has no counterpart here, only ROIAlignV2 and ROIAlign",
    "MODEL.ROI_BOX_HEAD.USE_FED_LOSS=True": "True has no counterpart here, only False",
    "MODEL.ROI_BOX_HEAD.MINE=3": "3 has no counterpart here",
    "DATALOADER.SAMPLER_TRAIN=Mine": "sampler 'Mine' has no counterpart here, only TrainingSampler and RepeatFactor",
    "DATASETS.PROPOSAL_FILES_TRAIN=('p.pkl',)": "proposals are made by det-core proposals",
    "SOLVER.BIAS_LR_FACTOR=2.0": "a learning rate of all biases is a rule",
    "SOLVER.WARMUP_METHOD=constant": "'constant' has no counterpart here, only 'linear'",
    "SOLVER.LR_SCHEDULER_NAME=Mine": "schedule 'Mine' has no counterpart here; the recipe's is kept",
    "SOLVER.CLIP_GRADIENTS.ENABLED=True": "gradients are clipped by their 2-norm here (schedule.clip_norm), not by",
    "SOLVER.CHECKPOINT_PERIOD=5000": "a checkpoint is written after each epoch; --save-every adds others",
    "TEST.EVAL_PERIOD=5000": "evaluation is every evaluation.every_epochs epochs",
    "TEST.AUG={ENABLED: true, MIN_SIZES: [400, 800], MAX_SIZE: 2000}": (
        "det-core test --scale 2000x400 --scale 2000x800 --flip"
    ),
    "TEST.PRECISE_BN.ENABLED=True": "precise statistics of batch norm has no counterpart here",
    "OUTPUT_DIR=runs": "the run folder is an option: det-core train --work-dir",
    "MODEL.MASK_ON=maybe": "'maybe': expected true or false; False is used, detectron2's default",
    "MODEL.WEIGHTS=3": "3: expected text; '' is used, detectron2's default",
    "SOLVER.BASE_LR=[1]": "[1]: expected a number; 0.001 is used, detectron2's default",
    "DATASETS.TRAIN={a: 1}": "{'a': 1}: expected a list; [] is used, detectron2's default",
    "MY.HOOK=3": "MY: {'HOOK': 3} has no counterpart here",
}


@pytest.mark.parametrize("option", NOTED)
def test_what_is_not_taken_over_is_listed(option, imported):
    found = [note for note in notes(imported(on("fpn"), option)) if "MAX_ITER" not in note]
    assert len(found) == 1
    assert NOTED[option] in found[0]


def test_stages_and_clipping_that_differ_in_kind(imported):
    made = imported(on("fpn", CASCADE), "MODEL.ROI_BOX_CASCADE_HEAD.IOUS=(0.5, 0.6)")
    assert any("2 stages; the recipe has 3, which are kept" in note for note in notes(made))
    clip = "SOLVER.CLIP_GRADIENTS={ENABLED: true, CLIP_TYPE: norm, CLIP_VALUE: 0.5}"
    made = imported(on("fpn"), clip)
    assert made.recipe.schedule.clip_norm == 0.5
    assert any("each parameter's gradient there" in note for note in notes(made))


def test_the_file_that_a_run_of_detectron2_writes_has_no_more_to_say(imported):
    """It contains all keys, most of them with their defaults."""
    text = on("fpn")
    own = ("MODEL.WEIGHTS", *(key for key in DEFAULTS if "PRE_NMS" in key))
    unset = [f"{key}={value!r}" for key, value in DEFAULTS.items() if key not in own and key not in _keys(BASES)]
    full = imported(text, *unset, "MODEL.RETINANET.NUM_CONVS=9", "MODEL.SEM_SEG_HEAD.NUM_CLASSES=54", "VIS_PERIOD=0")
    assert full.changes == imported(text).changes
    assert not full.notes


def _keys(bases: dict[str, str]) -> set[str]:
    found = yaml.safe_load(bases["bases/fpn.yaml"])

    def walk(value: Any, path: str) -> list[str]:
        if not isinstance(value, dict):
            return [path]
        return [key for name, inner in value.items() for key in walk(inner, f"{path}.{name}" if path else name)]

    return set(walk(found, ""))


def test_nothing_in_a_file_runs(imported, tmp_path):
    made = tmp_path / "made"
    attack = (
        f"MODEL:\n  RESNETS: {{DEPTH: !!python/object/apply:os.mkdir ['{made}']}}\n"
        f"SOLVER: {{STEPS: \"[__import__('os').mkdir('{made}')]\"}}\n"
    )
    found = imported(on("fpn", attack))
    assert not made.exists()
    assert any("MODEL.RESNETS.DEPTH" in note for note in notes(found))


ERRORS = {
    "SOLVER: {}\n": "mine.yaml: has no mapping MODEL, so it is not the configuration of a model of detectron2",
    "[1, 2]\n": "mine.yaml: not a configuration of detectron2, which is a mapping with MODEL, SOLVER and so on",
    '_BASE_: "mine.yaml"\n': "mine.yaml:1: _BASE_: .*mine.yaml: is its own base",
    '_BASE_: "no.yaml"\n': "mine.yaml:1: _BASE_: .*no.yaml: no such file",
    '_BASE_: "detectron2://x.yaml"\n': "mine.yaml:1: _BASE_: 'detectron2://x.yaml' is not a file; give its path",
    "MODEL: {META_ARCHITECTURE: PanopticFPN}\n": "mine.yaml:1: MODEL.META_ARCHITECTURE 'PanopticFPN': there are no",
    "MODEL: {BACKBONE: {NAME: build_vgg}}\n": "mine.yaml:1: backbone 'build_vgg': only ResNets have recipes",
    "MODEL: {ROI_HEADS: {NAME: PointRend}}\n": "MODEL.ROI_HEADS.NAME 'PointRend': there are no recipes",
    "MODEL: {TYPE: generalized_rcnn}\n": "a configuration of detectron, which is not translated; det-core recipes "
    "--weights-of detectron lists",
    "MODEL: {BACKBONE: {CONV_BODY: R-50-FPN}}\n": "a configuration of maskrcnn-benchmark, which is not translated",
    "MODEL: {META_ARCHITECTURE: RetinaNet}\n": "the model is retinanet on c4, and there is no recipe",
    "MODEL: {a: [\n": "mine.yaml:2:1: not valid YAML",
}


@pytest.mark.parametrize("text", ERRORS)
def test_a_file_that_is_refused(text, imported):
    with pytest.raises(DetError, match=ERRORS[text]):
        imported(text)


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "latin.yaml").write_bytes(b"MODEL: \xff\n")
    with pytest.raises(DetError, match=r"latin.yaml: cannot be read"):
        import_config(tmp_path / "latin.yaml")
    many = tmp_path / "many.yaml"
    (tmp_path / "base.yaml").write_text("MODEL: {}\n")
    for number in range(101):
        (tmp_path / f"{number}.yaml").write_text(f"_BASE_: {number + 1}.yaml\n" if number < 100 else "MODEL: {}\n")
    with pytest.raises(DetError, match="has more than 100 base files"):
        import_config(tmp_path / "0.yaml")
    for number in range(8):
        (tmp_path / f"twice{number}.yaml").write_text(f"_BASE_: [{', '.join([f'twice{number + 1}.yaml'] * 2)}]\n")
    (tmp_path / "twice8.yaml").write_text("MODEL: {}\n")
    with pytest.raises(DetError, match="has more than 100 base files"):  # each opening of a file counts
        import_config(tmp_path / "twice0.yaml")
    many.write_text("_BASE_: [base.yaml, base.yaml]\nMODEL: {META_ARCHITECTURE: ProposalNetwork}\n")
    assert import_config(many).base.startswith("rpn/")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("SOLVER", r"--cfg-options 'SOLVER': expected KEY=VALUE, such as SOLVER.IMS_PER_BATCH=8"),
        ("SEED.x=3", r"--cfg-options SEED.x=3: SEED is 5, which has no keys"),
    ],
)
def test_options_that_do_not_fit(option, message, imported):
    with pytest.raises(DetError, match=message):
        imported(on("fpn") + "SEED: 5\n", option)


def test_text_that_is_python(imported):
    """yacs reads text as Python where it is; a list with `for`, as detectron2's RetinaNet has it, is read too."""
    base = BASES["bases/fpn.yaml"].replace("SIZES: [[32], [64], [128], [256], [512]]", "SIZES: {0}")
    for sizes in (
        "'[[8 * 2 ** n] for n in range(2)]'",
        "'[[n] for n in x if n]'",
        f"'{'(' * 200}'",
        f"'{'1,' * 6000}'",
    ):
        found = notes(imported(base.replace("{0}", sizes)))
        assert any("SIZES" in note and "expected a list of sizes" in note for note in found), sizes
    made = imported(base.replace("{0}", "'[[n / 2] for n in [32, 64, 128, 256, 512]]'"))
    assert value_at(made.recipe.to_plain(), "detector.dense_head.anchors.scales") == [4.0]


def test_the_command_writes_a_recipe(tmp_path, capsys):
    file, out = lay_out(tmp_path, on("fpn", "MODEL: {}") + "OUTPUT_DIR: runs\n"), tmp_path / "mine.yaml"
    assert run(["import-config", str(file), "-o", str(out), "--cfg-options", "SOLVER.IMS_PER_BATCH=8"]) == 0
    assert "extends faster-rcnn/detectron2-r50-fpn-1x, 1 note on what is not taken over" in capsys.readouterr().out
    assert out.read_text().startswith("# From mine.yaml of detectron2, by det-core import-config.\n")
    assert load_recipe(out).data.images_per_rank == 1


@pytest.mark.parametrize("command", ["import-config", "train --data x --config"])
@pytest.mark.parametrize("name", ["endless.yaml", "endless.yml"])
def test_a_device_without_an_end_is_refused(command, name, tmp_path, capsys):
    (tmp_path / name).symlink_to("/dev/zero")
    assert run([*command.split(), str(tmp_path / name)]) == 1
    assert f"{name}: more than 10000000 bytes, which no configuration file has" in capsys.readouterr().err


def test_a_module_without_an_end_is_refused(tmp_path, capsys):
    (tmp_path / "endless.py").symlink_to("/dev/zero")
    assert run(["import-config", str(tmp_path / "endless.py")]) == 1
    assert "endless.py: more than" in capsys.readouterr().err
