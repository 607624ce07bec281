"""How the operators are registered: schemas, shapes without data, gradients, autocast, compiling and exporting."""

import shutil

import pytest
import torch
from op_samples import (
    BACKWARD,
    CLOSE,
    DIFFERENTIABLE,
    FORWARD,
    LAST,
    PLANES,
    arguments,
    assert_close,
    boxes,
    codes,
    maps,
    native,
    offsets,
    pasted,
    pixels,
    rois,
    scores,
    with_gradients,
)
from torch import Tensor
from torch.utils import _pytree as pytree

import det_ops
from det_ops import dispatch, registration

ALL = FORWARD + BACKWARD
# The native kernels, and exported programs, have exactly these.
SCHEMAS = """
adjust_colors(Tensor image, int[] steps, float[] factors, int[] channels) -> Tensor
batched_nms(Tensor boxes, Tensor scores, Tensor groups, float threshold) -> Tensor
box_overlaps(Tensor boxes, Tensor others, str mode, bool aligned, int offset) -> Tensor
deform_conv2d(Tensor x, Tensor offset, Tensor weight, Tensor? mask, Tensor? bias, int[] stride, int[] padding, int[] dilation, int groups, int offset_groups) -> Tensor
deform_conv2d_backward(Tensor grad, Tensor x, Tensor offset, Tensor weight, Tensor? mask, int[] stride, int[] padding, int[] dilation, int groups, int offset_groups) -> (Tensor, Tensor, Tensor, Tensor)
deform_psroi_pool(Tensor features, Tensor rois, Tensor? offset, int[] size, float scale, int channels, int group, int part, int samples, float gamma) -> Tensor
deform_psroi_pool_backward(Tensor grad, Tensor features, Tensor rois, Tensor? offset, float scale, int group, int part, int samples, float gamma) -> (Tensor, Tensor)
deform_roi_pool(Tensor features, Tensor rois, Tensor? offset, int[] size, float scale, int sampling, float gamma) -> Tensor
deform_roi_pool_backward(Tensor grad, Tensor features, Tensor rois, Tensor? offset, float scale, int sampling, float gamma) -> (Tensor, Tensor)
mask_targets(Tensor codes, Tensor offsets, int height, int width, Tensor rows, Tensor columns, Tensor objects, Tensor boxes, int[] size) -> Tensor
masked_conv2d(Tensor x, Tensor mask, Tensor weight, Tensor? bias, int[] padding) -> Tensor
max_iou_assign(Tensor boxes, Tensor objects, float positive, float negative, float min_positive, bool low_quality, bool all_ties) -> (Tensor, Tensor)
nms(Tensor boxes, Tensor scores, float threshold, int offset) -> Tensor
nms_images(Tensor boxes, Tensor scores, Tensor groups, float threshold, int max_out) -> (Tensor, Tensor)
nms_padded(Tensor boxes, Tensor scores, Tensor groups, float threshold, int max_out) -> (Tensor, Tensor)
paste_mask_codes(Tensor masks, Tensor boxes, Tensor? mirrored, int height, int width, float threshold, str rule) -> (Tensor, Tensor)
paste_masks(Tensor masks, Tensor boxes, Tensor? mirrored, int height, int width, float threshold, str rule) -> Tensor
resize_bilinear(Tensor image, int height, int width, bool flip_x, bool flip_y, bool fixed_point, int[] canvas, int[] fill) -> Tensor
roi_align(Tensor[] features, Tensor rois, Tensor levels, int[] size, float[] scales, int sampling, str alignment, str mode) -> Tensor
roi_align_backward(Tensor grad, Tensor[] features, Tensor rois, Tensor levels, int[] shapes, float[] scales, int sampling, str alignment, str mode, bool channels_last) -> Tensor[]
roi_pool(Tensor features, Tensor rois, int[] size, float scale) -> (Tensor, Tensor)
roi_pool_backward(Tensor grad, Tensor positions, Tensor rois, int[] shape, bool channels_last) -> Tensor
sigmoid_focal_loss(Tensor logits, Tensor target, Tensor? weight, float gamma, float alpha, bool summed) -> Tensor
sigmoid_focal_loss_backward(Tensor grad, Tensor logits, Tensor target, Tensor? weight, float gamma, float alpha) -> Tensor
soft_nms(Tensor boxes, Tensor scores, float threshold, float sigma, float min_score, str method) -> (Tensor, Tensor)
try_crops(Tensor boxes, Tensor numbers, int height, int width, float[] sides, float[] aspects, float overlap) -> Tensor
"""  # noqa: E501


