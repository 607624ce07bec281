"""Configuration files in the words of mmdetection 1.x, 2.x and 3.x, made for these tests."""

from __future__ import annotations

RUNTIME_2 = """
checkpoint_config = dict(interval=1)
log_config = dict(interval=50, hooks=[dict(type='TextLoggerHook')])
dist_params = dict(backend='nccl')
log_level = 'INFO'
load_from = None
resume_from = None
workflow = [('train', 1)]
"""

# Of 2.x, and but for a word of 1.x.
DATA_2 = """
dataset_type = 'CocoDataset'
data_root = 'data/coco/'
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True{masks}),
    dict(type='Resize', img_scale=(1333, 800), keep_ratio=True),
    dict(type='RandomFlip', flip_ratio=0.5),
    dict(type='Normalize', **img_norm_cfg),
    dict(type='Pad', size_divisor=32),
    dict(type='DefaultFormatBundle'),
    dict(type='Collect', keys=['img', 'gt_bboxes', 'gt_labels']),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='MultiScaleFlipAug', img_scale=(1333, 800), flip=False,
        transforms=[
            dict(type='Resize', keep_ratio=True), dict(type='RandomFlip'), dict(type='Normalize', **img_norm_cfg),
            dict(type='Pad', size_divisor=32), dict(type='ImageToTensor', keys=['img']),
            dict(type='Collect', keys=['img'])])
]
data = dict(
    samples_per_gpu=2,
    workers_per_gpu=2,
    train=dict(
        type=dataset_type, ann_file=data_root + 'annotations/instances_train2017.json',
        img_prefix=data_root + 'train2017/', pipeline=train_pipeline),
    val=dict(
        type=dataset_type, ann_file=data_root + 'annotations/instances_val2017.json',
        img_prefix=data_root + 'val2017/', pipeline=test_pipeline),
    test=dict(
        type=dataset_type, ann_file=data_root + 'annotations/instances_val2017.json',
        img_prefix=data_root + 'val2017/', pipeline=test_pipeline))
evaluation = dict(interval=1, metric={metric})
"""

# mmdetection 1.x: one file, limits at the top.

FASTER_1 = (
    """
model = dict(
    type='FasterRCNN',
    pretrained='torchvision://resnet50',
    backbone=dict(
        type='ResNet', depth=50, num_stages=4, out_indices=(0, 1, 2, 3), frozen_stages=1, style='pytorch'),
    neck=dict(type='FPN', in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=5),
    rpn_head=dict(
        type='RPNHead', in_channels=256, feat_channels=256, anchor_scales=[8], anchor_ratios=[0.5, 1.0, 2.0],
        anchor_strides=[4, 8, 16, 32, 64], target_means=[.0, .0, .0, .0], target_stds=[1.0, 1.0, 1.0, 1.0],
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type='SmoothL1Loss', beta=1.0 / 9.0, loss_weight=1.0)),
    bbox_roi_extractor=dict(
        type='SingleRoIExtractor', roi_layer=dict(type='RoIAlign', out_size=7, sample_num=2), out_channels=256,
        featmap_strides=[4, 8, 16, 32]),
    bbox_head=dict(
        type='SharedFCBBoxHead', num_fcs=2, in_channels=256, fc_out_channels=1024, roi_feat_size=7, num_classes=81,
        target_means=[0., 0., 0., 0.], target_stds=[0.1, 0.1, 0.2, 0.2], reg_class_agnostic=False,
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
        loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0)))
train_cfg = dict(
    rpn=dict(
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3, ignore_iof_thr=-1),
        sampler=dict(type='RandomSampler', num=256, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False),
        allowed_border=0, pos_weight=-1, debug=False),
    rpn_proposal=dict(
        nms_across_levels=False, nms_pre=2000, nms_post=2000, max_num=2000, nms_thr=0.7, min_bbox_size=0),
    rcnn=dict(
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, ignore_iof_thr=-1),
        sampler=dict(type='RandomSampler', num=512, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True),
        pos_weight=-1, debug=False))
test_cfg = dict(
    rpn=dict(nms_across_levels=False, nms_pre=1000, nms_post=1000, max_num=1000, nms_thr=0.7, min_bbox_size=0),
    rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_thr=0.5), max_per_img=100))
"""
    + DATA_2.format(masks="", metric="'bbox'").replace("samples_per_gpu", "imgs_per_gpu")
    + """optimizer = dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001)
optimizer_config = dict(grad_clip=None)
lr_config = dict(policy='step', warmup='linear', warmup_iters=500, warmup_ratio=0.001, step=[8, 11])
total_epochs = 12
work_dir = './work_dirs/faster'
"""
    + RUNTIME_2
)

