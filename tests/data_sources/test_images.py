"""Decoding and fitting: any Pillow format, orientation, transparency, 16 bits, resizing."""

import io

import numpy as np
import pytest
from PIL import Image

from score_sde.data import images


def stored(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    buffer.seek(0)
    return buffer


def random_image(height, width, mode="RGB"):
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 4)])
def test_lossless_files_come_back_exactly(mode, channels):
    image = random_image(5, 7, mode)
    pixels = images.fit(images.load(stored(image), channels), (5, 7), "crop")
    assert pixels.shape == (5, 7, channels) and pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels.reshape(5, 7, -1), np.asarray(image).reshape(5, 7, -1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(orientation, tmp_path):
    # How a camera stores an upright picture for each tag (EXIF 2.32, table 4.6.4 A).
    upright = np.asarray(random_image(4, 6))
    store = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "a.png"
    Image.fromarray(np.ascontiguousarray(store)).save(file, exif=exif)
    assert images.upright_size(str(file)) == (4, 6)
    np.testing.assert_array_equal(images.fit(images.load(str(file), 3), None, "none"), upright)


def test_transparency_is_flattened_onto_white():
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0] = (10, 20, 30, 255)
    pixels[0, 1] = (99, 99, 99, 0)
    image = images.load(stored(Image.fromarray(pixels)), 3)
    assert image.getpixel((0, 0)) == (10, 20, 30)
    assert image.getpixel((1, 0)) == (255, 255, 255)
    assert images.load(stored(Image.fromarray(pixels)), 4).getpixel((1, 0)) == (99, 99, 99, 0)


def test_palettes_grey_and_transparent_gifs_become_colour():
    colours = Image.new("RGB", (4, 4), (200, 30, 60))
    palette = colours.convert("P", palette=Image.Palette.ADAPTIVE)
    assert images.load(stored(palette), 3).getpixel((1, 1)) == (200, 30, 60)
    gif = stored(palette, "GIF", transparency=palette.getpixel((0, 0)))
    assert images.load(gif, 3).getpixel((1, 1)) == (255, 255, 255)
    assert images.load(stored(Image.new("L", (2, 2), 77)), 3).getpixel((0, 0)) == (77, 77, 77)
    assert images.load(stored(Image.new("1", (2, 2), 1)), 1).getpixel((0, 0)) == 255


def test_sixteen_bit_grey_is_not_saturated():
    deep = np.array([[0, 256, 32768, 65535]], np.uint16)
    pixels = images.fit(images.load(stored(Image.fromarray(deep)), 1), None, "none")
    np.testing.assert_array_equal(pixels[0, :, 0], [0, 1, 128, 255])


def test_float_pixels_are_refused():
    with pytest.raises(ValueError, match="no 0..255 range"):
        images.load(stored(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"), 1)


@pytest.mark.parametrize(("height", "width"), [(9, 31), (31, 9), (8, 8), (3, 5), (64, 65)])
@pytest.mark.parametrize("size", [(8, 8), (8, 12), (12, 8)])
@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_any_size_fits(height, width, size, resize):
    assert images.fit(random_image(height, width), size, resize).shape == (*size, 3)


def test_crop_takes_the_centre_and_keeps_proportions():
    pixels = np.zeros((8, 24, 3), np.uint8)
    pixels[:, 8:16] = 200
    np.testing.assert_array_equal(images.fit(Image.fromarray(pixels), (8, 8), "crop"), 200)
    squashed = images.fit(Image.fromarray(pixels), (8, 8), "squash")
    assert squashed[:, 0].max() < 50 and squashed[:, 4].min() > 150


def test_shrinking_is_antialiased_and_clipped():
    # Alternating columns average to mid grey; an aliasing filter would pick one of the two.
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = images.fit(Image.fromarray(stripes), (8, 8), "crop")
    assert np.abs(small.astype(int) - 127)[:, 1:-1].max() < 12
    # Bicubic overshoots at an edge; without clipping the overshoot would wrap to the other end.
    edge = np.zeros((64, 64, 3), np.uint8)
    edge[:, 32:] = 255
    row = images.fit(Image.fromarray(edge), (24, 24), "crop")[12, :, 0].astype(int)
    assert np.all(np.diff(row) > -40) and row[:10].max() < 30 and row[-10:].min() > 225


def test_none_refuses_another_size():
    with pytest.raises(images.WrongSize, match="size 5x7, expected 8x8"):
        images.fit(random_image(5, 7), (8, 8), "none")


@pytest.mark.parametrize("size", [0, -3, 2.5, "big", (4,), (4, 0), (4, 4, 3)])
def test_refuses_sizes(size):
    with pytest.raises(ValueError, match="data.source.size = .*positive integer"):
        images.check_options(size, 3, "crop")


def test_size_options():
    assert images.check_options(8, 3, "crop") == (8, 8)
    assert images.check_options([8, 12], 3, "crop") == (8, 12)
    assert images.check_options(None, 3, "crop") is None
    with pytest.raises(ValueError, match="data.source.channels = 2"):
        images.check_options(8, 2, "crop")
    with pytest.raises(ValueError, match="data.source.resize = 'zoom'.*crop, squash, none"):
        images.check_options(8, 3, "zoom")
