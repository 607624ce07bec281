"""`--set` values that make a demo recipe of R-CNN tiny, so that a test trains it in seconds."""

DETECTOR = (
    "detector.neck={type: fpn, channels: 32, norm: {type: group_norm, groups: 8}}",
    "detector.dense_head.channels=32",
    "detector.dense_head.train_limits={before_nms: 50, after_nms: 30}",
    "detector.dense_head.test_limits={before_nms: 50, after_nms: 30}",
    "detector.roi_head.box_head.fc_channels=32",
    "detector.roi_head.sampler.count=16",
)
DATA = (
    "data.train_transforms=[{type: resize, scales: [[96, 96]]}, {type: flip}]",
    "data.test_transforms=[{type: resize, scales: [[96, 96]]}]",
    "data.workers=0",
)
MASKS = "detector.roi_head.mask_head={type: conv_mask_head, num_convs: 1, channels: 16}"
NO_DROP = "schedule.learning_rate.milestones=[]"
