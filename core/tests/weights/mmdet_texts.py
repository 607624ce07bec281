"""Short configurations in the words of mmdetection 0.5 to 3.x, by the name of the recipe that they describe.

They are made for these tests: only what tells models apart, in the forms that each version had.
"""

from __future__ import annotations

# mmdetection 0.5 and 0.6: the data set prepares images; one set of RPN limits.

OLD_DATA = """
norm = dict(mean=[{mean}], std=[{std}], to_rgb={rgb})
data_root = 'data/coco/'
data = dict(
    imgs_per_gpu=2,
    train=dict(type='{dataset}', ann_file=data_root + 'train.json', img_scale=(1333, 800), img_norm_cfg=norm),
    test=dict(type='{dataset}', img_scale={scale}, img_norm_cfg=norm, size_divisor={divisor}, test_mode=True{more}))
"""
TORCH = {"mean": "123.675, 116.28, 103.53", "std": "58.395, 57.12, 57.375", "rgb": True}
CAFFE = {"mean": "102.9801, 115.9465, 122.7717", "std": "1.0, 1.0, 1.0", "rgb": False}
COCO = {"dataset": "CocoDataset", "scale": "(1333, 800)", "divisor": 32, "more": ""}

# mmdetection 1.0 to 1.2: a pipeline prepares images.
PIPELINE_DATA = """
img_norm_cfg = dict(mean=[{mean}], std=[{std}], to_rgb={rgb})
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='MultiScaleFlipAug', img_scale={scale}, flip=False, transforms=[
        dict(type='Resize', keep_ratio=True), dict(type='RandomFlip'), dict(type='Normalize', **img_norm_cfg),
        dict(type='Pad', size_divisor={divisor}), dict(type='ImageToTensor', keys=['img'])])]
data = dict(train=dict(type='{dataset}', pipeline=[]), test=dict(type='{dataset}', pipeline=test_pipeline))
"""
SCHEDULE = """
lr_config = dict(policy='step', warmup_ratio=1.0 / 3, step={step})
total_epochs = {epochs}
work_dir = './work_dirs/x'
workflow = [('train', 1)]
"""


def schedule(epochs: int = 12, step: str = "[8, 11]") -> str:
    return SCHEDULE.format(epochs=epochs, step=step)


R50 = "backbone=dict(type='ResNet', depth=50, num_stages=4, out_indices=(0, 1, 2, 3), style='pytorch')"
R50_CAFFE = "backbone=dict(type='ResNet', depth=50, num_stages=4, out_indices=(0, 1, 2, 3), style='caffe')"
R101 = R50.replace("depth=50", "depth=101")
X101 = "backbone=dict(type='ResNeXt', depth=101, groups=32, base_width=4, out_indices=(0, 1, 2, 3), style='pytorch')"
X50 = X101.replace("depth=101", "depth=50")
X101_64 = X101.replace("groups=32", "groups=64")
FPN = "neck=dict(type='FPN', in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=5)"
RETINA_FPN = FPN.replace("num_outs=5", "start_level=1, add_extra_convs=True, num_outs=5")
RPN = """rpn_head=dict(
        type='RPNHead', in_channels=256, anchor_scales=[8], anchor_ratios=[0.5, 1.0, 2.0],
        anchor_strides=[4, 8, 16, 32, 64], target_means=[.0, .0, .0, .0], target_stds=[1.0, 1.0, 1.0, 1.0])"""
C4_RPN = RPN.replace("[8]", "[2, 4, 8, 16, 32]").replace("[4, 8, 16, 32, 64]", "[16]").replace("=256", "=1024")
GUIDED = """octave_base_scale={base}, scales_per_octave=3, octave_ratios=[0.5, 1.0, 2.0],
        anchor_strides=[{strides}], anchoring_means=[.0, .0, .0, .0], anchoring_stds=[{anchoring}],
        target_means=(.0, .0, .0, .0), target_stds=[{stds}], loc_filter_thr=0.01"""