# The data of versions before 1.0, whose transforms are settings of the data set.
DATA_0 = """
dataset_type = 'CocoDataset'
data_root = 'data/coco/'
img_norm_cfg = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
data = dict(
    imgs_per_gpu=2, workers_per_gpu=2,
    train=dict(
        type=dataset_type, ann_file=data_root + 'annotations/instances_train2017.json',
        img_prefix=data_root + 'train2017/', img_scale=(1333, 800), img_norm_cfg=img_norm_cfg, size_divisor=32,
        flip_ratio=0.5, with_mask=False, with_crowd=True, with_label=True),
    val=dict(
        type=dataset_type, ann_file=data_root + 'annotations/instances_val2017.json',
        img_prefix=data_root + 'val2017/', img_scale=(1333, 800), img_norm_cfg=img_norm_cfg, size_divisor=32,
        flip_ratio=0, with_mask=False, with_crowd=True, with_label=True),
    test=dict(
        type=dataset_type, ann_file=data_root + 'annotations/instances_val2017.json',
        img_prefix=data_root + 'val2017/', img_scale=(1333, 800), img_norm_cfg=img_norm_cfg, size_divisor=32,
        flip_ratio=0, with_mask=False, with_label=False, test_mode=True))
"""
_START, _END = FASTER_1.index("\ndataset_type = "), FASTER_1.index("optimizer = dict(type='SGD'")
FASTER_0 = FASTER_1[:_START] + DATA_0 + FASTER_1[_END:]


def htc_1() -> str:
    """HTC in one file of 1.x."""
    box = """dict(
            type='SharedFCBBoxHead', num_fcs=2, in_channels=256, fc_out_channels=1024, roi_feat_size=7, num_classes=81,
            target_means=[0., 0., 0., 0.], target_stds=[{stds}], reg_class_agnostic=True,
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
            loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0))"""
    stage = """dict(
            assigner=dict(
                type='MaxIoUAssigner', pos_iou_thr={iou}, neg_iou_thr={iou}, min_pos_iou={iou}, ignore_iof_thr=-1),
            sampler=dict(type='RandomSampler', num=512, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True),
            mask_size=28, pos_weight=-1, debug=False)"""
    pool = """dict(
        type='SingleRoIExtractor', roi_layer=dict(type='RoIAlign', out_size=14, sample_num=2), out_channels=256,
        featmap_strides={strides})"""
    boxes = [box.format(stds=s) for s in ("0.1, 0.1, 0.2, 0.2", "0.05, 0.05, 0.1, 0.1", "0.033, 0.033, 0.067, 0.067")]
    parts = f"""    bbox_head=[{", ".join(boxes)}],
    mask_roi_extractor={pool.format(strides="[4, 8, 16, 32]")},
    mask_head=dict(
        type='HTCMaskHead', num_convs=4, in_channels=256, conv_out_channels=256, num_classes=81,
        loss_mask=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0)),
    semantic_roi_extractor={pool.format(strides="[8]")},
    semantic_head=dict(
        type='FusedSemanticHead', num_ins=5, fusion_level=1, num_convs=4, in_channels=256, conv_out_channels=256,
        num_classes=183, ignore_label=255, loss_weight=0.2))
"""
    training = (
        f"rcnn=[{', '.join(stage.format(iou=iou) for iou in (0.5, 0.6, 0.7))}], stage_loss_weights=[1, 0.5, 0.25])"
    )
    text = FASTER_1
    text = text[: text.index("    bbox_head=dict(")] + parts + text[text.index("train_cfg = dict(") :]
    text = text[: text.index("rcnn=dict(\n        assigner")] + training + "\n" + text[text.index("test_cfg = dict(") :]
    for old, new in (
        ("type='FasterRCNN',", "type='HybridTaskCascade', num_stages=3, interleaved=True, mask_info_flow=True,"),
        ("score_thr=0.05, ", "score_thr=0.001, mask_thr_binary=0.5, "),
        ("max_per_img=100))", "max_per_img=100), keep_all_stages=False)"),
        ("with_bbox=True)", "with_bbox=True, with_mask=True, with_seg=True)"),
        ("train2017/', pipeline", "train2017/', seg_prefix=data_root + 'stuffthingmaps/train2017/', pipeline"),
        (
            "dict(type='DefaultFormatBundle')",
            "dict(type='SegResizeFlipPadRescale', scale_factor=1 / 8), dict(type='DefaultFormatBundle')",
        ),
        ("metric='bbox'", "metric=['bbox', 'segm']"),
    ):
        assert old in text, old
        text = text.replace(old, new)
    return text


