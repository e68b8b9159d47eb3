"""The official recipes, by the shapes of their parameters.

A released file holds no config.  What its parameters look like narrows the recipe down; which process it was
trained for often remains open (DDPM++ has the same parameters for VP and sub-VP), and then the user must say.
"""

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple


class Recipe(NamedTuple):
    """An official recipe.

    Attributes:
      name: of the official config file.
      signature: of the parameters, see ``signature``.
      size: of the images.
      config: its file here, with the variant, and overrides if there is no such variant.
    """

    name: str
    signature: str
    size: int
    config: str

    @property
    def words(self) -> str:
        """The command-line words that name it."""
        return f"--config=configs/{self.config}"


_WIDTH = 128
_KARRAS = (
    "--config.sde.name=edm --config.denoiser.prediction=edm --config.denoiser.time_input=quarter_log_sigma "
    "--config.loss.weight=edm --config.loss.half_sum=False --config.codec.low=-1.0 "
    "--config.model.input_range=-1.0,1.0 --config.model.ch_mult=2,2,2 --config.sampling.solver=ode "
    "--config.sampling.t_end=0.002"
)

RECIPES = (
    Recipe("vp/cifar10_ddpmpp_continuous", "fff070db", 32, "vp_cifar.py"),
    Recipe("vp/cifar10_ddpmpp_deep_continuous", "3d60b4b4", 32, "vp_cifar.py:ddpmpp_deep"),
    Recipe("vp/cifar10_ddpmpp", "fff070db", 32, "vp_cifar.py:ddpmpp_discrete"),
    Recipe("vp/cifar10_ncsnpp_continuous", "1b1cc497", 32, "vp_cifar.py:ncsnpp"),
    Recipe("vp/cifar10_ncsnpp_deep_continuous", "0fd1c883", 32, "vp_cifar.py:ncsnpp_deep"),
    Recipe("vp/cifar10_ncsnpp", "1b1cc497", 32, "vp_cifar.py:ncsnpp_discrete"),
    Recipe("vp/ddpm/cifar10_continuous", "92627cfe", 32, "vp_cifar.py:ddpm"),
    Recipe("vp/ddpm/cifar10", "92627cfe", 32, "vp_cifar.py:ddpm_discrete"),
    Recipe("subvp/cifar10_ddpmpp_continuous", "fff070db", 32, "subvp_cifar.py"),
    Recipe("subvp/cifar10_ddpmpp_deep_continuous", "3d60b4b4", 32, "subvp_cifar.py:ddpmpp_deep"),
    Recipe("subvp/cifar10_ncsnpp_continuous", "1b1cc497", 32, "subvp_cifar.py:ncsnpp"),
    Recipe("subvp/cifar10_ncsnpp_deep_continuous", "0fd1c883", 32, "subvp_cifar.py:ncsnpp_deep"),
    Recipe("subvp/cifar10_ddpm_continuous", "92627cfe", 32, "subvp_cifar.py:ddpm"),
    Recipe("ve/cifar10_ncsnpp_continuous", "73449ea7", 32, "ve_cifar.py"),
    Recipe("ve/cifar10_ncsnpp_deep_continuous", "460cc245", 32, "ve_cifar.py:ncsnpp_deep"),
    Recipe("ve/cifar10_ncsnpp", "1b1cc497", 32, "ve_cifar.py:ncsnpp_discrete"),
    Recipe("ve/cifar10_ddpm", "92627cfe", 32, "ve_cifar.py:ddpm_discrete"),
    Recipe("ve/ncsn/cifar10", "8f976b54", 32, "ve_cifar.py:ncsn"),
    Recipe("ve/ncsn/cifar10_5", "8f976b54", 32, "ve_cifar.py:ncsn_5"),
    Recipe("ve/ncsn/cifar10_124", "2e30ea7d", 32, "ve_cifar.py:ncsn_124"),
    Recipe("ve/ncsn/cifar10_1245", "2e30ea7d", 32, "ve_cifar.py:ncsn_1245"),
    Recipe("ve/ncsnv2/cifar10", "cb17313e", 32, "ve_cifar.py:ncsnv2"),
    Recipe("ve/celeba_ncsnpp", "1b1cc497", 64, "ve_celeba.py"),
    Recipe("ve/ncsn/celeba", "8f976b54", 64, "ve_celeba.py:ncsn"),
    Recipe("ve/ncsn/celeba_5", "8f976b54", 64, "ve_celeba.py:ncsn_5"),
    Recipe("ve/ncsn/celeba_124", "9f53f930", 64, "ve_celeba.py:ncsn_124"),
    Recipe("ve/ncsn/celeba_1245", "9f53f930", 64, "ve_celeba.py:ncsn_1245"),
    Recipe("ve/ncsnv2/celeba", "cb17313e", 64, "ve_celeba.py:ncsnv2"),
    Recipe("ve/bedroom_ncsnpp_continuous", "c34d55ac", 256, "ve_lsun.py"),
    Recipe("ve/church_ncsnpp_continuous", "c34d55ac", 256, "ve_lsun.py:church"),
    Recipe("ve/ncsnv2/bedroom", "81813e53", 128, "ve_lsun.py:ncsnv2"),
    Recipe("ve/celebahq_256_ncsnpp_continuous", "c34d55ac", 256, "ve_faces.py"),
    Recipe("ve/ffhq_256_ncsnpp_continuous", "c34d55ac", 256, "ve_faces.py:ffhq_256"),
    Recipe("ve/celebahq_ncsnpp_continuous", "885e0ffe", 1024, "ve_faces.py:celebahq_1024"),
    Recipe("ve/ffhq_ncsnpp_continuous", "885e0ffe", 1024, "ve_faces.py:ffhq_1024"),
    Recipe("vp/ddpm/bedroom", "7da95ede", 256, "vp_256.py"),
    Recipe("vp/ddpm/church", "7da95ede", 256, "vp_256.py:church"),
    Recipe("vp/ddpm/celebahq", "7da95ede", 256, "vp_256.py:celebahq"),
    # Of consistency_models_cifar10, which has NCSN++ as a denoiser; what it distilled is none.
    Recipe("cifar10_k_ve", "24b18eb4", 32, f"ve_cifar.py {_KARRAS}"),
)


