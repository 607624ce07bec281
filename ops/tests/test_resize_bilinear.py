"""Resizing of 8-bit images: by hand, by the reference bit by bit, on every instruction set; layouts and errors."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from op_samples import SERVERS, native, pixels, reference, scattered, serve
from torch.nn import functional as F

import det_ops

side = st.integers(1, 70)
# Every instruction set against the reference, at sizes around those of its registers.
EQUAL = """
import torch
from op_samples import native, pixels, reference
for seed, (old, new) in enumerate([(1, 1), (1, 9), (2, 3), (3, 2), (33, 64), (64, 33), (97, 131), (131, 97)]):
    for channels in (1, 2, 3, 4):
        for flips in ((False, False), (True, True)):
            image = pixels(2, old, old + 5, channels, seed=seed)
            given = (image, new, new + 3, *flips, True, [], [])
            assert torch.equal(native("resize_bilinear", *given), reference("resize_bilinear", *given)), given[1:]
            given = (*given[:-2], [old + 9, old + 20, 4, 6], list(range(2 * channels)))
            assert torch.equal(native("resize_bilinear", *given), reference("resize_bilinear", *given)), given[1:]
print("equal")
"""


@pytest.mark.parametrize("server", SERVERS)
def test_by_hand(server):
    wide = serve(
        server, "resize_bilinear", torch.tensor([[[[0], [100]]]], dtype=torch.uint8), 1, 4, False, False, True, [], []
    )
    assert wide.flatten().tolist() == [0, 25, 75, 100]
    tall = torch.tensor([10, 20, 200, 100], dtype=torch.uint8).reshape(1, 4, 1, 1)
    assert serve(server, "resize_bilinear", tall, 2, 1, False, False, True, [], []).flatten().tolist() == [15, 150]
    assert serve(server, "resize_bilinear", tall, 2, 1, False, True, True, [], []).flatten().tolist() == [150, 15]
    assert serve(server, "resize_bilinear", tall, 2, 1, False, True, False, [], []).flatten().tolist() == [150, 15]


@settings(max_examples=200, deadline=None)
@given(st.tuples(side, side), st.tuples(side, side), st.integers(1, 5), st.booleans(), st.booleans(), st.integers(0, 9))
def test_the_kernel_equals_the_reference(native_library, old, new, channels, flip_x, flip_y, seed):
    image = pixels(1, *old, channels, seed=seed)
    given = (image, *new, flip_x, flip_y)
    assert torch.equal(
        native("resize_bilinear", *given, True, [], []), reference("resize_bilinear", *given, True, [], [])
    )
    ours, theirs = (call("resize_bilinear", *given, False, [], []) for call in (native, reference))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-3)  # torch computes positions in float32, too


@pytest.mark.cpu
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_gives_the_same_bits(native_library, run_python, isa):
    assert run_python(EQUAL, DET_OPS_ISA=isa).strip() == "equal"


@pytest.mark.parametrize("channels", [1, 3])
def test_the_layout_of_the_image_stays(channels):
    planes = pixels(channels, 20, 30)
    last = planes.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    expected = det_ops.resize_bilinear(planes, (33, 17), flip_x=True)
    found = det_ops.resize_bilinear(last, (33, 17), flip_x=True)
    assert expected.is_contiguous()
    assert found.permute(1, 2, 0).is_contiguous()
    assert torch.equal(found, expected)
    assert torch.equal(det_ops.resize_bilinear(scattered(planes), (33, 17), flip_x=True), expected)


def test_the_same_size_only_mirrors():
    image = pixels(3, 13, 17)
    assert torch.equal(det_ops.resize_bilinear(image, (13, 17)), image)
    assert torch.equal(det_ops.resize_bilinear(image, (13, 17), flip_x=True, flip_y=True), image.flip(1, 2))


def test_floating_point_is_that_of_torch():
    image = pixels(3, 37, 23)
    expected = F.interpolate(image[None].float(), (50, 20), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(det_ops.resize_bilinear(image, (50, 20), "float"), expected, rtol=0, atol=2e-3)


@st.composite
def placed(draw):
    """An image, and a canvas that it lies on."""
    channels, height, width = draw(st.integers(1, 4)), draw(side), draw(side)
    top, left = draw(st.integers(0, 30)), draw(st.integers(0, 30))
    bottom, right = draw(st.integers(0, 30)), draw(st.integers(0, 30))
    fill = tuple(draw(st.lists(st.integers(0, 255), min_size=channels, max_size=channels)))
    canvas = det_ops.Canvas(top + height + bottom, left + width + right, top, left, fill)
    image = pixels(channels, height, width, seed=draw(st.integers(0, 9)))
    last = draw(st.booleans())
    return (image.permute(1, 2, 0).contiguous().permute(2, 0, 1) if last else image), canvas


def drawn(image, canvas):
    whole = torch.tensor(canvas.fill, dtype=torch.uint8)[:, None, None].repeat(1, canvas.height, canvas.width)
    whole[:, canvas.top : canvas.top + image.shape[1], canvas.left : canvas.left + image.shape[2]] = image
    return whole


@settings(max_examples=200, deadline=None)
@given(placed(), st.tuples(side, side), st.booleans(), st.booleans(), st.sampled_from(["fixed_point", "float"]))
def test_a_canvas_is_resized_as_if_it_were_drawn(native_library, given, size, flip_x, flip_y, arithmetic):
    image, canvas = given
    options = {"flip_x": flip_x, "flip_y": flip_y}
    found = det_ops.resize_bilinear(image, size, arithmetic, canvas=canvas, **options)
    assert torch.equal(found, det_ops.resize_bilinear(drawn(image, canvas), size, arithmetic, **options))
    arguments = (image[..., None], *size, flip_x, flip_y, True)
    place = [canvas.height, canvas.width, canvas.top, canvas.left]
    of_reference = reference("resize_bilinear", *arguments, place, list(canvas.fill))[..., 0]
    assert torch.equal(of_reference, det_ops.resize_bilinear(drawn(image, canvas), size, **options))


@pytest.mark.parametrize("arithmetic", ["fixed_point", "float"])
def test_a_crop_is_read_where_it_is(arithmetic):
    planes = pixels(3, 40, 50)
    last = planes.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    expected = det_ops.resize_bilinear(planes[:, 3:30, 7:45].contiguous(), (33, 17), arithmetic)
    for image in (planes, last):
        found = det_ops.resize_bilinear(image[:, 3:30, 7:45], (33, 17), arithmetic)
        assert torch.equal(found, expected)
        assert found.is_contiguous() is (image is planes)


@pytest.mark.parametrize(
    ("canvas", "message"),
    [
        (det_ops.Canvas(8, 8, 5, 0, (1, 2, 3)), r"an image of 4 x 4 is partly outside of Canvas\(height=8, width=8"),
        (det_ops.Canvas(8, 8, 0, -1, (1, 2, 3)), "is partly outside of"),
        (det_ops.Canvas(8, 8, 0, 0, (1, 2)), r"fill is \(1, 2\), expected 3 numbers of 0 to 255"),
        (det_ops.Canvas(8, 8, 0, 0, (1, 2, 256)), r"fill is \(1, 2, 256\), expected 3"),
    ],
)
def test_bad_canvas(canvas, message):
    with pytest.raises(ValueError, match=message):
        det_ops.resize_bilinear(pixels(3, 4, 4), (2, 2), canvas=canvas)


@pytest.mark.parametrize(
    ("image", "size", "options", "error", "message"),
    [
        (pixels(3, 4), (2, 2), {}, ValueError, r"image has shape \(3, 4\), expected \(C, H, W\) of at least 1 each"),
        (pixels(3, 0, 4), (2, 2), {}, ValueError, r"image has shape \(3, 0, 4\)"),
        (torch.zeros(3, 4, 4), (2, 2), {}, TypeError, "image has dtype torch.float32, expected torch.uint8"),
        (pixels(3, 4, 4), (0, 2), {}, ValueError, r"size is \(0, 2\), expected at least 1 each"),
        (pixels(3, 4, 4), (2, 2), {"arithmetic": "exact"}, ValueError, "arithmetic is 'exact', expected 'fixed_point'"),
    ],
)
def test_bad_input(image, size, options, error, message):
    with pytest.raises(error, match=message):
        det_ops.resize_bilinear(image, size, **options)