# mmdetection 2.x: bases.

R50_2 = """backbone=dict(
        type='ResNet', depth=50, num_stages=4, out_indices=(0, 1, 2, 3), frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=True), norm_eval=True, style='pytorch',
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'))"""
RPN_2 = """rpn_head=dict(
        type='RPNHead', in_channels=256, feat_channels=256,
        anchor_generator=dict(
            type='AnchorGenerator', scales=[8], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64]),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder', target_means=[.0, .0, .0, .0], target_stds=[1.0, 1.0, 1.0, 1.0]),
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type={rpn_loss}, loss_weight=1.0))"""
BOX_2 = """dict(
            type='Shared2FCBBoxHead', in_channels=256, fc_out_channels=1024, roi_feat_size=7, num_classes=80,
            bbox_coder=dict(
                type='DeltaXYWHBBoxCoder', target_means=[0., 0., 0., 0.], target_stds=[{stds}]),
            reg_class_agnostic={agnostic},
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0),
            loss_bbox=dict(type={loss}, loss_weight=1.0))"""
RPN_TRAIN = """rpn=dict(
            assigner=dict(
                type='MaxIoUAssigner', pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3, match_low_quality=True,
                ignore_iof_thr=-1),
            sampler=dict(type='RandomSampler', num=256, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False),
            allowed_border={border}, pos_weight=-1, debug=False),
        rpn_proposal=dict(nms_pre=2000, max_per_img={kept}, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0)"""
RCNN_TRAIN = """dict(
            assigner=dict(
                type='MaxIoUAssigner', pos_iou_thr={iou}, neg_iou_thr={iou}, min_pos_iou={iou},
                match_low_quality={low}, ignore_iof_thr=-1),
            sampler=dict(type='RandomSampler', num=512, pos_fraction=0.25, neg_pos_ub=-1, add_gt_as_proposals=True),
            {more}pos_weight=-1, debug=False)"""
TEST_2 = """test_cfg=dict(
        rpn=dict(nms_pre=1000, max_per_img=1000, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0),
        rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=100{more}))"""
FPN_2 = "neck=dict(type='FPN', in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=5)"
ALIGN_2 = """dict(
            type='SingleRoIExtractor', roi_layer=dict(type='RoIAlign', output_size={size}, sampling_ratio=0),
            out_channels=256, featmap_strides=[4, 8, 16, 32])"""
MASK_2 = f""",
        mask_roi_extractor={ALIGN_2.format(size=14)},
        mask_head=dict(
            type='FCNMaskHead', num_convs=4, in_channels=256, conv_out_channels=256, num_classes=80,
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0))"""
PREPROCESSOR = """data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        {more}pad_size_divisor=32),
    """


def two_stage(*, mask: bool = False, first: str = "") -> str:
    """The model of a Faster or Mask R-CNN of 2.x, with `first` before its other parts, as in 3.x."""
    box = BOX_2.format(stds="0.1, 0.1, 0.2, 0.2", agnostic=False, loss="'L1Loss'")
    rcnn = RCNN_TRAIN.format(iou=0.5, low=mask, more="mask_size=28, " if mask else "")
    return f"""
model = dict(
    type='{"MaskRCNN" if mask else "FasterRCNN"}',
    {first}{R50_2},
    {FPN_2},
    {RPN_2.format(rpn_loss="'L1Loss'")},
    roi_head=dict(
        type='StandardRoIHead',
        bbox_roi_extractor={ALIGN_2.format(size=7)},
        bbox_head={box}{MASK_2 if mask else ""}),
    train_cfg=dict(
        {RPN_TRAIN.format(border=-1, kept=1000)},
        rcnn={rcnn}),
    {TEST_2.format(more=", mask_thr_binary=0.5" if mask else "")})
"""


