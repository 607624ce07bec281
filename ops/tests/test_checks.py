"""Every message of the public functions, and those of the kernels that look at the data."""

import re

import pytest
import torch
from op_samples import SERVERS, WRONG_DATA, maps, offsets, serve

import det_ops

B, S, G = torch.zeros(3, 4), torch.zeros(3), torch.zeros(3, dtype=torch.int64)
X, R, LEVELS = torch.zeros(2, 4, 8, 8), torch.zeros(3, 5), torch.zeros(3, dtype=torch.int64)
W, OFFSET = torch.zeros(6, 4, 3, 3), torch.zeros(2, 18, 6, 6)
LOGITS, TARGET = torch.zeros(3, 5), torch.zeros(3, dtype=torch.int64)


def align(x=X, r=R, size=(2, 2), scale=1.0, **rest):
    return det_ops.roi_align(x, r, size, scale, **rest)


def levels(features=(X, X), r=R, at=LEVELS, scales=(1.0, 0.5)):
    return det_ops.multi_level_roi_align(features, r, at, (2, 2), scales)


def psroi(x=X, offset=None, channels=4, **rest):
    return det_ops.deform_psroi_pool(x, R, offset, (2, 2), 1.0, channels, **rest)


def conv(x=X, offset=OFFSET, weight=W, **rest):
    return det_ops.deform_conv2d(x, offset, weight, **rest)


def masked(x=X, mask=torch.zeros(2, 6, 6), weight=W, **rest):  # noqa: B008 - never changed
    return det_ops.masked_conv2d(x, mask, weight, **rest)


def focal(logits=LOGITS, target=TARGET, **rest):
    return det_ops.sigmoid_focal_loss(logits, target, **rest)