def test_the_schemas_are_those_of_the_native_kernels():
    schemas = [str(getattr(torch.ops.det, name).default._schema) for name in sorted(ALL)]
    assert schemas == [f"det::{line}" for line in SCHEMAS.strip().splitlines()]


def test_every_operator_has_samples():
    assert set(ALL) == set(dispatch.FALLBACKS)
    for name in ALL:
        assert arguments(name)
    assert {f"{name}_backward" for name in DIFFERENTIABLE} == set(BACKWARD)


@pytest.mark.cpu
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("dtype", "layout"),
    [(torch.float32, PLANES), (torch.float32, LAST), (torch.float64, PLANES), (torch.bfloat16, LAST)],
)
def test_opcheck(name, dtype, layout):
    torch.library.opcheck(getattr(torch.ops.det, name).default, with_gradients(name, arguments(name, dtype, layout)))


@pytest.mark.parametrize("name", ALL)
def test_inputs_stay_as_they_are_and_results_are_new(name):
    given = arguments(name)
    before = pytree.tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, given)
    results = [x for x in pytree.tree_leaves(native(name, *given)) if x.numel()]
    inputs = [x for x in pytree.tree_leaves(given) if isinstance(x, Tensor)]
    for old, new in zip(pytree.tree_leaves(before), pytree.tree_leaves(given), strict=True):
        assert torch.equal(old, new) if isinstance(old, Tensor) else old == new
    owned = [x.untyped_storage().data_ptr() for x in results]
    assert len(set(owned)) == len(owned)
    assert not set(owned) & {x.untyped_storage().data_ptr() for x in inputs}


@pytest.mark.parametrize("name", [n for n in ALL if "roi" in n or "conv" in n])
@pytest.mark.parametrize("layout", [PLANES, LAST])
def test_maps_keep_their_memory_format(name, layout):
    results = [x for x in pytree.tree_leaves(native(name, *arguments(name, layout=layout))) if x.dim() == 4]
    assert results[0].is_contiguous(memory_format=layout)
    assert not results[0].is_contiguous(memory_format=PLANES if layout is LAST else LAST)


@pytest.mark.parametrize("name", [n for n in ALL if "roi" in n or "conv" in n])
@pytest.mark.parametrize("dtype", CLOSE)
def test_maps_keep_their_dtype(name, dtype):
    assert pytree.tree_leaves(native(name, *arguments(name, dtype)))[0].dtype == dtype


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_a_second_derivative_raises(name):
    given = with_gradients(name, arguments(name, torch.float64))
    leaves = [x for x in pytree.tree_leaves(given) if isinstance(x, Tensor) and x.requires_grad]
    result = pytree.tree_leaves(native(name, *given))[0]
    weight = torch.rand_like(result).requires_grad_()
    grads = torch.autograd.grad(result, leaves, weight, create_graph=True)
    message = rf"^det_ops\.{name} has no second derivative; differentiate it once$"
    # A bias' gradient is a plain sum, which has a derivative.
    with pytest.raises(NotImplementedError, match=message):
        torch.autograd.grad(grads[0].sum(), [weight, *leaves], allow_unused=True)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_those_of_double_precision(name, dtype):
    def grads(kind):
        # The same values in both, whatever was rounded.
        given = pytree.tree_map(
            lambda x: x.to(kind) if isinstance(x, Tensor) and x.is_floating_point() else x, arguments(name, dtype)
        )
        given = with_gradients(name, given)
        leaves = [x for x in pytree.tree_leaves(given) if isinstance(x, Tensor) and x.requires_grad]
        result = pytree.tree_leaves(native(name, *given))[0]
        weight = maps(*result.shape, seed=12).to(dtype).to(result.dtype)
        return [g.double() for g in torch.autograd.grad(result, leaves, weight)]

    for ours, exact in zip(grads(dtype), grads(torch.float64), strict=True):
        assert float((ours - exact).abs().max()) <= 2 * CLOSE[dtype] * float(exact.abs().max())