GA_RPN = f"""rpn_head=dict(
        type='GARPNHead', in_channels=256, {
    GUIDED.format(base=8, strides="4, 8, 16, 32, 64", anchoring="0.07, 0.07, 0.14, 0.14", stds="0.07, 0.07, 0.11, 0.11")
})"""
ALIGN = """bbox_roi_extractor=dict(
        type='SingleRoIExtractor', roi_layer=dict(type='RoIAlign', out_size=7, sample_num=2), out_channels=256,
        featmap_strides=[4, 8, 16, 32])"""
POOL = ALIGN.replace(
    "type='RoIAlign', out_size=7, sample_num=2", "type='{}', out_size=7, out_channels=256, trans_std=0.1"
)
BOX = """bbox_head=dict(
        type='SharedFCBBoxHead', num_fcs=2, in_channels=256, fc_out_channels=1024, roi_feat_size=7, num_classes=81,
        target_means=[0., 0., 0., 0.], target_stds=[{}], reg_class_agnostic=False)"""
PLAIN, FINE = "0.1, 0.1, 0.2, 0.2", "0.05, 0.05, 0.1, 0.1"
MASK = """mask_roi_extractor=dict(
        type='SingleRoIExtractor', roi_layer=dict(type='RoIAlign', out_size=14, sample_num=2), out_channels=256,
        featmap_strides=[4, 8, 16, 32]),
    mask_head=dict(type='{}', num_convs=4, in_channels=256, conv_out_channels=256, num_classes=81)"""
CASCADE = (
    f"bbox_head=[\n    {BOX.format(PLAIN)},\n    {BOX.format(FINE)},\n    {BOX.format('0.033, 0.033, 0.067, 0.067')}]"
)
CASCADE = CASCADE.replace("    bbox_head=dict(", "    dict(").replace("agnostic=False", "agnostic=True")
SEMANTIC = """semantic_roi_extractor=dict(
        type='SingleRoIExtractor', roi_layer=dict(type='RoIAlign', out_size=14, sample_num=2), featmap_strides=[8]),
    semantic_head=dict(type='FusedSemanticHead', num_ins=5, fusion_level=1, num_classes=183, loss_weight=0.2)"""

TEST_RPN = "rpn=dict(nms_across_levels=False, nms_pre={0}, nms_post={1}, max_num={1}, nms_thr=0.7, min_bbox_size=0)"
TEST_BOX = "rcnn=dict(score_thr={}, nms=dict(type='nms', iou_thr=0.5), max_per_img=100{})"
PROPOSALS = (
    "train_cfg = dict(\n    rpn=dict(allowed_border=0),\n    rpn_proposal=" + TEST_RPN[4:] + ",\n    rcnn=dict())\n"
)
SINGLE = (
    "test_cfg = dict(nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_thr=0.5), max_per_img=100)"
)


def model(kind: str, *parts: str) -> str:
    inner = ",\n    ".join(part for part in parts if part)
    return f"model = dict(\n    type='{kind}',\n    pretrained='modelzoo://x',\n    {inner})\n"


def limits(rpn: tuple[int, int] | None = (1000, 1000), score: str = "0.05", more: str = "") -> str:
    parts = [TEST_RPN.format(*rpn)] if rpn else []
    return "test_cfg = dict(\n    " + ",\n    ".join([*parts, TEST_BOX.format(score, more)]) + ")\n"


def old_data(norm: dict[str, object] = TORCH, **changes: object) -> str:
    return OLD_DATA.format(**{**COCO, **norm, **changes})


def pipeline_data(norm: dict[str, object] = TORCH, **changes: object) -> str:
    return PIPELINE_DATA.format(**{**COCO, **norm, **changes})


GN_NAMES = ("norm_cfg=norm_cfg", "norm_cfg = dict(type='GN', num_groups=32, requires_grad=True)\n")
OLD_GN_NAMES = ("normalize=normalize", "normalize = dict(type='GN', num_groups=32, frozen=False)\n")
GN_BOX = BOX.format(PLAIN).replace(
    "SharedFCBBoxHead', num_fcs=2", "ConvFCBBoxHead', num_shared_convs=4, num_shared_fcs=1"
)