STAGE_HEADS = ", ".join(
    BOX_2.format(stds=stds, agnostic=True, loss="'SmoothL1Loss', beta=1.0")
    for stds in ("0.1, 0.1, 0.2, 0.2", "0.05, 0.05, 0.1, 0.1", "0.033, 0.033, 0.067, 0.067")
)


def cascade() -> str:
    """The model of a Cascade R-CNN of 2.x."""
    training = [RCNN_TRAIN.format(iou=iou, low=False, more="") for iou in (0.5, 0.6, 0.7)]
    return f"""
model = dict(
    type='CascadeRCNN',
    {R50_2},
    {FPN_2},
    {RPN_2.format(rpn_loss="'SmoothL1Loss', beta=1.0 / 9.0")},
    roi_head=dict(
        type='CascadeRoIHead', num_stages=3, stage_loss_weights=[1, 0.5, 0.25],
        bbox_roi_extractor={ALIGN_2.format(size=7)},
        bbox_head=[{STAGE_HEADS}]),
    train_cfg=dict(
        {RPN_TRAIN.format(border=0, kept=2000)},
        rcnn=[{", ".join(training)}]),
    {TEST_2.format(more="")})
"""


def htc() -> str:
    """The model of HTC of 2.x, on R-50."""
    masks = [
        f"""dict(
            type='HTCMaskHead', {flow}num_convs=4, in_channels=256, conv_out_channels=256, num_classes=80,
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0))"""
        for flow in ("with_conv_res=False, ", "", "")
    ]
    training = [RCNN_TRAIN.format(iou=iou, low=True, more="mask_size=28, ") for iou in (0.5, 0.6, 0.7)]
    return f"""
model = dict(
    type='HybridTaskCascade',
    {R50_2},
    {FPN_2},
    {RPN_2.format(rpn_loss="'SmoothL1Loss', beta=1.0 / 9.0")},
    roi_head=dict(
        type='HybridTaskCascadeRoIHead', interleaved=True, mask_info_flow=True, num_stages=3,
        stage_loss_weights=[1, 0.5, 0.25],
        bbox_roi_extractor={ALIGN_2.format(size=7)},
        bbox_head=[{STAGE_HEADS}],
        mask_roi_extractor={ALIGN_2.format(size=14)},
        mask_head=[{", ".join(masks)}],
        semantic_roi_extractor=dict(
            type='SingleRoIExtractor', roi_layer=dict(type='RoIAlign', output_size=14, sampling_ratio=0),
            out_channels=256, featmap_strides=[8]),
        semantic_head=dict(
            type='FusedSemanticHead', num_ins=5, fusion_level=1, num_convs=4, in_channels=256, conv_out_channels=256,
            num_classes=183, loss_seg=dict(type='CrossEntropyLoss', ignore_index=255, loss_weight=0.2))),
    train_cfg=dict(
        {RPN_TRAIN.format(border=0, kept=2000)},
        rcnn=[{", ".join(training)}]),
    {TEST_2.format(more=", mask_thr_binary=0.5").replace("score_thr=0.05", "score_thr=0.001")})
"""


GUIDED_PARTS = """approx_anchor_generator=dict(
            type='AnchorGenerator', octave_base_scale={scale}, scales_per_octave=3, ratios=[0.5, 1.0, 2.0],
            strides={strides}),
        square_anchor_generator=dict(type='AnchorGenerator', ratios=[1.0], scales=[{scale}], strides={strides}),
        anchor_coder=dict(
            type='DeltaXYWHBBoxCoder', target_means=[.0, .0, .0, .0], target_stds={shape_stds}),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[.0, .0, .0, .0], target_stds={stds}),
        loc_filter_thr=0.01,
        loss_loc=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_shape=dict(type='BoundedIoULoss', beta=0.2, loss_weight=1.0),"""
GUIDED_TRAIN = """ga_assigner=dict(
                type='ApproxMaxIoUAssigner', pos_iou_thr={high}, neg_iou_thr={low}, min_pos_iou={least},
                ignore_iof_thr=-1),
            ga_sampler=dict(
                type='RandomSampler', num=256, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False),
            center_ratio=0.2, ignore_ratio=0.5,"""


