"""DDPM++ cont. (sub-VP) on CIFAR-10: arXiv:2011.13456, subvp/cifar10_ddpmpp_continuous, and its siblings.

    python run.py --config=configs/subvp_cifar.py --mode=train \\
        --config.data.source=folder --config.data.source.path=DIR

DIR holds train/ and test/ folders of 32x32 images.  Without the overrides the data come from TensorFlow
Datasets by name (cifar10).  A variant follows the file name after a colon; docs/recipes.md lists them with
their published results.  ``reduced`` is a small network for a CPU.

Published: FID 2.61, 3.02 bits/dim (table 3; deep: 2.41, 2.99); 61.804 M parameters.
Hardware: about 1e19 FLOP for the whole run; 0.2 s a step on 4 V100 with the official code.
"""

from ml_collections import ConfigDict

from score_sde.experiment.files import vary

NCSNPP = {"model.fir": True, "model.progressive_input": "residual"}
DEEP = {"model.num_res_blocks": 8, "training.steps": 950_000}
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
    "sde.t_min": 1e-2,
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
VARIANTS = {
    "": {},  # subvp/cifar10_ddpmpp_continuous
    "ddpmpp_deep": DEEP,  # subvp/cifar10_ddpmpp_deep_continuous
    "ncsnpp": NCSNPP,  # subvp/cifar10_ncsnpp_continuous
    "ncsnpp_deep": NCSNPP | DEEP,  # subvp/cifar10_ncsnpp_deep_continuous
    "ddpm": DDPM,  # subvp/cifar10_ddpm_continuous
    "ml": ML,
    "ml_deep": ML | DEEP,
    "reduced": REDUCED,
    "reduced_ml": REDUCED | ML,
}


def get_config(variant: str = "") -> ConfigDict:
    """The recipe, or one of its variants."""
    config = ConfigDict()
    config.seed = 42
    config.data = ConfigDict({"source": {"name": "tfds", "dataset": "cifar10"}, "random_flip": True})
    config.sde = ConfigDict({"name": "subvp", "beta_min": 0.1, "beta_max": 20.0})
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