def group_norm(kind: str, backbone: str, names: tuple[str, str], *, weights: bool = False, mask: bool = True) -> str:
    """A model with group norm everywhere."""
    use, define = names
    if weights:
        use, define = f"conv_cfg=conv_cfg, {use}", f"conv_cfg = dict(type='ConvWS')\n{define}"
    parts = [backbone, FPN, RPN, ALIGN, GN_BOX, MASK.format("FCNMaskHead") if mask else ""]
    parts = [f"{part[:-1]}, {use})" if part and part not in (RPN, ALIGN) else part for part in parts]
    return define + model(kind, *parts)


def ssd(size: int, strides: str, ratios: str, low: str, classes: int) -> str:
    return f"""input_size = {size}
model = dict(
    type='SingleStageDetector', pretrained='open-mmlab://vgg16_caffe',
    backbone=dict(type='SSDVGG', input_size=input_size, depth=16, with_last_pool=False, out_indices=(3, 4)),
    neck=None,
    bbox_head=dict(
        type='SSDHead', input_size=input_size, num_classes={classes}, anchor_strides=({strides}),
        basesize_ratio_range=({low}, 0.9), anchor_ratios=({ratios}), target_means=(.0, .0, .0, .0),
        target_stds=(0.1, 0.1, 0.2, 0.2)))
cudnn_benchmark = True
test_cfg = dict(nms=dict(type='nms', iou_thr=0.45), min_bbox_size=0, score_thr=0.02, max_per_img=200)
"""


SSD_DATA = {"std": "1, 1, 1", "divisor": None, "more": ", resize_keep_ratio=False"}
REPEATED = "\ndata['train'] = dict(type='RepeatDataset', times={}, dataset=data['train'])\n"
RETINA = """bbox_head=dict(
        type='RetinaHead', num_classes=81, in_channels=256, stacked_convs=4, octave_base_scale=4, scales_per_octave=3,
        anchor_ratios=[0.5, 1.0, 2.0], anchor_strides=[8, 16, 32, 64, 128], target_means=[.0, .0, .0, .0],
        target_stds=[1.0, 1.0, 1.0, 1.0])"""
GA_RETINA = f"""bbox_head=dict(
        type='GARetinaHead', num_classes=81, in_channels=256, stacked_convs=4, {
    GUIDED.format(base=4, strides="8, 16, 32, 64, 128", anchoring="1.0, 1.0, 1.0, 1.0", stds="1.0, 1.0, 1.0, 1.0")
})"""
C4 = R50_CAFFE.replace("num_stages=4, out_indices=(0, 1, 2, 3)", "num_stages=3, out_indices=(2, )")
SHARED = "shared_head=dict(type='ResLayer', depth=50, stage=3, stride=2, style='caffe')"
DCN = "dcn=dict({}), stage_with_dcn=(False, True, True, True))"
BOXES = BOX.format(PLAIN)
MASKS = MASK.format("FCNMaskHead")


def dcn(backbone: str, settings: str) -> str:
    return f"{backbone[:-1]}, {DCN.format(settings)}"