def _guided(scale: int, strides: str, shape_stds: str, stds: str) -> str:
    return GUIDED_PARTS.format(scale=scale, strides=strides, shape_stds=shape_stds, stds=stds)


# On a file of 2.x: a GA-RPN in place of its RPN.
GA_RPN = f"""
model = dict(
    rpn_head=dict(
        _delete_=True, type='GARPNHead', in_channels=256, feat_channels=256,
        {_guided(8, "[4, 8, 16, 32, 64]", "[0.07, 0.07, 0.14, 0.14]", "[0.07, 0.07, 0.11, 0.11]")}
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True, loss_weight=1.0),
        loss_bbox=dict(type='SmoothL1Loss', beta=1.0, loss_weight=1.0)),
    train_cfg=dict(
        rpn=dict(
            {GUIDED_TRAIN.format(high=0.7, low=0.3, least=0.3)}
            allowed_border=-1),
        rpn_proposal=dict(nms_post=1000, max_per_img=300),
        rcnn=dict(
            assigner=dict(pos_iou_thr=0.6, neg_iou_thr=0.6, min_pos_iou=0.6),
            sampler=dict(type='RandomSampler', num=256))),
    test_cfg=dict(rpn=dict(nms_pre=2000, nms_post=1000, max_per_img=300), rcnn=dict(score_thr=1e-3)),
    roi_head=dict(bbox_head=dict(bbox_coder=dict(target_stds=[0.05, 0.05, 0.1, 0.1]))))
optimizer_config = dict(_delete_=True, grad_clip=dict(max_norm=35, norm_type=2))
"""
GA_RETINA = f"""
model = dict(
    bbox_head=dict(
        _delete_=True, type='GARetinaHead', num_classes=80, in_channels=256, stacked_convs=4, feat_channels=256,
        {_guided(4, "[8, 16, 32, 64, 128]", "[1.0, 1.0, 1.0, 1.0]", "[1.0, 1.0, 1.0, 1.0]")}
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='SmoothL1Loss', beta=0.04, loss_weight=1.0)),
    train_cfg=dict(
        {GUIDED_TRAIN.format(high=0.5, low=0.4, least=0.4)}
        assigner=dict(neg_iou_thr=0.5, min_pos_iou=0.0)))
optimizer = dict(lr=0.01)
optimizer_config = dict(_delete_=True, grad_clip=dict(max_norm=35, norm_type=2))
"""