def width(shapes: Iterable[Sequence[int]]) -> int:
    """Channels of the first feature map; 0 where there are no images."""
    ends = list(_ends(shapes))
    narrowest = min(ends, default=(0, 0))[0]
    return min((wide for narrow, wide in ends if narrow == narrowest), default=0)


def channels(shapes: Iterable[Sequence[int]]) -> int:
    """Channels of the images; 0 where there are none."""
    return min(_ends(shapes), default=(0, 0))[0]


def _ends(shapes: Iterable[Sequence[int]]) -> Iterator[tuple[int, int]]:
    """The narrower and the wider end of every 3 x 3 convolution."""
    for shape in shapes:
        sizes = sorted(shape)
        if len(sizes) == 4 and sizes.count(3) >= 2:
            sizes.remove(3)
            sizes.remove(3)
            yield sizes[0], sizes[1]


def signature(shapes: Iterable[Sequence[int]]) -> str:
    """A checksum of the parameters' shapes, in units of the width.

    It depends neither on the names and the order of parameters nor on the order of their axes, so it is the
    same for the released PyTorch and JAX files and for our own trees.
    """
    shapes = list(shapes)
    unit = width(shapes)
    lines = sorted(
        "x".join(f"{d // unit}n" if unit and d % unit == 0 else str(d) for d in shape)
        for shape in map(_sorted, shapes)
        if shape
    )
    return f"{zlib.crc32(' '.join(lines).encode()):08x}"


def fitting(shapes: Iterable[Sequence[int]]) -> list[Recipe]:
    """The official recipes, at any width, whose parameters have these shapes."""
    found = signature(shapes)
    return [recipe for recipe in RECIPES if recipe.signature == found]


def is_of(recipe: Recipe, dataset: str) -> bool:
    """Whether a recipe is for a set of TensorFlow Datasets, such as ``celeb_a:2.1.0`` or ``lsun/bedroom``."""
    name = re.sub("[^a-z0-9]", "", dataset.partition(":")[0].rpartition("/")[2].lower())
    return name in re.split("[/_]", recipe.name)


def of_kind(model: str) -> list[Recipe]:
    """The recipes of a network, ``ncsnv2_64``, whatever the shapes of the parameters.

    The official JAX code, and other norms, have other shapes than the recipes, which are of the PyTorch code.
    """
    return [recipe for recipe in RECIPES if model.partition("_")[0] in recipe.name.split("/")]


def only(shapes: Iterable[Sequence[int]]) -> str | None:
    """The config file of the one official recipe that fits, if there is one and it fits as it is."""
    shapes = list(shapes)
    recipes = fitting(shapes)
    if len(recipes) != 1 or width(shapes) != _WIDTH or " " in recipes[0].words:
        return None
    return recipes[0].words.removeprefix("--config=") or None


def describe(shapes: Iterable[Sequence[int]], recipes: Sequence[Recipe]) -> str:
    """What a file may be and how to say so, for a message."""
    if not recipes:
        return "its parameters fit no official recipe; name a config with --config=FILE.py"
    unit = width(shapes)
    published = 16 if recipes[0].size == 1024 else _WIDTH
    wider = "" if unit == published else f" --config.model.nf={unit}"
    lines = [f"  {r.name}: {r.words}{wider}" for r in recipes]
    return "\n".join(["by the shapes of its parameters it is one of", *lines])


def _sorted(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(size for size in shape if size > 1))
