"""Colours of 8-bit images: by hand, torchvision's bit by bit, on every instruction set; layouts, threads and errors."""

import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from op_samples import SERVERS, generator, native, pixels, reference, scattered, serve

import det_ops

functional = pytest.importorskip("torchvision.transforms.v2.functional")
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
THEIRS = (
    functional.adjust_brightness,
    functional.adjust_contrast,
    functional.adjust_saturation,
    functional.adjust_hue,
)
SAME = [0, 1, 2]
# Every instruction set against the reference, at sizes around those of its registers and of a chunk.
EQUAL = """
import torch
from op_samples import native, pixels, reference
steps, factors = [0, 1, 2, 3, 1], [1.1, 0.7, 1.3, -0.04, 1.2]
for width in (1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33, 4095, 4096, 4097):
    for count in range(6):
        given = (pixels(2, width, 3, seed=width), steps[:count], factors[:count], [2, 0, 1])
        assert torch.equal(native("adjust_colors", *given), reference("adjust_colors", *given)), (width, count)
        given = (given[0], steps[3:4], [0.5], [0, 2, 1])
        assert torch.equal(native("adjust_colors", *given), reference("adjust_colors", *given)), width
print("equal")
"""


def torchvision(image, steps, factors, channels=(0, 1, 2)):
    """(H, W, 3), by torchvision's functions one after the other."""
    planes = image.permute(2, 0, 1)
    for step, factor in zip(steps, factors, strict=True):
        planes = THEIRS[step](planes, factor)
    return functional.permute_channels(planes, list(channels)).permute(1, 2, 0)


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("step", "factor", "expected"),
    [
        (BRIGHTNESS, 1.5, [[255, 150, 60], [15, 0, 37]]),  # 37.5 is cut
        # Grey is 133 (59.78 + 58.7 + 4.56 = 123.04, cut) and 5 (2.989 + 0 + 2.85 = 5.839, cut); their mean is 64.
        (CONTRAST, 0.5, [[132, 82, 52], [37, 32, 44]]),
        (SATURATION, 0.5, [[161, 111, 81], [7, 2, 15]]),
        (HUE, 0.5, [[40, 140, 200], [15, 25, 0]]),
    ],
)
def test_by_hand(server, step, factor, expected):
    image = torch.tensor([[[200, 100, 40], [10, 0, 25]]], dtype=torch.uint8)
    found = serve(server, "adjust_colors", image, [step], [factor], SAME)[0]
    assert (found.int() - torch.tensor(expected)).abs().max() <= (1 if step == HUE else 0)
    assert torch.equal(found, torchvision(image, [step], [factor])[0])


@pytest.mark.parametrize("server", SERVERS)
def test_channels_are_ordered_last(server):
    image = pixels(5, 7, 3)
    assert torch.equal(serve(server, "adjust_colors", image, [], [], [2, 0, 1]), image[..., [2, 0, 1]])
    found = serve(server, "adjust_colors", image, [SATURATION], [0.3], [1, 2, 0])
    assert torch.equal(found, torchvision(image, [SATURATION], [0.3], [1, 2, 0]))


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize(
    ("step", "factor"),
    [(BRIGHTNESS, 1.117), (CONTRAST, 0.53), (SATURATION, 0.5123), (SATURATION, 1.43), (HUE, 0.031), (HUE, -0.5)],
)
def test_colours_of_the_whole_cube_are_those_of_torchvision(server, step, factor):
    """A prime step through all 2^24 colours meets each value of each channel with most of the others."""
    colours = torch.arange(0, 1 << 24, 61)
    image = torch.stack([colours >> 16, colours >> 8 & 255, colours & 255], 1).to(torch.uint8)[None]
    found = serve(server, "adjust_colors", image, [step], [factor], SAME)
    assert torch.equal(found, torchvision(image, [step], [factor]))