RETINA_2 = f"""
model = dict(
    type='RetinaNet',
    {R50_2},
    neck=dict(
        type='FPN', in_channels=[256, 512, 1024, 2048], out_channels=256, start_level=1,
        add_extra_convs='on_input', num_outs=5),
    bbox_head=dict(
        type='RetinaHead', num_classes=80, in_channels=256, stacked_convs=4, feat_channels=256,
        anchor_generator=dict(
            type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3, ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32, 64, 128]),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder', target_means=[.0, .0, .0, .0], target_stds=[1.0, 1.0, 1.0, 1.0]),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type='L1Loss', loss_weight=1.0)),
    train_cfg=dict(
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1),
        allowed_border=-1, pos_weight=-1, debug=False),
    test_cfg=dict(
        nms_pre=1000, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=100))
"""
# On files of 2.x: an RPN alone, a Fast R-CNN, a model on C4, and other layers.
RPN_ALONE = f"""
model = dict(
    _delete_=True, type='RPN',
    {R50_2},
    {FPN_2},
    {RPN_2.format(rpn_loss="'L1Loss'")},
    train_cfg=dict(
        {RPN_TRAIN.format(border=-1, kept=1000).partition("rpn_proposal")[0]}),
    test_cfg=dict(
        rpn=dict(nms_pre=2000, max_per_img=1000, nms=dict(type='nms', iou_threshold=0.7), min_bbox_size=0)))
evaluation = dict(metric='proposal_fast')
"""
FAST = f"""
model = dict(
    _delete_=True, type='FastRCNN',
    {R50_2},
    {FPN_2},
    roi_head=dict(
        type='StandardRoIHead',
        bbox_roi_extractor={ALIGN_2.format(size=7)},
        bbox_head={BOX_2.format(stds="0.1, 0.1, 0.2, 0.2", agnostic=False, loss="'L1Loss'")}),
    train_cfg=dict(rcnn={RCNN_TRAIN.format(iou=0.5, low=False, more="")}),
    test_cfg=dict(rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)))
"""
STANDARDISED = """
conv_cfg = dict(type='ConvWS')
norm_cfg = dict(type='GN', num_groups=32, requires_grad=True)
model = dict(
    backbone=dict(conv_cfg=conv_cfg, norm_cfg=norm_cfg, init_cfg=dict(
        type='Pretrained', checkpoint='open-mmlab://jhu/resnet50_gn_ws')),
    neck=dict(conv_cfg=conv_cfg, norm_cfg=norm_cfg),
    roi_head=dict(bbox_head=dict(
        type='Shared4Conv1FCBBoxHead', conv_out_channels=256, conv_cfg=conv_cfg, norm_cfg=norm_cfg)))
"""
NEXT = """
model = dict(backbone=dict(
    type='ResNeXt', depth=101, groups=32, base_width=4,
    init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://resnext101_32x4d')))
"""
SCHEDULE_2 = """
optimizer = dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=0.0001)
optimizer_config = dict(grad_clip=None)
lr_config = dict(policy='step', warmup='linear', warmup_iters=500, warmup_ratio=0.001, step=[8, 11])
runner = dict(type='EpochBasedRunner', max_epochs=12)
"""
BASES_2 = {
    "_base_/models/faster.py": two_stage(),
    "_base_/models/mask.py": two_stage(mask=True),
    "_base_/models/cascade.py": cascade(),
    "_base_/models/htc.py": htc(),
    "_base_/models/retina.py": RETINA_2,
    "_base_/data.py": DATA_2.format(masks="", metric="'bbox'"),
    "_base_/masks.py": DATA_2.format(masks=", with_mask=True", metric="['bbox', 'segm']"),
    "_base_/schedule.py": SCHEDULE_2,
    "_base_/runtime.py": RUNTIME_2 + "auto_scale_lr = dict(enable=False, base_batch_size=16)\n",
}


def on_bases(model: str, data: str = "data", more: str = "") -> str:
    """A file of 2.x on its bases, in the folder `x`."""
    names = [f"../_base_/{name}.py" for name in (f"models/{model}", data, "schedule", "runtime")]
    return f"_base_ = {names}\n{more}"


# mmdetection 3.x.

DATA_3 = """
dataset_type = {coco}
data_root = 'data/coco/'
backend_args = None
train_pipeline = [
    dict(type={load}, backend_args=backend_args),
    dict(type={annotations}, with_bbox=True),
    dict(type={resize}, scale=(1333, 800), keep_ratio=True),
    dict(type={flip}, prob=0.5),
    dict(type={pack}),
]
test_pipeline = [
    dict(type={load}, backend_args=backend_args),
    dict(type={resize}, scale=(1333, 800), keep_ratio=True),
    dict(type={annotations}, with_bbox=True),
    dict(type={pack}, meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
train_dataloader = dict(
    batch_size=2, num_workers=2, persistent_workers=True, sampler=dict(type={sampler}, shuffle=True),
    batch_sampler=dict(type={batches}),
    dataset=dict(
        type=dataset_type, data_root=data_root, ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'), filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=train_pipeline, backend_args=backend_args))
val_dataloader = dict(
    batch_size=1, num_workers=2, persistent_workers=True, drop_last=False,
    sampler=dict(type={sampler}, shuffle=False),
    dataset=dict(
        type=dataset_type, data_root=data_root, ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'), test_mode=True, pipeline=test_pipeline, backend_args=backend_args))
test_dataloader = val_dataloader
val_evaluator = dict(
    type={metric}, ann_file=data_root + 'annotations/instances_val2017.json', metric='bbox', format_only=False,
    backend_args=backend_args)
test_evaluator = val_evaluator
"""
SCHEDULE_3 = """
train_cfg = dict(type={loop}, max_epochs=12, val_interval=1)
val_cfg = dict(type={val})
test_cfg = dict(type={test})
param_scheduler = [
    dict(type={linear}, start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type={steps}, begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1)
]
optim_wrapper = dict(
    type={wrapper}, optimizer=dict(type={sgd}, lr=0.02, momentum=0.9, weight_decay=0.0001))
auto_scale_lr = dict(enable=False, base_batch_size=16)
"""
RUNTIME_3 = """
default_scope = 'mmdet'
default_hooks = dict(
    timer=dict(type='IterTimerHook'), logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'), checkpoint=dict(type='CheckpointHook', interval=1),
    sampler_seed=dict(type='DistSamplerSeedHook'), visualization=dict(type='DetVisualizationHook'))
env_cfg = dict(cudnn_benchmark=False, dist_cfg=dict(backend='nccl'))
log_level = 'INFO'
load_from = None
resume = False
"""
CLASSES_3 = {
    "coco": "CocoDataset",
    "load": "LoadImageFromFile",
    "annotations": "LoadAnnotations",
    "resize": "Resize",
    "flip": "RandomFlip",
    "pack": "PackDetInputs",
    "sampler": "DefaultSampler",
    "batches": "AspectRatioBatchSampler",
    "metric": "CocoMetric",
    "loop": "EpochBasedTrainLoop",
    "val": "ValLoop",
    "test": "TestLoop",
    "linear": "LinearLR",
    "steps": "MultiStepLR",
    "wrapper": "OptimWrapper",
    "sgd": "SGD",
}
TEXT_3 = {name: f"'{cls}'" for name, cls in CLASSES_3.items()}
FASTER_3 = two_stage(first=PREPROCESSOR.format(more="pad_mask=False, "))
# SSD300 of 3.x.

