"""Images read in other formats than 8-bit RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from det_core.contracts import DetectionDataset, Sample
from det_core.data.bad_samples import BadImage
from det_core.data.data_config import SampleConfig, VocConfig
from det_core.data.files_config import JoinedConfig
from det_core.data.images import decode_image, image_size, read_image
from det_core.data.resize import Arithmetic, resize_image
from det_core.errors import DataError
from det_core.specs import RGB, PixelFormat

BCCD = Path(__file__).with_name("bccd")
GRAY, GRAY_16 = PixelFormat(1), PixelFormat(1, 16)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits(tmp_path: Path, suffix: str) -> None:
    path, values = tmp_path / f"a.{suffix}", np.array([[0, 1, 255], [256, 40_000, 65_535]], np.uint16)
    Image.fromarray(values).save(path)
    image = read_image(path, pixels=GRAY_16)
    assert image.dtype == torch.float32
    assert image.tolist() == [values.tolist()]
    assert image_size(path) == (2, 3)
    assert torch.equal(decode_image(path.read_bytes(), pixels=GRAY_16), image)


def test_big_endian_sixteen_bits(tmp_path: Path) -> None:
    values = np.array([[1, 258]], ">u2")
    Image.frombytes("I;16B", (2, 1), values.tobytes()).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif", pixels=GRAY_16).tolist() == [[[1, 258]]]


def test_an_orientation_turns_sixteen_bits(tmp_path: Path) -> None:
    image, exif = Image.fromarray(np.array([[1, 2, 3]], np.uint16)), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png", pixels=GRAY_16).tolist() == [[[1], [2], [3]]]
    assert image_size(tmp_path / "a.png") == (3, 1)


def test_gray_of_colours(tmp_path: Path) -> None:
    Image.new("RGB", (2, 1), (255, 0, 0)).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png", pixels=GRAY)
    assert image.dtype == torch.uint8
    assert image.tolist() == [[[76, 76]]]  # 0.299 of red


@pytest.mark.parametrize(("mode", "channels"), [("RGBA", 4), ("CMYK", 4), ("LA", 2)])
def test_channels_as_they_are_stored(tmp_path: Path, mode: str, channels: int) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new(mode, (3, 2), tuple(range(10, 10 + channels))).save(path)
    image = read_image(path, pixels=PixelFormat(channels))
    assert tuple(image.shape) == (channels, 2, 3)
    assert image[:, 1, 2].tolist() == list(range(10, 10 + channels))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_arrays(tmp_path: Path, dtype: type) -> None:
    values = np.arange(2 * 3 * 7).reshape(2, 3, 7).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    pixels = PixelFormat(7, 8 if dtype is np.uint8 else 16)
    image = read_image(tmp_path / "a.npy", pixels=pixels)
    assert image.dtype == (torch.uint8 if dtype is np.uint8 else torch.float32)
    assert torch.equal(image.permute(1, 2, 0).double(), torch.from_numpy(values).double())
    assert image_size(tmp_path / "a.npy") == (2, 3)
    np.save(tmp_path / "b.npy", values[:, :, 0])
    assert tuple(read_image(tmp_path / "b.npy", pixels=PixelFormat(1, pixels.bits)).shape) == (1, 2, 3)


def test_arrays_of_rgb_are_images_like_others(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((2, 3, 3), 9, np.uint8))
    assert read_image(tmp_path / "a.npy").tolist() == [[[9] * 3] * 2] * 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.zeros((2, 2, 3), np.uint8),
            "the array has 8-bit images of 3 channels, but the detector takes 16-bit images",
        ),
        (np.zeros((2, 2, 2), np.uint16), "the array has 16-bit images of 2 channels, but"),
        (np.zeros((2, 2), np.float32), r"an array \(2, 2\) of float32, expected an array \(height, width, channels\)"),
        (np.zeros((2, 2), np.uint32), r"an array \(2, 2\) of uint32, expected"),
        (np.zeros((0, 2), np.uint16), r"an array \(0, 2\) of uint16, expected"),
        (np.zeros(3, np.uint16), r"an array \(3,\) of uint16, expected"),
        (np.array([{}], object), "not a readable array .*; expected an array"),
    ],
)
def test_arrays_that_are_no_images(tmp_path: Path, values: np.ndarray, message: str) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(BadImage, match=rf"a\.npy: {message}"):
        read_image(tmp_path / "a.npy", pixels=PixelFormat(3, 16))


def test_files_that_are_no_arrays(tmp_path: Path) -> None:
    for name, content in {"empty.npy": b"", "text.npy": b"hello", "cut.npy": b"\x93NUMPY\x01\x00v\x00{'descr'"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadImage, match=rf"{name}: not a readable array"):
            read_image(tmp_path / name)
    np.savez(tmp_path / "several.npz", a=np.zeros(1))
    (tmp_path / "several.npz").rename(tmp_path / "several.npy")
    (tmp_path / "folder.npy").mkdir()
    for name, message in {
        "several.npy": "an archive of arrays",
        "folder.npy": "it is a folder, a device or a pipe",
        "none.npy": "the image file does not exist",
    }.items():
        with pytest.raises(BadImage, match=f"{name}: .*{message}"):
            read_image(tmp_path / name)


@pytest.mark.parametrize(
    ("mode", "pixels", "message"),
    [
        ("RGB", GRAY_16, "found PIL mode RGB, .* 16-bit images of 1 channel .*; convert it to a gray image of 16 bits"),
        ("L", GRAY_16, "found PIL mode L, but"),
        (
            "RGB",
            PixelFormat(3, 16),
            "16-bit images of 3 channels .*; images of 16 bits and several channels are read only",
        ),
        ("RGB", PixelFormat(4), "found 3 channels .PIL mode RGB., but the detector takes 8-bit images of 4 channels"),
        ("P", PixelFormat(5), "found 1 channel .PIL mode P., but"),
        (
            "I;16",
            GRAY,
            "more than 8 bits .PIL mode I;16.* or set `detector.preprocess.bits: 16`, with one mean and std",
        ),
    ],
)
def test_files_of_other_pixels(tmp_path: Path, mode: str, pixels: PixelFormat, message: str) -> None:
    Image.new(mode, (2, 2)).save(tmp_path / "a.png")
    with pytest.raises(BadImage, match=message):
        read_image(tmp_path / "a.png", pixels=pixels)


def test_more_than_sixteen_bits(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 65_536]], np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(BadImage, match=r"found values 0\.\.65536, but the detector takes 16-bit images, of 0\.\.65535"):
        read_image(tmp_path / "a.tif", pixels=GRAY_16)
    Image.fromarray(np.array([[0, 65_535]], np.int32)).save(tmp_path / "b.tif")
    assert read_image(tmp_path / "b.tif", pixels=GRAY_16).tolist() == [[[0, 65_535]]]


def test_data_sets_read_in_a_format() -> None:
    sources = (SampleConfig(split="val"), VocConfig(split="train", folder=str(BCCD), classes=None))
    joined = JoinedConfig(sources=sources, merge_classes=True).build("")
    assert joined.pixels == RGB
    joined.read_as(GRAY)
    assert joined.pixels == GRAY
    for index in (0, len(joined) - 1):  # of the COCO and of the VOC data set
        assert joined.load(index).image.shape == (1, *joined.sizes[index])


class Own(DetectionDataset):
    """A data set that knows nothing of formats."""

    name = "own"

    def file(self, index: int) -> str:
        raise NotImplementedError

    def load(self, index: int) -> Sample:
        raise NotImplementedError

    def ground_truth(self) -> dict[str, object]:
        raise NotImplementedError


def test_a_data_set_that_reads_only_rgb() -> None:
    Own().read_as(RGB)
    message = "own: Own reads only 8-bit images of 3 channels, but the detector takes 8-bit images of 1 channel"
    with pytest.raises(DataError, match=message):
        Own().read_as(GRAY)


@pytest.mark.parametrize("channels", [1, 2, 4, 7])
@pytest.mark.parametrize("arithmetic", ["fixed_point", "float"])
def test_any_channels_are_resized_as_those_of_rgb(channels: int, arithmetic: Arithmetic) -> None:
    torch.manual_seed(0)
    image = torch.randint(256, (channels, 20, 30), dtype=torch.uint8)
    found = resize_image(image, (13, 41), arithmetic, flip_x=True)
    for number in range(channels):
        wanted = resize_image(image[number].expand(3, -1, -1).contiguous(), (13, 41), arithmetic, flip_x=True)
        torch.testing.assert_close(found[number], wanted[0])