def functions():
    """By name: a function of tensors that calls one operator, and its tensors."""
    regions = rois(5).float()
    x, weight = maps(2, 4, 11, 15), maps(6, 4, 3, 3, seed=3)
    text, bounds, _, _, rows, columns = codes()
    crowd, ranks, groups = boxes(50), scores(50), torch.arange(50) % 3
    shift = offsets(2, 18, 11, 15).float()
    masks, edges, flips = pasted()
    return {
        "adjust_colors": (lambda image: det_ops.adjust_colors(image, [("contrast", 0.5)]), pixels(3, 20, 30)),
        "nms": (lambda b, s: det_ops.nms(b, s, 0.4), crowd, ranks),
        "batched_nms": (lambda b, s, g: det_ops.batched_nms(b, s, g, 0.4), crowd, ranks, groups),
        "nms_padded": (lambda b, s, g: det_ops.nms_padded(b, s, g, 0.4, 20), crowd, ranks, groups),
        "nms_images": (
            lambda s, b, g: det_ops.nms_images(b, s, g, 0.4, 20),
            torch.stack([ranks, ranks]),
            torch.stack([crowd, crowd.flip(0)]),
            torch.stack([groups, groups.flip(0)]),
        ),
        "soft_nms": (lambda b, s: det_ops.soft_nms(b, s), crowd, ranks),
        "box_overlaps": (lambda a, b: det_ops.box_overlaps(a, b), crowd, boxes(9, 5)),
        "max_iou_assign": (lambda a, b: det_ops.max_iou_assign(a, b, 0.5, 0.4), crowd, boxes(9, 5)),
        "roi_align": (lambda r, f: det_ops.roi_align(f, r, (2, 3), 0.5), regions, x),
        "roi_pool": (lambda r, f: det_ops.roi_pool(f, r, (2, 3), 0.5), regions, x),
        "deform_roi_pool": (lambda r, f: det_ops.deform_roi_pool(f, r, None, (2, 3), 0.5), regions, x),
        "deform_psroi_pool": (lambda r, f: det_ops.deform_psroi_pool(f, r, None, (2, 3), 0.5, 1, 2), regions, x),
        "deform_conv2d": (lambda o, f, w: det_ops.deform_conv2d(f, o, w, padding=1), shift, x, weight),
        "mask_targets": (
            lambda o, b: det_ops.mask_targets(text, bounds, (4, 3), rows, columns, o, b, (4, 3)),
            torch.tensor([0, 2, 2, 1]),
            boxes(4, side=20.0),
        ),
        "masked_conv2d": (lambda m, f, w: det_ops.masked_conv2d(f, m, w, padding=1), x[:, 0], x, weight),
        "paste_masks": (
            lambda f, m, b: det_ops.paste_masks(m, b, (30, 40), mirrored=f),
            flips,
            masks,
            edges,
        ),
        "paste_mask_codes": (lambda m, b: det_ops.paste_mask_codes(m, b, (30, 40)), masks, edges),
        "resize_bilinear": (lambda image: det_ops.resize_bilinear(image, (9, 14), flip_x=True), pixels(3, 20, 30)),
        "try_crops": (
            lambda b, r: det_ops.try_crops(b, r, (90, 120), (0.3, 1.0), (0.5, 2.0), 0.1),
            crowd,
            torch.rand(80),
        ),
        "sigmoid_focal_loss": (lambda t, f: det_ops.sigmoid_focal_loss(f, t), torch.arange(9) % 6, maps(9, 5)),
    }