SSD_MODEL = """
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[1, 1, 1], bgr_to_rgb=True,
        pad_size_divisor=1),
    backbone=dict(
        type='SSDVGG', depth=16, with_last_pool=False, ceil_mode=True, out_indices=(3, 4),
        out_feature_indices=(22, 34), init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://vgg16_caffe')),
    neck=dict(
        type='SSDNeck', in_channels=(512, 1024), out_channels=(512, 1024, 512, 256, 256, 256),
        level_strides=(2, 2, 1, 1), level_paddings=(1, 1, 0, 0), l2_norm_scale=20),
    bbox_head=dict(
        type='SSDHead', in_channels=(512, 1024, 512, 256, 256, 256), num_classes=80,
        anchor_generator=dict(
            type='SSDAnchorGenerator', scale_major=False, input_size=300, basesize_ratio_range=(0.15, 0.9),
            strides=[8, 16, 32, 64, 100, 300], ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]]),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder', target_means=[.0, .0, .0, .0], target_stds=[0.1, 0.1, 0.2, 0.2])),
    train_cfg=dict(
        assigner=dict(
            type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0., ignore_iof_thr=-1,
            gt_max_assign_all=False),
        sampler=dict(type='PseudoSampler'),
        smoothl1_beta=1., allowed_border=-1, pos_weight=-1, neg_pos_ratio=3, debug=False),
    test_cfg=dict(
        nms_pre=1000, nms=dict(type='nms', iou_threshold=0.45), min_bbox_size=0, score_thr=0.02, max_per_img=200))
"""
BASES_3 = {
    "_base_/models/faster.py": FASTER_3,
    "_base_/models/mask.py": two_stage(mask=True, first=PREPROCESSOR.format(more="pad_mask=True, ")),
    "_base_/models/ssd.py": SSD_MODEL,
    "_base_/data.py": DATA_3.format(**TEXT_3),
    "_base_/schedule.py": SCHEDULE_3.format(**TEXT_3),
    "_base_/runtime.py": RUNTIME_3,
}
IMPORTS = (
    "from mmcv.transforms import LoadImageFromFile, RandomResize\n"
    "from mmdet.datasets import CocoDataset, AspectRatioBatchSampler\n"
    "from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, RandomFlip, Resize\n"
    "from mmdet.evaluation import CocoMetric\n"
    "from mmengine.dataset import DefaultSampler\n"
    "from mmengine.optim import LinearLR, MultiStepLR, OptimWrapper\n"
    "from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop\n"
    "from torch.optim import SGD\n"
)
# The newer style: modules that import their bases, and classes in place of names.
PURE = {
    "_base_/models/faster.py": "from mmdet.models import FPN, FasterRCNN, ResNet\n"
    + FASTER_3.replace("'FasterRCNN'", "FasterRCNN").replace("'FPN'", "FPN").replace("type='ResNet'", "type=ResNet"),
    "_base_/data.py": IMPORTS + DATA_3.format(**CLASSES_3),
    "_base_/schedule.py": IMPORTS + SCHEDULE_3.format(**CLASSES_3),
    "_base_/runtime.py": RUNTIME_3,
}
PURE_FILE = """
from mmengine.config import read_base
with read_base():
    from .._base_.models.faster import *
    from .._base_.data import *
    from .._base_.schedule import *
    from .._base_.runtime import *
"""
# SSD300 of 3.x, on these bases.

