"""What is kept of a picture, and what cannot be asked."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from score_sde.inverse import EDITS, MASK, METHODS, OPERATORS
from score_sde.inverse.edits import Colorize, Deblur, Inpaint, SuperResolution

SHAPE = (8, 8, 1)


def kept(edit, shape=SHAPE):
    return edit.given(shape, 3)[MASK]


def test_masks_by_name():
    box, half, random = (kept(Inpaint(mask=name)) for name in ("box", "half", "random"))
    for mask in (box, half, random):
        assert mask.shape == (3, *SHAPE) and mask.dtype == np.float32
        np.testing.assert_array_equal(mask[0], mask[2])
    want = np.ones((8, 8))
    want[2:6, 2:6] = 0
    np.testing.assert_array_equal(box[0, ..., 0], want)
    np.testing.assert_array_equal(half[0, ..., 0], np.broadcast_to(np.arange(8) < 4, (8, 8)))
    assert kept(Inpaint(mask="random", share=0.9), (100, 100, 3))[0].mean() == pytest.approx(0.1, abs=0.02)
    assert kept(Inpaint(mask="random"), (4, 4, 3))[0].std(axis=-1).max() == 0  # whole pixels


def test_white_of_a_picture_is_filled(tmp_path):
    white = np.zeros((8, 8), np.uint8)
    white[:3] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(kept(Inpaint(mask=str(tmp_path / "mask.png")))[0, ..., 0], white == 0)


def test_what_is_shown_has_the_size_of_the_picture():
    x = jnp.asarray(np.random.default_rng(0).random((3, 8, 8, 3)), jnp.float32)
    for edit in (Inpaint(), Colorize(), SuperResolution(factor=4), Deblur(blur_sigma=0.5)):
        given = edit.given((8, 8, 3), 3)
        operator = edit.operator((8, 8, 3))
        measured = np.asarray(operator.apply(x, {name: jnp.asarray(a) for name, a in given.items()}))
        shown = edit.shown(measured, given, -1.0)
        assert shown.shape == x.shape
        if isinstance(edit, Inpaint):
            np.testing.assert_array_equal(shown, np.where(given[MASK] > 0, x, -1.0))
        else:  # measured again, it is what was measured, but for the blur
            again = operator.apply(jnp.asarray(shown), {})
            assert isinstance(edit, Deblur) or np.abs(again - measured).max() < 1e-6


def test_mistakes_are_named(tmp_path):
    for name, value in (("white", 255), ("black", 0)):
        Image.fromarray(np.full((8, 8), value, np.uint8)).save(tmp_path / f"{name}.png")
        said = "everything is to be filled" if value else "nothing is to be filled"
        with pytest.raises(ValueError, match=f"mask = .*{name}.png': {said}"):
            kept(Inpaint(mask=str(tmp_path / f"{name}.png")))
    with pytest.raises(ValueError, match="has 8x8 pixels, and the model's pictures 16x16"):
        kept(Inpaint(mask=str(tmp_path / "white.png")), (16, 16, 1))
    (tmp_path / "torn.png").write_bytes(b"x")
    with pytest.raises(ValueError, match="torn.png': cannot be used"):
        kept(Inpaint(mask=str(tmp_path / "torn.png")))
    with pytest.raises(ValueError, match="mask = 'circle': neither box, half, random nor a file"):
        kept(Inpaint(mask="circle"))
    with pytest.raises(ValueError, match="share = 1.0"):
        Inpaint(share=1.0)
    with pytest.raises(ValueError, match="1 channels: must be 3"):
        Colorize().operator(SHAPE)
    for factor in (1, 3):
        with pytest.raises(ValueError, match=f"factor = {factor}: must be at least 2 and divide 8x8"):
            SuperResolution(factor=factor).operator(SHAPE)


def test_tables():
    assert list(EDITS) == ["inpaint", "colorize", "superres", "deblur", "impute"]
    assert list(METHODS) == ["pigdm", "mmps", "ddnm", "conditional"]
    assert list(OPERATORS) == ["mask", "channel_mean", "box_down", "blur"]