def torchvision_is_certain(given, expected):
    """Whether torchvision's result does not depend on a pixel's place.

    A pixel that equals the mean of its image is the sum of two parts, a whole number or a little less, and torch rounds
    them in the registers of a processor otherwise than after the last full one.
    """
    image, *others = given
    again = torchvision(image.repeat(1, 33, 1), *others)
    return torch.equal(again, expected.repeat(1, 33, 1))


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.lists(st.tuples(st.integers(0, 3), st.floats(0, 2, width=32)), max_size=5),
    st.permutations([0, 1, 2]),
    st.integers(0, 9),
)
def test_any_steps_are_those_of_torchvision(native_library, size, drawn, channels, seed):
    steps = [step for step, _ in drawn]
    factors = [factor / 2 - 0.5 if step == HUE else factor for step, factor in drawn]
    given = (pixels(*size, 3, seed=seed), steps, factors, channels)
    expected = torchvision(*given)
    assume(torchvision_is_certain(given, expected))
    assert torch.equal(native("adjust_colors", *given), expected)
    assert torch.equal(reference("adjust_colors", *given), expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_sum_of_grey_values_that_is_rounded_is_rounded_as_by_torch(native_library, threads):
    """Of more than 2^24, from which on float32 does not hold every whole number; its roundings depend on the order."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for seed in range(6):
            image = torch.randint(250 - seed, 256, (517, 409, 3), dtype=torch.uint8, generator=generator(seed))
            given = (image, [CONTRAST, BRIGHTNESS, CONTRAST], [0.5 + 0.1 * seed, 1.0, 0.7])
            assert torch.equal(native("adjust_colors", *given, SAME), torchvision(*given))
    finally:
        torch.set_num_threads(before)


@pytest.mark.cpu
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_gives_the_same_bits(native_library, run_python, isa):
    assert run_python(EQUAL, DET_OPS_ISA=isa).strip() == "equal"


def test_the_layout_of_the_image_stays():
    planes = pixels(3, 20, 30)
    last = planes.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    steps = [("contrast", 0.5), ("hue", 0.1)]
    expected = det_ops.adjust_colors(planes, steps)
    found = det_ops.adjust_colors(last, steps)
    assert expected.is_contiguous()
    assert found.permute(1, 2, 0).is_contiguous()
    assert torch.equal(found, expected)
    assert torch.equal(det_ops.adjust_colors(scattered(planes), steps), expected)


def test_names_of_steps_are_those_of_torchvision():
    image = pixels(3, 20, 30)
    for step in ("brightness", "contrast", "saturation", "hue"):
        theirs = getattr(functional, f"adjust_{step}")
        assert torch.equal(det_ops.adjust_colors(image, [(step, 0.4)]), theirs(image, 0.4)), step


@pytest.mark.parametrize(
    ("image", "steps", "channels", "error", "message"),
    [
        (pixels(1, 4, 4), [], (0, 1, 2), ValueError, r"image has shape \(1, 4, 4\), expected \(3, H, W\)"),
        (pixels(3, 4, 0), [], (0, 1, 2), ValueError, "with at least one pixel"),
        (torch.zeros(3, 4, 4), [], (0, 1, 2), TypeError, "image has dtype torch.float32, expected torch.uint8"),
        (pixels(3, 4, 4), [], (0, 1, 1), ValueError, r"channels are \[0, 1, 1\], expected 0, 1 and 2 in any order"),
        (pixels(3, 4, 4), [("gamma", 1.0)], (0, 1, 2), ValueError, "step is 'gamma', expected 'brightness', "),
        (pixels(3, 4, 4), [("contrast", -0.1)], (0, 1, 2), ValueError, "factor of contrast is -0.1, expected 0 to inf"),
        (pixels(3, 4, 4), [("hue", 0.6)], (0, 1, 2), ValueError, "factor of hue is 0.6, expected -0.5 to 0.5"),
        (pixels(3, 4, 4), [("hue", float("nan"))], (0, 1, 2), ValueError, "factor of hue is nan, expected"),
    ],
)
def test_bad_input(image, steps, channels, error, message):
    with pytest.raises(error, match=message):
        det_ops.adjust_colors(image, steps, channels)