def with_the_gradient(function, inputs):
    """The results of a function, and the gradients in its inputs of four or two dimensions after the first."""
    leaves = [x.clone().requires_grad_() for x in inputs[1:] if x.is_floating_point() and x.dim() in (2, 4)]
    results = pytree.tree_leaves(function(*inputs[: len(inputs) - len(leaves)], *leaves))
    grads = torch.autograd.grad(results[0].sum(), leaves, allow_unused=True) if results[0].requires_grad else ()
    return [x.detach() for x in results], list(grads)


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        yield
    torch._dynamo.reset()


@pytest.mark.cpu
@pytest.mark.parametrize("name", FORWARD)
def test_functions_compile_into_one_graph_with_gradients(fresh_compiler, name):
    function, *inputs = functions()[name]
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    ours, theirs = with_the_gradient(compiled, inputs), with_the_gradient(function, inputs)
    assert_close(ours, theirs, 1e-6)
    assert bool(theirs[1]) == (name in DIFFERENTIABLE or name == "box_overlaps")


@pytest.mark.cpu
def test_inductor_compiles_pooling_and_a_loss_with_gradients(fresh_compiler):
    if shutil.which("g++") is None and shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler for inductor")

    def function(regions, x):
        pooled = det_ops.roi_align(x * 2, regions, (2, 3), 0.5)
        return det_ops.sigmoid_focal_loss(pooled.flatten(1), torch.arange(5), reduction="sum").sin()

    _, *inputs = functions()["roi_align"]
    for layout in (PLANES, LAST):
        laid_out = [inputs[0], inputs[1].contiguous(memory_format=layout)]
        compiled = torch.compile(function, fullgraph=True)
        assert_close(with_the_gradient(compiled, laid_out), with_the_gradient(function, laid_out), 1e-5)