LEGACY: dict[str, str] = {
    "rpn/mmdet1-r50-fpn-1x": model("RPN", R50, FPN, RPN)
    + f"test_cfg = dict({TEST_RPN.format(2000, 2000)})\n" + old_data() + schedule(),
    "fast-rcnn/mmdet1-r101-fpn-1x": model("FastRCNN", R101, FPN, ALIGN, BOXES)
    + limits(None) + old_data() + schedule(),
    "fast-mask-rcnn/mmdet1-r101-fpn-2x": model("FastRCNN", R101, FPN, ALIGN, BOXES, MASKS)
    + limits(None) + old_data() + schedule(24, "[16, 22]"),
    "faster-rcnn/mmdet1-r50-fpn-1x": model("FasterRCNN", R50, FPN, RPN, ALIGN, BOXES)
    + limits((2000, 2000)) + old_data() + schedule(),
    "faster-rcnn/mmdet1-r50-caffe-c4-2x": model(
        "FasterRCNN", C4, SHARED, C4_RPN, ALIGN.replace("out_size=7", "out_size=14"), BOXES
    ) + PROPOSALS.format(12000, 2000) + limits((6000, 1000)) + pipeline_data(CAFFE) + schedule(24, "[16, 22]"),
    "mask-rcnn/mmdet1-r50-fpn-1x": model("MaskRCNN", R50, FPN, RPN, ALIGN, BOXES, MASKS)
    + PROPOSALS.format(2000, 2000) + limits(more=", mask_thr_binary=0.5") + pipeline_data() + schedule(),
    "mask-rcnn/mmdet1-r50-fpn-gn-2x": group_norm("MaskRCNN", R50, OLD_GN_NAMES)
    + limits() + old_data(CAFFE) + schedule(24, "[16, 22]"),
    "mask-rcnn/mmdet1-r50-fpn-gn-contrib-3x": group_norm("MaskRCNN", R50, GN_NAMES)
    + limits() + old_data() + schedule(36, "[28, 34]"),
    "mask-rcnn/mmdet1-x101-32x4d-fpn-gn-ws-20-23-24e": group_norm("MaskRCNN", X101, GN_NAMES, weights=True)
    + limits() + pipeline_data() + schedule(24, "[20, 23]"),
    "faster-rcnn/mmdet1-x50-32x4d-fpn-gn-ws-1x": group_norm("FasterRCNN", X50, GN_NAMES, weights=True, mask=False)
    + limits() + pipeline_data() + schedule(),
    "faster-rcnn/mmdet1-r50-fpn-mdconv-group4-c3-c5-1x": model(
        "FasterRCNN", dcn(R50, "modulated=True, deformable_groups=4, fallback_on_stride=False"), FPN, RPN, ALIGN, BOXES
    ) + limits() + old_data() + schedule(),
    "faster-rcnn/mmdet1-r50-fpn-mdconv-c3-c5-1x": model(
        "FasterRCNN", dcn(R50, "type='DCNv2', deformable_groups=1, fallback_on_stride=False"), FPN, RPN, ALIGN, BOXES
    ) + limits() + pipeline_data() + schedule(),
    "mask-rcnn/mmdet1-r101-fpn-dconv-c3-c5-1x": model(
        "MaskRCNN", dcn(R101, "modulated=False, deformable_groups=1"), FPN, RPN, ALIGN, BOXES, MASKS
    ) + limits() + old_data() + schedule(),
    "faster-rcnn/mmdet1-r50-fpn-dpool-1x": model(
        "FasterRCNN", R50, FPN, RPN, POOL.format("DeformRoIPoolingPack"), BOXES
    ) + limits() + old_data() + schedule(),
    "faster-rcnn/mmdet1-r50-fpn-mdpool-1x": model(
        "FasterRCNN", R50, FPN, RPN, POOL.format("ModulatedDeformRoIPoolingPack"), BOXES
    ) + limits() + old_data() + schedule(),
    "retinanet/mmdet1-r50-caffe-fpn-1x": model("RetinaNet", R50_CAFFE, RETINA_FPN, RETINA)
    + SINGLE + old_data(CAFFE) + schedule(),
    "cascade-rcnn/mmdet1-r101-fpn-20e": model("CascadeRCNN", "num_stages=3", R101, FPN, RPN, ALIGN, CASCADE)
    + limits() + old_data() + schedule(20, "[16, 19]"),
    "cascade-mask-rcnn/mmdet1-x101-64x4d-fpn-1x": model(
        "CascadeRCNN", "num_stages=3", X101_64, FPN, RPN, ALIGN, CASCADE, MASKS
    ) + limits() + old_data() + schedule(),
    "htc/mmdet1-r50-fpn-20e": model(
        "HybridTaskCascade", R50, FPN, RPN, ALIGN, CASCADE, MASK.format("HTCMaskHead"), SEMANTIC
    ) + limits(score="0.001") + pipeline_data() + schedule(20, "[16, 19]"),
    "htc-without-semantic/mmdet1-r50-fpn-1x": model(
        "HybridTaskCascade", R50, FPN, RPN, ALIGN, CASCADE, MASK.format("HTCMaskHead")
    ) + limits(score="0.001") + pipeline_data() + schedule(),
    "htc/mmdet1-x101-64x4d-fpn-dconv-c3-c5-ms-20e": model(
        "HybridTaskCascade", dcn(X101_64, "modulated=False, deformable_groups=1"), FPN, RPN, ALIGN, CASCADE,
        MASK.format("HTCMaskHead"), SEMANTIC,
    ) + limits(score="0.001") + pipeline_data() + schedule(20, "[16, 19]"),
    "ssd/mmdet1-vgg16-300-coco-120e": ssd(
        300, "8, 16, 32, 64, 100, 300", "[2], [2, 3], [2, 3], [2, 3], [2], [2]", ".15", 81
    ) + old_data({**TORCH, **SSD_DATA}, scale="(300, 300)") + REPEATED.format(5) + schedule(24, "[16, 22]"),
    "ssd/mmdet1-vgg16-512-voc-240e": ssd(
        512, "8, 16, 32, 64, 128, 256, 512", "[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]", "0.15", 21
    ) + old_data({**TORCH, **SSD_DATA}, scale="(512, 512)", dataset="VOCDataset")
    + REPEATED.format(10) + schedule(24, "[16, 20]"),
    "ga-rpn/mmdet1-r50-caffe-fpn-1x": model("RPN", R50_CAFFE, FPN, GA_RPN)
    + f"test_cfg = dict({TEST_RPN.format(2000, 2000)})\n" + pipeline_data(CAFFE) + schedule(),
    "ga-faster-rcnn/mmdet1-x101-32x4d-fpn-1x": model("FasterRCNN", X101, FPN, GA_RPN, ALIGN, BOX.format(FINE))
    + PROPOSALS.format(2000, 300) + limits((1000, 300), "1e-3") + pipeline_data() + schedule(),
    "ga-fast-rcnn/mmdet1-r50-caffe-fpn-1x": model("FastRCNN", R50_CAFFE, FPN, ALIGN, BOX.format(FINE))
    + limits(None, "1e-3") + old_data(CAFFE) + schedule(),
    "ga-retinanet/mmdet1-r50-caffe-fpn-1x": model("RetinaNet", R50_CAFFE, RETINA_FPN, GA_RETINA)
    + SINGLE + pipeline_data(CAFFE) + schedule(),
}  # fmt: skip

