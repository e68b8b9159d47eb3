"""What networks make of conditions: nothing of null values, an image as channels, and names they know."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_sde.conditions import Condition, labelled
from score_sde.nets import NETS, Net
from tests.nets.test_ncsnpp import FAST, arbitrary, normals

SHAPE = (8, 8, 1)
IMAGE, VECTOR = ("texture", Condition("image", (8, 8, 2))), ("size", Condition("vector", (3,)))
TINY = {"nf": 4, "ch_mult": (1,), "num_res_blocks": 1, "attn_resolutions": (), "dropout": 0.0}
TINY_OF = {"ddpm": {"norm_num_groups": 2}}


def conditioned(name):
    conditions = (*labelled(2), VECTOR, IMAGE)
    return Net(NETS[name](**TINY, **TINY_OF.get(name, {}), conditions=conditions))


@pytest.mark.parametrize("name", ["ncsnpp", "ddpm", "songunet", "adm"])
def test_each_condition_acts_and_nulls_do_not(name):
    """Without its image and its vector a network is the one that takes neither, at the same parameters."""
    net, x, c_noise = conditioned(name), normals(0, (2, *SHAPE)), jnp.array([0.3, 0.9])
    params = arbitrary(net, SHAPE)
    given = {
        "label": jnp.array([0, 1]),
        "size": normals(1, (2, 3)),
        "texture": normals(2, (2, 8, 8, 2)),
    }
    plain = Net(NETS[name](**TINY, **TINY_OF.get(name, {}), conditions=labelled(2)))
    stem = params["stem"]
    assert stem["kernel"].shape[-2] == 3  # one channel of the example, two of the image
    alone = {**params, "stem": {**stem, "kernel": stem["kernel"][..., :1, :]}}
    del alone["size"]

    def outputs(params, alone, given):
        label = {"label": given["label"]}
        ways = [given, label, {**label, "size": given["size"]}, {**label, "texture": given["texture"]}]
        return [net(params, x, c_noise, cond) for cond in ways] + [plain(alone, x, c_noise, label)]

    run = jax.jit(outputs).lower(params, alone, given).compile(FAST)
    every, label, size, texture, without = (np.asarray(y) for y in run(params, alone, given))
    scale = np.abs(label).max()
    np.testing.assert_allclose(label, without, atol=1e-5 * scale)
    for one, other in ((every, size), (every, texture), (size, label), (texture, label)):
        assert np.abs(one - other).max() > 1e-3 * scale
    assert every.shape == x.shape


def test_an_image_is_the_input_of_the_stem_as_it_is():
    """A stem that is blind to the example and passes the image on: the network sees nothing else of it."""
    net, x = conditioned("ddpm"), normals(0, (1, *SHAPE))
    params = arbitrary(net, SHAPE)
    kernel = params["stem"]["kernel"]
    swapped = {**params, "stem": {**params["stem"], "kernel": kernel[..., jnp.array([1, 0, 2]), :]}}
    image = normals(3, (1, 8, 8, 2))
    other = jnp.concatenate([x, image[..., 1:]], axis=-1)

    def both(params, swapped):
        cond = {"texture": image}
        return net(params, x, 0.5, cond), net(swapped, image[..., :1], 0.5, {"texture": other})

    run = jax.jit(both).lower(params, swapped).compile(FAST)
    got, want = run(params, swapped)
    np.testing.assert_allclose(got, want, atol=1e-5 * float(jnp.abs(want).max()))


@pytest.mark.parametrize(
    "name", [name for name in NETS if not name.startswith(("ncsn", "mlp")) or name.startswith("ncsnpp")]
)
def test_every_unet_of_the_table_has_a_place_for_each_condition(name):
    """By shapes alone: a row for each class, a column for each number, and channels for the image."""
    conditions = (*labelled(7), VECTOR, IMAGE)
    tiny = TINY | {"nf": 32}
    plain, every = (Net(NETS[name](**tiny, conditions=some)).shapes(SHAPE) for some in ((), conditions))
    assert set(every) - set(plain) == {"label", "size"}
    assert every["label"]["kernel"].shape[0] == 7 and every["size"]["kernel"].shape[0] == 3
    assert every["stem"]["kernel"].shape[-2] - plain["stem"]["kernel"].shape[-2] == 2


@pytest.mark.parametrize("name", ["ncsn", "ncsnv2_64"])
def test_networks_that_take_none_refuse_by_name(name):
    net = Net(NETS[name](nf=4))
    with pytest.raises(ValueError, match="cond label: must be left out: the network takes no condition"):
        net({}, jnp.zeros((2, 8, 8, 1)), 0.0, {"label": jnp.zeros(2, jnp.int32)})
    with pytest.raises(TypeError, match="conditions"):
        NETS[name](nf=4, conditions=labelled(2))


def test_an_image_on_another_grid_is_refused():
    with pytest.raises(ValueError, match=r"cond texture lies on a grid of \(8, 8\) and x on one of \(4, 4\)"):
        conditioned("ddpm").shapes((4, 4, 1))