class Module(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def exports():
    """By name: a function, two sets of inputs that differ in one length, and the dynamic dimension of each input."""
    n, k, b = (torch.export.Dim(name, min=2, max=500) for name in ("n", "k", "b"))

    def crowd(count):
        return boxes(count), scores(count), torch.arange(count) % 3

    def regions(count):
        return maps(2, 4, 22, 30), maps(2, 4, 11, 15), rois(count).float(), torch.arange(count) % 2

    def images(count):
        return maps(count, 4, 7, 9), offsets(count, 18, 7, 9).float(), maps(6, 4, 3, 3)

    def levels(fine, coarse, r, at):
        return det_ops.multi_level_roi_align([fine, coarse], r, at, (2, 3), [1.0, 0.5])

    return {
        "nms": (lambda b, s: det_ops.nms(b, s, 0.4), crowd(40)[:2], crowd(70)[:2], ({0: n}, {0: n})),
        "nms_padded": (lambda *a: det_ops.nms_padded(*a, 0.4, 9), crowd(40), crowd(70), ({0: n}, {0: n}, {0: n})),
        "multi_level_roi_align": (levels, regions(6), regions(11), (None, None, {0: k}, {0: k})),
        "deform_conv2d": (lambda x, o, w: det_ops.deform_conv2d(x, o, w, padding=1), images(2), images(5),
                          ({0: b}, {0: b}, None)),
    }  # fmt: skip


@pytest.mark.cpu
@pytest.mark.parametrize("name", exports())
def test_functions_export_with_a_dynamic_length(name):
    function, inputs, longer, dynamic = exports()[name]
    program = torch.export.export(Module(function), inputs, dynamic_shapes=(dynamic,))
    assert any("det." in str(node.target) for node in program.graph.nodes)
    for given in (inputs, longer):
        assert_close(program.module()(*given), function(*given), 0)


def test_autocast_computes_convolutions_in_its_dtype_and_leaves_the_rest():
    x, weight, shift = maps(2, 4, 7, 9), maps(6, 4, 3, 3), offsets(2, 18, 7, 9).float()
    logits, regions = maps(9, 5), rois(5).float()
    half = [t.bfloat16() for t in (x, weight)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        deformed = det_ops.deform_conv2d(x, shift, weight, padding=1)
        masked = det_ops.masked_conv2d(x, torch.ones(2, 5, 7), weight)
        mixed = det_ops.deform_conv2d(half[0], shift, weight, padding=1)
        wide = det_ops.deform_conv2d(x.double(), shift.double(), weight.double(), padding=1)
        pooled = [det_ops.roi_align(f, regions, (2, 3), 0.5) for f in (x, half[0])]
        losses = [det_ops.sigmoid_focal_loss(f, torch.arange(9) % 6) for f in (logits, logits.bfloat16())]
        kept = det_ops.nms(boxes(50), scores(50), 0.4)
    torch.testing.assert_close(deformed, det_ops.deform_conv2d(half[0], shift, half[1], padding=1))
    torch.testing.assert_close(masked, det_ops.masked_conv2d(half[0], torch.ones(2, 5, 7), half[1]))
    assert deformed.dtype == masked.dtype == mixed.dtype == torch.bfloat16
    assert wide.dtype == torch.float64
    assert [p.dtype for p in pooled] == [torch.float32, torch.bfloat16]
    torch.testing.assert_close(pooled[0], det_ops.roi_align(x, regions, (2, 3), 0.5))
    assert [loss.dtype for loss in losses] == [torch.float32] * 2
    torch.testing.assert_close(losses[0], det_ops.sigmoid_focal_loss(logits, torch.arange(9) % 6))
    assert torch.equal(kept, det_ops.nms(boxes(50), scores(50), 0.4))


@pytest.mark.parametrize("inside", [True, False])
def test_gradients_under_autocast_have_the_dtype_of_the_inputs(inside):
    x, weight = maps(2, 4, 7, 9).requires_grad_(), maps(6, 4, 3, 3).requires_grad_()
    bias, shift = maps(6).requires_grad_(), offsets(2, 18, 7, 9).float().requires_grad_()
    leaves = (x, shift, weight, bias)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total = det_ops.deform_conv2d(x, shift, weight, bias=bias, padding=1).float().sum()
        grads = torch.autograd.grad(total, leaves) if inside else None
    grads = grads or torch.autograd.grad(total, leaves)
    full = torch.autograd.grad(det_ops.deform_conv2d(x, shift, weight, bias=bias, padding=1).sum(), leaves)
    for ours, exact in zip(grads, full, strict=True):
        assert ours.dtype == torch.float32
        assert float((ours - exact).abs().max()) < 0.03 * float(exact.abs().max())


@pytest.fixture
def native_cuda(monkeypatch):
    """Simulates loaded native CUDA kernels."""
    monkeypatch.setattr(dispatch, "native_loaded", lambda device: True)


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", registration.UNORDERED)
def test_an_unordered_gradient_is_an_error(native_cuda, deterministic, name):
    with pytest.raises(RuntimeError, match=f"the CUDA kernel of det_ops.{name}'s gradient is not deterministic"):
        registration.alert_not_deterministic(name, "cuda")


def test_or_a_warning(native_cuda, deterministic):
    torch.use_deterministic_algorithms(True, warn_only=True)
    with pytest.warns(UserWarning, match="is not deterministic; unset DET_OPS_CUDA for the reference"):
        registration.alert_not_deterministic("roi_pool", "cuda")


def test_the_cpu_and_the_reference_have_nothing_to_say(deterministic):
    registration.alert_not_deterministic("roi_pool", "cpu")
    registration.alert_not_deterministic("roi_pool", "cuda")  # opt-in kernels are off


def test_nothing_is_said_unless_asked(native_cuda):
    registration.alert_not_deterministic("roi_pool", "cuda")