VALUES = [
    (lambda: det_ops.nms(torch.zeros(3), S, 0.5), "boxes have shape (3,), expected (N, 4)"),
    (lambda: det_ops.nms(torch.zeros(3, 5), S, 0.5), "boxes have shape (3, 5), expected (N, 4)"),
    (lambda: det_ops.nms(B, S[:2], 0.5), "scores have shape (2,), expected (3,) to match boxes"),
    (lambda: det_ops.nms(B, S, 0.5, offset=2), "offset is 2, expected 0 or 1"),
    (lambda: det_ops.nms(B, S, 0.5, max_num=-1), "max_num is -1, expected at least 0, or None for all"),
    (lambda: det_ops.batched_nms(B, S[:2], G, 0.5), "scores have shape (2,), expected (3,) to match boxes"),
    (lambda: det_ops.batched_nms(B, S, G[:2], 0.5), "groups have shape (2,), expected (3,) to match scores"),
    (lambda: det_ops.nms_padded(B, S, G[:2], 0.5, 4), "groups have shape (2,), expected (3,) to match scores"),
    (lambda: det_ops.nms_images(B, S, G, 0.5, 4), "boxes have shape (3, 4), expected (B, N, 4)"),
    (
        lambda: det_ops.nms_images(B[None], S, G[None], 0.5, 4),
        "scores have shape (3,), expected (1, 3) to match boxes",
    ),
    (
        lambda: det_ops.nms_images(B[None], S[None], G, 0.5, 4),
        "groups have shape (3,), expected (1, 3) to match scores",
    ),
    (lambda: det_ops.nms_images(B[None], S[None], G[None], 0.5, -1), "max_out is -1, expected at least 0"),
    (lambda: det_ops.nms_padded(B, S, G, 0.5, -1), "max_out is -1, expected at least 0"),
    (lambda: det_ops.soft_nms(B, S[:2]), "scores have shape (2,), expected (3,) to match boxes"),
    (lambda: det_ops.soft_nms(B, S, method="hard"), "method is 'hard', expected 'linear', 'gaussian' or 'naive'"),
    (lambda: det_ops.soft_nms(B, S, sigma=0.0), "sigma is 0.0, expected a positive number"),
    (lambda: det_ops.box_overlaps(B, S), "others have shape (3,), expected (N, 4)"),
    (lambda: det_ops.box_overlaps(B, B, "ciou"), "mode is 'ciou', expected 'iou', 'iof' or 'giou'"),
    (lambda: det_ops.box_overlaps(B, B, offset=3), "offset is 3, expected 0 or 1"),
    (lambda: det_ops.box_overlaps(B, B[:2], aligned=True), "aligned needs as many others as boxes, found 2 and 3"),
    (lambda: det_ops.max_iou_assign(B, S, 0.5, 0.4), "objects have shape (3,), expected (N, 4)"),
    (lambda: align(X[0]), "features have shape (4, 8, 8), expected (B, C, H, W)"),
    (lambda: align(X[..., :0]), "features have shape (2, 4, 8, 0), expected at least one pixel to pool from"),
    (lambda: align(r=R[:, :4]), "rois have shape (3, 4), expected (K, 5)"),
    (lambda: align(size=(0, 2)), "output_size is (0, 2), expected at least 1 each"),
    (lambda: align(scale=0.0), "scale is 0.0, expected a positive number"),
    (lambda: align(scale=float("inf")), "scale is inf, expected a positive number"),
    (lambda: align(sampling=-1), "sampling is -1, expected at least 0"),
    (lambda: align(alignment="v2"), "alignment is 'v2', expected 'aligned', 'unaligned' or 'v1'"),
    (lambda: align(mode="min"), "mode is 'min', expected 'avg' or 'max'"),
    (lambda: levels([]), "found 0 maps and 2 scales, expected one or more, equally many"),
    (lambda: levels([X]), "found 1 maps and 2 scales, expected one or more, equally many"),
    (lambda: levels([X, X[0]]), "features of level 1 have shape (4, 8, 8), expected (B, C, H, W)"),
    (lambda: levels([X, X[:, :3]]), "features of level 1 have shape (2, 3, 8, 8), level 0 (2, 4, 8, 8)"),
    (lambda: levels(at=LEVELS[:2]), "levels have shape (2,), expected (3,) to match rois"),
    (lambda: det_ops.roi_levels(R[0], 4), "rois have shape (5,), expected (K, 5)"),
    (
        lambda: det_ops.roi_levels(R, 4, rule="fpn"),
        "rule is 'fpn', expected 'mmdet', 'mmdet-v1', 'detectron', 'detectron2' or 'torchvision'",
    ),
    (lambda: det_ops.roi_pool(X[0], R, (2, 2), 1.0), "features have shape (4, 8, 8), expected (B, C, H, W)"),
    (lambda: det_ops.roi_pool(X, R, (2, 2), -1.0), "scale is -1.0, expected a positive number"),
    (lambda: det_ops.deform_roi_pool(X, R, None, (2, 0), 1.0), "output_size is (2, 0), expected at least 1 each"),
    (lambda: det_ops.deform_roi_pool(X, R, None, (2, 2), 1.0, -2), "sampling is -2, expected at least 0"),
    (
        lambda: det_ops.deform_roi_pool(X, R, torch.zeros(3, 2, 2, 3), (2, 2), 1.0),
        "offset has shape (3, 2, 2, 3), expected (3, 2, 2, 2) as (K, 2, h, w)",
    ),
    (lambda: psroi(channels=0), "channels, group_size, part_size and samples must be at least 1"),
    (lambda: psroi(samples=0), "channels, group_size, part_size and samples must be at least 1"),
    (lambda: psroi(group_size=2), "features have 4 channels, expected 4 * 2 ** 2"),
    (
        lambda: psroi(offset=torch.zeros(3, 6, 2, 2)),
        "offset has shape (3, 6, 2, 2), expected (3, 2 * classes, 2, 2) with classes a divisor of 4",
    ),
    (lambda: conv(X[0]), "x has shape (4, 8, 8), expected (B, C, H, W)"),
    (lambda: conv(weight=W[0]), "weight has shape (4, 3, 3), expected (O, 4 / 1, kh, kw) with O a multiple of 1"),
    (lambda: conv(groups=2), "weight has shape (6, 4, 3, 3), expected (O, 4 / 2, kh, kw) with O a multiple of 2"),
    (lambda: conv(bias=torch.zeros(4)), "bias has shape (4,), expected (6,)"),
    (lambda: conv(stride=0), "stride is 0, expected an integer or a pair of at least 1"),
    (lambda: conv(padding=-1), "padding is -1, expected an integer or a pair of at least 0"),
    (lambda: conv(dilation=(1, 1, 1)), "dilation is (1, 1, 1), expected an integer or a pair of at least 1"),
    (lambda: conv(offset_groups=3), "offset_groups is 3, expected a divisor of the 4 channels"),
    (lambda: conv(dilation=4), "x has size (8, 8), too small for this kernel: the result would be empty"),
    (lambda: conv(padding=1), "offset has shape (2, 18, 6, 6), expected (2, 18, 8, 8)"),
    (lambda: conv(mask=OFFSET), "mask has shape (2, 18, 6, 6), expected (2, 9, 6, 6)"),
    (lambda: masked(X[0]), "x has shape (4, 8, 8), expected (B, C, H, W)"),
    (lambda: masked(padding=(1, 0)), "mask has shape (2, 6, 6), expected (2, 8, 6) as (B, h, w)"),
    (lambda: masked(padding=-1), "padding is -1, expected an integer or a pair of at least 0"),
    (lambda: focal(LOGITS[0]), "logits have shape (5,), expected (N, C)"),
    (lambda: focal(target=TARGET[:2]), "target has shape (2,), expected (3,) to match logits"),
    (lambda: focal(weight=torch.zeros(4)), "weight has shape (4,), expected (5,)"),
    (lambda: focal(gamma=-1.0), "gamma is -1.0, expected at least 0"),
    (lambda: focal(gamma=float("nan")), "gamma is nan, expected at least 0"),
    (lambda: focal(reduction="max"), "reduction is 'max', expected 'none', 'sum' or 'mean'"),
]
FLOAT = "expected a floating-point dtype"
F32, F64 = "torch.float32", "torch.float64"
TYPES = [
    (lambda: det_ops.nms(B.long(), S, 0.5), f"boxes have dtype torch.int64, {FLOAT}; convert them with .float()"),
    (lambda: det_ops.nms(B, S.long(), 0.5), f"scores have dtype torch.int64, {FLOAT}; convert them with .float()"),
    (
        lambda: det_ops.batched_nms(B, S, S, 0.5),
        "groups have dtype torch.float32, expected an integer dtype; convert them with .long()",
    ),
    (lambda: det_ops.box_overlaps(B, B.double()), f"boxes have dtype {F32} and others {F64}, expected the same"),
    (
        lambda: det_ops.max_iou_assign(B, B.double(), 0.5, 0.4),
        "boxes have dtype torch.float32 and objects torch.float64, expected the same",
    ),
    (lambda: align(X.long()), f"features have dtype torch.int64, {FLOAT}"),
    (lambda: align(r=R.long()), f"rois have dtype torch.int64, {FLOAT}"),
    (lambda: levels([X, X.double()]), "features of level 1 have dtype torch.float64, those of level 0 torch.float32"),
    (lambda: levels(at=LEVELS.int()), "levels have dtype torch.int32, expected torch.int64"),
    (lambda: det_ops.roi_pool(X.long(), R, (2, 2), 1.0), f"features have dtype torch.int64, {FLOAT}"),
    (lambda: conv(X.long(), weight=W.long()), f"x has dtype torch.int64, {FLOAT}"),
    (lambda: conv(X.double()), f"x has dtype {F64} and weight {F32}, expected the same (or use autocast)"),
    (lambda: masked(X.double()), f"x has dtype {F64} and weight {F32}, expected the same (or use autocast)"),
    (lambda: focal(LOGITS.long()), f"logits have dtype torch.int64, {FLOAT}"),
    (lambda: focal(target=TARGET.int()), "target has dtype torch.int32, expected torch.int64"),
]  # fmt: skip