# mmdetection 2.x: as mmcv prints a configuration, with the RoI head as a part.

MODERN_RPN = """rpn_head=dict(
        type='RPNHead',
        anchor_generator=dict(type='AnchorGenerator', scales=[8], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0., 0., 0., 0.], target_stds=[1., 1., 1., 1.]))"""
MODERN_BOX = """roi_head=dict(
        type='StandardRoIHead',
        bbox_roi_extractor=dict(
            type='SingleRoIExtractor', roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0)),
        bbox_head=dict(
            type='Shared2FCBBoxHead', num_classes=80,
            bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2]))"""
MODERN_MASK = ",\n        mask_head=dict(type='FCNMaskHead', num_convs=4, num_classes=80))"
MODERN_TEST = """rpn=dict(nms_pre=1000, max_per_img=1000, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=100, mask_thr_binary=0.5)"""
MODERN_CFG = f"""train_cfg=dict(
        rpn_proposal=dict(nms_pre=2000, max_per_img=1000, nms=dict(type='nms', iou_threshold=0.7))),
    test_cfg=dict(
        {MODERN_TEST})"""
GENERATED = """type='RetinaHead', num_classes=80,
        anchor_generator=dict(
            type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32, 64, 128]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[1.0, 1.0, 1.0, 1.0])"""
PREPROCESSOR = """data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[{mean}], std=[{std}], bgr_to_rgb={rgb}, pad_size_divisor={divisor})"""
MODERN_SINGLE = """test_cfg=dict(
        nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)"""