SSD = """
_base_ = ['../_base_/models/ssd.py', '../_base_/data.py', '../_base_/schedule.py', '../_base_/runtime.py']
input_size = 300
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Expand', mean={{_base_.model.data_preprocessor.mean}}, to_rgb=True, ratio_range=(1, 4)),
    dict(type='MinIoURandomCrop', min_ious=(0.1, 0.3, 0.5, 0.7, 0.9), min_crop_size=0.3),
    dict(type='Resize', scale=(input_size, input_size), keep_ratio=False),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='PhotoMetricDistortion', brightness_delta=32, contrast_range=(0.5, 1.5), saturation_range=(0.5, 1.5),
        hue_delta=18),
    dict(type='PackDetInputs')
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(input_size, input_size), keep_ratio=False),
    dict(type='PackDetInputs')
]
train_dataloader = dict(
    batch_size=8, num_workers=2, batch_sampler=None,
    dataset=dict(
        _delete_=True, type='RepeatDataset', times=5,
        dataset=dict(
            type={{_base_.dataset_type}}, data_root={{_base_.data_root}},
            ann_file='annotations/instances_train2017.json', data_prefix=dict(img='train2017/'),
            filter_cfg=dict(filter_empty_gt=True, min_size=32), pipeline=train_pipeline)))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=24)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', begin=0, end=24, by_epoch=True, milestones=[16, 22], gamma=0.1)
]
optim_wrapper = dict(optimizer=dict(lr=2e-3, weight_decay=5e-4))
auto_scale_lr = dict(base_batch_size=64)
"""

# Networks of timm, on files of 3.x.
SWIN = """
model = dict(
    backbone=dict(
        _delete_=True, type='SwinTransformer', embed_dims=96, depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24],
        window_size=7, mlp_ratio=4, qkv_bias=True, qk_scale=None, drop_rate=0., attn_drop_rate=0., drop_path_rate=0.2,
        patch_norm=True, out_indices=(0, 1, 2, 3), with_cp=False, convert_weights=True,
        init_cfg=dict(type='Pretrained', checkpoint='models/swin_tiny_patch4_window7_224.pth')),
    neck=dict(in_channels=[96, 192, 384, 768]))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1)]
optim_wrapper = dict(
    type='OptimWrapper', paramwise_cfg=dict(custom_keys={
        'absolute_pos_embed': dict(decay_mult=0.), 'relative_position_bias_table': dict(decay_mult=0.),
        'norm': dict(decay_mult=0.)}),
    optimizer=dict(_delete_=True, type='AdamW', lr=0.0001, betas=(0.9, 0.999), weight_decay=0.05))
val_evaluator = dict(metric=['bbox', 'segm'])
"""
CONVNEXT = """
model = dict(
    backbone=dict(
        _delete_=True, type='mmpretrain.ConvNeXt', arch='tiny', out_indices=[0, 1, 2, 3], drop_path_rate=0.4,
        layer_scale_init_value=1.0, gap_before_final_norm=False,
        init_cfg=dict(type='Pretrained', checkpoint='models/convnext-tiny_3rdparty.pth', prefix='backbone.')),
    neck=dict(in_channels=[96, 192, 384, 768]))
optim_wrapper = dict(
    type='AmpOptimWrapper', constructor='LearningRateDecayOptimizerConstructor',
    paramwise_cfg={'decay_rate': 0.95, 'decay_type': 'layer_wise', 'num_layers': 6},
    optimizer=dict(_delete_=True, type='AdamW', lr=0.0001, betas=(0.9, 0.999), weight_decay=0.05))
"""
