"""The official recipes, by the shapes of their parameters.

A released file holds no config.  What its parameters look like narrows the recipe down; which process it was
trained for often remains open (DDPM++ has the same parameters for VP and sub-VP), and then the user must say.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple


class Recipe(NamedTuple):
    """An official recipe.

    Attributes:
      name: of the official config file.
      signature: of the parameters, see ``signature``.
      size: of the images.
      words: the command-line words that name it here; empty while there is no such config.
    """

    name: str
    signature: str
    size: int
    words: str


_WIDTH = 128
_VP, _SUBVP, _VE = (f"--config=configs/{name}_cifar.py" for name in ("vp", "subvp", "ve"))
_DISCRETE_VP = "--config.sde.name=ddpm --config.denoiser.label=index --config.loss.times=levels"
_DISCRETE_VE = "--config.sde.name=smld --config.denoiser.label=reverse_index --config.loss.times=levels"
_POSITIONAL = "--config.model.embedding_type=positional"
_NCSNPP = "--config.model.fir=True --config.model.progressive_input=residual"
_DDPM = "--config.model.name=ddpm"
_DDPM_VE = "--config.model.name=ddpm --config.model.input_range=0.0,1.0"
_NCSNV2 = "--config.model.name=ncsnv2_64 --config.model.input_range=0.0,1.0"
_DDPM_256 = f"{_DDPM} --config.model.ch_mult=1,1,2,2,4,4 --config.model.dropout=0.0"
_SKIPS = (
    "--config.model.progressive=output_skip --config.model.progressive_input=input_skip "
    "--config.model.dropout=0.0 --config.sampling.steps=2000"
)
_NCSNPP_256 = (
    f"{_SKIPS} --config.model.ch_mult=1,1,2,2,2,2,2 --config.model.num_res_blocks=2 "
    "--config.sampling.snr=0.075"
)
_NCSNPP_1024 = (
    f"{_SKIPS} --config.model.nf=16 --config.model.ch_mult=1,2,4,8,16,32,32,32 "
    "--config.model.num_res_blocks=1 --config.sampling.snr=0.15 --config.sde.sigma_max=1348.0"
)
_KARRAS = (
    "--config.sde.name=edm --config.denoiser.prediction=edm --config.denoiser.label=quarter_log_sigma "
    "--config.loss.weight=edm --config.loss.half_sum=False --config.data.low=-1.0 "
    "--config.model.input_range=-1.0,1.0 --config.model.ch_mult=2,2,2 --config.sampling.solver=ode "
    "--config.sampling.t_end=0.002"
)

RECIPES = (
    Recipe("vp/ddpm/cifar10", "92627cfe", 32, f"{_VP} {_DDPM} {_DISCRETE_VP}"),
    Recipe("vp/ddpm/cifar10_continuous", "92627cfe", 32, f"{_VP} {_DDPM}"),
    Recipe("vp/ddpm/bedroom", "7da95ede", 256, f"{_VP} {_DDPM_256} {_DISCRETE_VP}"),
    Recipe("vp/ddpm/church", "7da95ede", 256, f"{_VP} {_DDPM_256} {_DISCRETE_VP}"),
    Recipe("vp/ddpm/celebahq", "7da95ede", 256, f"{_VP} {_DDPM_256} {_DISCRETE_VP}"),
    Recipe("vp/cifar10_ddpmpp", "fff070db", 32, f"{_VP} {_DISCRETE_VP}"),
    Recipe("vp/cifar10_ddpmpp_continuous", "fff070db", 32, _VP),
    Recipe("vp/cifar10_ddpmpp_deep_continuous", "3d60b4b4", 32, f"{_VP}:deep"),
    Recipe("vp/cifar10_ncsnpp", "1b1cc497", 32, f"{_VP} {_NCSNPP} {_DISCRETE_VP}"),
    Recipe("vp/cifar10_ncsnpp_continuous", "1b1cc497", 32, f"{_VP} {_NCSNPP}"),
    Recipe("vp/cifar10_ncsnpp_deep_continuous", "0fd1c883", 32, f"{_VP}:deep {_NCSNPP}"),
    Recipe("subvp/cifar10_ddpm_continuous", "92627cfe", 32, f"{_SUBVP} {_DDPM}"),
    Recipe("subvp/cifar10_ddpmpp_continuous", "fff070db", 32, _SUBVP),
    Recipe("subvp/cifar10_ddpmpp_deep_continuous", "3d60b4b4", 32, f"{_SUBVP}:deep"),
    Recipe("subvp/cifar10_ncsnpp_continuous", "1b1cc497", 32, f"{_SUBVP} {_NCSNPP}"),
    Recipe("subvp/cifar10_ncsnpp_deep_continuous", "0fd1c883", 32, f"{_SUBVP}:deep {_NCSNPP}"),
    Recipe("ve/cifar10_ddpm", "92627cfe", 32, f"{_VE} {_DDPM_VE} {_DISCRETE_VE}"),
    Recipe("ve/cifar10_ncsnpp", "1b1cc497", 32, f"{_VE} {_POSITIONAL} {_DISCRETE_VE}"),
    Recipe("ve/cifar10_ncsnpp_continuous", "73449ea7", 32, _VE),
    Recipe("ve/cifar10_ncsnpp_deep_continuous", "460cc245", 32, f"{_VE}:deep"),
    Recipe(
        "ve/celeba_ncsnpp",
        "1b1cc497",
        64,
        f"{_VE} {_POSITIONAL} {_DISCRETE_VE} --config.sde.sigma_max=90.0 --config.sampling.snr=0.17",
    ),
    Recipe(
        "ve/bedroom_ncsnpp_continuous", "c34d55ac", 256, f"{_VE} {_NCSNPP_256} --config.sde.sigma_max=378.0"
    ),
    Recipe(
        "ve/church_ncsnpp_continuous", "c34d55ac", 256, f"{_VE} {_NCSNPP_256} --config.sde.sigma_max=380.0"
    ),
    Recipe(
        "ve/celebahq_256_ncsnpp_continuous",
        "c34d55ac",
        256,
        f"{_VE} {_NCSNPP_256} --config.sde.sigma_max=348.0",
    ),
    Recipe(
        "ve/ffhq_256_ncsnpp_continuous", "c34d55ac", 256, f"{_VE} {_NCSNPP_256} --config.sde.sigma_max=348.0"
    ),
    Recipe("ve/celebahq_ncsnpp_continuous", "885e0ffe", 1024, f"{_VE} {_NCSNPP_1024}"),
    Recipe("ve/ffhq_ncsnpp_continuous", "885e0ffe", 1024, f"{_VE} {_NCSNPP_1024}"),
    Recipe(
        "ve/ncsnv2/cifar10",
        "cb17313e",
        32,
        f"{_VE} {_NCSNV2} {_DISCRETE_VE} --config.sde.steps=232 --config.data.size=32",
    ),
    Recipe(
        "ve/ncsnv2/celeba",
        "cb17313e",
        64,
        f"{_VE} {_NCSNV2} {_DISCRETE_VE} --config.sde.steps=500 --config.sde.sigma_max=90.0 "
        "--config.data.size=64",
    ),
    # Of consistency_models_cifar10, which has NCSN++ as a denoiser; what it distilled is none.
    Recipe("cifar10_k_ve", "24b18eb4", 32, f"{_VE} {_KARRAS}"),
    # No parameterization here: their output is the score itself, or its noise level is no number.
    Recipe("ve/ncsn/cifar10", "8f976b54", 32, ""),
    Recipe("ve/ncsn/cifar10_5", "8f976b54", 32, ""),
    Recipe("ve/ncsn/cifar10_124", "2e30ea7d", 32, ""),
    Recipe("ve/ncsn/cifar10_1245", "2e30ea7d", 32, ""),
    Recipe("ve/ncsn/celeba", "8f976b54", 64, ""),
    Recipe("ve/ncsn/celeba_5", "8f976b54", 64, ""),
    Recipe("ve/ncsn/celeba_124", "9f53f930", 64, ""),
    Recipe("ve/ncsn/celeba_1245", "9f53f930", 64, ""),
    Recipe("ve/ncsnv2/bedroom", "81813e53", 128, ""),
)


def width(shapes: Iterable[Sequence[int]]) -> int:
    """Channels of the first feature map; 0 where there are no images."""
    ends = list(_ends(shapes))
    return min((wide for narrow, wide in ends if narrow == min(ends)[0]), default=0)


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


def only(shapes: Iterable[Sequence[int]]) -> str | None:
    """The config file of the one official recipe that fits, if there is one and it fits as it is."""
    shapes = list(shapes)
    recipes = fitting(shapes)
    if len(recipes) != 1 or width(shapes) != _WIDTH or " " in recipes[0].words:
        return None
    return recipes[0].words.removeprefix("--config=") or None


def describe(shapes: Iterable[Any], recipes: Sequence[Recipe]) -> str:
    """What a file may be and how to say so, for a message."""
    if not recipes:
        return "its parameters fit no official recipe; name a config with --config=FILE.py"
    unit = width(shapes)
    published = 16 if recipes[0].size == 1024 else _WIDTH
    wider = "" if unit == published else f" --config.model.nf={unit}"
    lines = [f"  {r.name}: {r.words + wider if r.words else 'has no config here'}" for r in recipes]
    return "\n".join(["by the shapes of its parameters it is one of", *lines])


def _sorted(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(size for size in shape if size > 1))
