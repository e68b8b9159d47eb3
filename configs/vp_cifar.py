"""DDPM++ cont. (VP) on CIFAR-10: arXiv:2011.13456, vp/cifar10_ddpmpp_continuous, and its siblings.

    python run.py --config=configs/vp_cifar.py --mode=train \\
        --config.data.source=folder --config.data.source.path=DIR

DIR holds train/ and test/ folders of 32x32 images.  Without the overrides the data come from TensorFlow
Datasets by name (cifar10).  A variant follows the file name after a colon; docs/recipes.md lists them with
their published results.  ``reduced`` is a small network for a CPU.

Published: FID 2.55, 3.16 bits/dim (table 3; deep: 2.41, 3.13); 61.804 M parameters.
Hardware: about 1e19 FLOP for the whole run; 0.2 s a step on 4 V100 with the official code.
"""

from ml_collections import ConfigDict

from score_sde.experiment.files import vary

NCSNPP = {"model.fir": True, "model.progressive_input": "residual"}
DEEP = {"model.num_res_blocks": 8, "training.steps": 950_000}
# The process of 1000 levels: as many evaluations at its own times, from the last level to the first.
DISCRETE = {
    "sde": {"name": "ddpm", "steps": 1000, "beta_min": 0.1, "beta_max": 20.0},
    "denoiser.time_input": "index",
    "loss.times": "levels",
    "sampling.solver.predictor": "ancestral",
    "sampling.steps": 999,
    "sampling.t_end": 0.0,
}
DDPM = {
    "model": {
        "name": "ddpm",
        "nf": 128,
        "ch_mult": (1, 2, 2, 2),
        "num_res_blocks": 2,
        "attn_resolutions": (16,),
        "dropout": 0.1,
    }
}
# For likelihood (arXiv:2101.09258): the bound, with times drawn in proportion to its weight, no flips.
ML = {
    "loss": {"weight": "likelihood", "times": "importance"},
    "data.random_flip": False,
}
# The noise schedule is learned with it (arXiv:2107.00630).
LEARNED = ML | {
    "sde": {"name": "learned"},
    "denoiser.time_input": "vp_time",
    "codec.dequantize": True,
}
# Meant for about ten minutes on two CPU cores.
REDUCED = {
    "model.nf": 16,
    "model.ch_mult": (1, 2, 4),
    "model.num_res_blocks": 1,
    "model.attn_resolutions": (8,),
    "model.dropout": 0.0,
    # A short run: the rate rises sooner and falls, and the average forgets its start.
    "optimizer.learning_rate": 2e-3,
    "optimizer.warmup_steps": 50,
    "optimizer.decay_steps": 500,
    "ema": {"name": "warmup", "decay": 0.99},
    "training.steps": 500,
    "training.batch_size": 64,
    "training.checkpoint_every_steps": 100,
    "training.eval_every_steps": 250,
    "training.sample_every_steps": 250,
    "training.sample_count": 36,
    # From little training, EDM's prediction has neither drifting colours at large noise nor grain at small.
    "denoiser.prediction": "edm",
    "loss": {"weight": "edm", "times": "log_normal"},
    "sampling.solver": "heun",
    "sampling.steps": 18,
}
# One network with and without the class, for guidance (arXiv:2207.12598); DIR has a sub-folder per class.
CLASS_CONDITIONAL = {"conditions.names": ("label",), "conditions.dropout": 0.1}
VARIANTS = {
    "": {},  # vp/cifar10_ddpmpp_continuous
    "ddpmpp_deep": DEEP,  # vp/cifar10_ddpmpp_deep_continuous
    "ddpmpp_discrete": DISCRETE,  # vp/cifar10_ddpmpp
    "ncsnpp": NCSNPP,  # vp/cifar10_ncsnpp_continuous
    "ncsnpp_deep": NCSNPP | DEEP,  # vp/cifar10_ncsnpp_deep_continuous
    "ncsnpp_discrete": NCSNPP
    | DISCRETE
    | {"sampling.solver.predictor": "reverse_diffusion"},  # vp/cifar10_ncsnpp
    "ddpm": DDPM,  # vp/ddpm/cifar10_continuous
    "ddpm_discrete": DDPM | DISCRETE,  # vp/ddpm/cifar10
    "ddpm_unconditional": DDPM
    | DISCRETE
    | {"model.noise_conditional": False},  # vp/ddpm/cifar10_unconditional
    "ml": ML,
    "ml_deep": ML | DEEP,
    "learned": LEARNED,
    "class_conditional": CLASS_CONDITIONAL,
    "reduced": REDUCED,
    "reduced_ml": REDUCED | ML,
}


def get_config(variant: str = "") -> ConfigDict:
    """The recipe, or one of its variants."""
    config = ConfigDict()
    config.seed = 42
    config.data = ConfigDict({"source": {"name": "tfds", "dataset": "cifar10"}, "random_flip": True})
    config.sde = ConfigDict({"name": "vp", "beta_min": 0.1, "beta_max": 20.0})
    config.model = ConfigDict(
        {
            "name": "ncsnpp",
            "nf": 128,
            "ch_mult": (1, 2, 2, 2),
            "num_res_blocks": 4,
            "attn_resolutions": (16,),
            "dropout": 0.1,
            "embedding_type": "positional",
            "fir": False,
            "resblock_type": "biggan",
            "skip_rescale": True,
            "init_scale": 0.0,
        }
    )
    config.denoiser = ConfigDict({"prediction": "noise", "time_input": "time_999"})
    config.loss = ConfigDict({"weight": "noise"})
    config.optimizer = ConfigDict(
        {"name": "adam", "learning_rate": 2e-4, "warmup_steps": 5000, "clip_norm": 1.0}
    )
    config.ema = ConfigDict({"name": "constant", "decay": 0.9999})
    config.training = ConfigDict(
        {
            "steps": 1_300_000,
            "batch_size": 128,
            "checkpoint_every_steps": 10_000,
            "keep_every_steps": 50_000,
            "log_every_steps": 50,
            "eval_every_steps": 5_000,
            "sample_every_steps": 50_000,
        }
    )
    config.sampling = ConfigDict(
        {
            "solver": {"name": "pc", "predictor": "euler_maruyama", "corrector": "none"},
            "steps": 1000,
            "t_end": 1e-3,
            "batch_size": 64,
        }
    )
    return vary(config, VARIANTS, variant)