def test_the_arguments_that_the_others_vary_are_right():
    for call in (align, levels, psroi, conv, masked, focal):
        call()


@pytest.mark.parametrize(("call", "text"), VALUES, ids=[text for _, text in VALUES])
def test_wrong_values_are_named(call, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        call()


@pytest.mark.parametrize(("call", "text"), TYPES, ids=[text for _, text in TYPES])
def test_wrong_types_are_named(call, text):
    with pytest.raises(TypeError, match=f"^{re.escape(text)}$"):
        call()


# A GPU does not look at the data: what is not there gives zeros, which ops/tests/cuda tests.
of_the_cpu = pytest.mark.cpu


def pools(features, regions):
    """Name and arguments of each operator that pools these regions."""
    count, at = len(regions), torch.zeros(len(regions), dtype=torch.int64)
    grad = torch.zeros(count, 4, 2, 2)
    shape = list(features.shape)
    yield "roi_align", ([features], regions, at, [2, 2], [1.0], 0, "aligned", "avg")
    yield "roi_align", ([features], regions, at, [2, 2], [1.0], 0, "v1", "max")
    yield "roi_pool", (features, regions, [2, 2], 1.0)
    yield "deform_roi_pool", (features, regions, None, [2, 2], 1.0, 0, 0.1)
    yield "deform_psroi_pool", (features, regions, None, [2, 2], 1.0, 4, 1, 2, 4, 0.1)
    yield "roi_align_backward", (grad, [features], regions, at, shape, [1.0], 0, "aligned", "avg", False)
    yield "roi_pool_backward", (grad, torch.zeros(count, 4, 2, 2).long(), regions, shape, False)
    yield "deform_roi_pool_backward", (grad, features, regions, None, 1.0, 0, 0.1)
    yield "deform_psroi_pool_backward", (grad, features, regions, None, 1.0, 1, 2, 4, 0.1)


@of_the_cpu
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(("image", "text"), [(2.0, "2"), (-1.0, "-1"), (float("nan"), "nan"), (1e10, "1e+10")])
@pytest.mark.parametrize("count", [3, 3000])
def test_an_image_that_is_not_there_is_named_however_many_regions_there_are(server, image, text, count):
    regions = torch.tensor([[1.0, 0, 0, 7, 7]]).repeat(count, 1)
    regions[count - 1, 0] = image
    message = f"^{re.escape(f'rois name an image outside 0..1: row {count - 1} has {text}')}$"
    for name, arguments in pools(X, regions):
        if not name.endswith("_backward") and (count == 3 or name == "roi_align" or server == "native"):
            with pytest.raises(WRONG_DATA, match=message):
                serve(server, name, *arguments)


@of_the_cpu
def test_native_gradients_do_not_write_to_an_image_that_is_not_there(native_library):
    regions = torch.tensor([[0.0, 0, 0, 7, 7], [5, 0, 0, 7, 7]])
    backward = [case for case in pools(X, regions) if case[0].endswith("_backward")]
    assert len(backward) == 4
    for name, arguments in backward:
        with pytest.raises(WRONG_DATA, match=r"^rois name an image outside 0\.\.1: row 1 has 5$"):
            serve("native", name, *arguments)


@of_the_cpu
@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("level", [2, -1])
def test_a_level_that_is_not_there_is_named(server, level):
    at = torch.tensor([0, 1, level])
    message = rf"^levels name one outside 0\.\.1: row 2 has {level}$"
    with pytest.raises(WRONG_DATA, match=message):
        serve(server, "roi_align", [X, X], R, at, [2, 2], [1.0, 0.5], 0, "aligned", "avg")


@of_the_cpu
@pytest.mark.parametrize("server", ["native", "reference"])
@pytest.mark.parametrize("rows", [3, 20_000])
@pytest.mark.parametrize("summed", [False, True])
def test_a_target_above_the_background_is_named(server, rows, summed):
    logits, target = maps(rows, 80), torch.full((rows,), 80)
    target[rows - 1] = 81
    text = f"target has 81 in row {rows - 1}, expected at most 80 (background), or a negative one to ignore the row"
    with pytest.raises(WRONG_DATA, match=f"^{re.escape(text)}$"):
        serve(server, "sigmoid_focal_loss", logits, target, None, 2.0, 0.25, summed)


@of_the_cpu
def test_integers_are_refused_by_the_kernels_too(native_library):
    text = "dtype Long is not supported: expected float32, float64, float16 or bfloat16"
    with pytest.raises(WRONG_DATA, match=f"^{text}$"):
        serve("native", "sigmoid_focal_loss", LOGITS.long(), TARGET, None, 2.0, 0.25, False)


def test_offsets_of_the_right_shape_are_taken():
    assert psroi(offset=offsets(3, 8, 2, 2).float()).shape == (3, 4, 2, 2)