LOOPS = """
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale={scale}, keep_ratio={keep}),
    dict(type='PackDetInputs', meta_keys=('img_id', 'scale_factor'))]
test_dataloader = dict(batch_size=1, dataset=dict(type='CocoDataset', test_mode=True, pipeline=test_pipeline))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs={epochs}, val_interval=1)
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones={steps}, gamma=0.1)]
"""
MODERN_CAFFE = {"mean": "103.53, 116.28, 123.675", "std": "1.0, 1.0, 1.0", "rgb": False}
MODERN_GUIDED = """rpn_head=dict(
        type='GARPNHead',
        approx_anchor_generator=dict(
            type='AnchorGenerator', octave_base_scale=8, scales_per_octave=3, ratios=[0.5, 1.0, 2.0],
            strides=[4, 8, 16, 32, 64]),
        square_anchor_generator=dict(type='AnchorGenerator', ratios=[1.0], scales=[8], strides=[4, 8, 16, 32, 64]),
        anchor_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.07, 0.07, 0.14, 0.14]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.07, 0.07, 0.11, 0.11]))"""

MODERN: dict[str, str] = {
    "mask-rcnn/r50-fpn-1x": model("MaskRCNN", R50, FPN, MODERN_RPN, MODERN_BOX + MODERN_MASK, MODERN_CFG)
    + pipeline_data() + "\nrunner = dict(type='EpochBasedRunner', max_epochs=12)\nlr_config = dict(step=[8, 11])\n",
    "faster-rcnn/r50-caffe-fpn-1x": model("FasterRCNN", R50_CAFFE, FPN, MODERN_RPN, MODERN_BOX + ")")
    # before 2.6 the settings are beside the model
    + f"test_cfg = dict(\n        {MODERN_TEST})\n" + pipeline_data(MODERN_CAFFE) + schedule(),
    "retinanet/r50-fpn-2x": model(
        "RetinaNet", PREPROCESSOR.format(**TORCH, divisor=32), R50, RETINA_FPN, f"bbox_head=dict({GENERATED})",
        MODERN_SINGLE,
    ) + LOOPS.format(scale="(1333, 800)", keep=True, epochs=24, steps="[16, 22]"),
    "retinanet/r50-caffe-fpn-1x": model(
        "mmdet.models.detectors.retinanet.RetinaNet", PREPROCESSOR.format(**MODERN_CAFFE, divisor=32), R50_CAFFE,
        RETINA_FPN, f"bbox_head=dict({GENERATED})", MODERN_SINGLE
    ) + LOOPS.format(scale="(1333, 800)", keep=True, epochs=12, steps="[8, 11]"),
    "ga-rpn/r50-caffe-fpn-1x": model(
        "RPN", R50_CAFFE, FPN, MODERN_GUIDED, f"test_cfg=dict(\n        {MODERN_TEST.splitlines()[0]})"
    ) + pipeline_data(MODERN_CAFFE) + schedule(),
    "ssd/vgg16-300-coco-120e": f"""
model = dict(
    type='SingleStageDetector',
    {PREPROCESSOR.format(mean=TORCH["mean"], std="1, 1, 1", rgb=True, divisor=1)},
    backbone=dict(type='SSDVGG', depth=16, out_indices=(3, 4)),
    neck=dict(type='SSDNeck', in_channels=(512, 1024), l2_norm_scale=20),
    bbox_head=dict(
        type='SSDHead', num_classes=80,
        anchor_generator=dict(
            type='SSDAnchorGenerator', scale_major=False, input_size=300, basesize_ratio_range=(0.15, 0.9),
            strides=[8, 16, 32, 64, 100, 300], ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]]),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_stds=[0.1, 0.1, 0.2, 0.2])),
    test_cfg=dict(nms_pre=1000, nms=dict(type='nms', iou_threshold=0.45), score_thr=0.02, max_per_img=200))
train_dataloader = dict(dataset=dict(type='RepeatDataset', times=5, dataset=dict(type='CocoDataset')))
""" + LOOPS.format(scale="(300, 300)", keep=False, epochs=24, steps="[16, 22]"),
}  # fmt: skip
