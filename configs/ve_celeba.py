"""NCSN++ (VE) on CelebA at 64x64: arXiv:2011.13456, ve/celeba_ncsnpp, and the earlier networks on it.

    python run.py --config=configs/ve_celeba.py --mode=train \\
        --config.data.source=folder --config.data.source.path=DIR \\
        --config.data.source.center_crop=140 --config.data.source.size=64

DIR holds the aligned 178x218 images; their central 140 pixels are scaled to 64.  Without the overrides
the data come from TensorFlow Datasets by name (celeb_a).  Variants: ``ncsn``, ``ncsn_5``, ``ncsn_124``,
``ncsn_1245`` and ``ncsnv2``; the numbers are the techniques of arXiv:2006.09011 that a recipe uses.

Published: none in the paper; FID about 2.5 by its first author.  62.693 M parameters.
Hardware: about 4e19 FLOP for the whole run.
"""

from ml_collections import ConfigDict

from score_sde.experiment.files import vary

# The first networks learn the score itself, at few levels, and are sampled by annealed Langevin dynamics.
NCSN = {
    "model": {"name": "ncsn", "nf": 128, "num_scales": 10, "input_range": (0.0, 1.0)},
    "sde": {"name": "smld", "steps": 10, "sigma_min": 0.01, "sigma_max": 1.0},
    "denoiser.prediction": "raw_score",
    "optimizer": {"name": "adam", "learning_rate": 1e-3, "warmup_steps": 0, "clip_norm": 0.0},
    "ema.decay": 0.0,
    "sampling": {
        "solver": {
            "name": "legacy_pc",
            "predictor": "none",
            "corrector": "ald",
            "corrector_steps": 100,
            "snr": 0.316,
        },
        "steps": 10,
        "t_end": 1e-5,
    },
}
MANY_LEVELS = {
    "sde.steps": 500,
    "sde.sigma_max": 90.0,
    "sampling.steps": 500,
    "sampling.solver.corrector_steps": 5,
    "sampling.solver.snr": 0.128,
}
VARIANTS = {
    "": {},  # ve/celeba_ncsnpp
    "ncsn": NCSN,  # ve/ncsn/celeba
    "ncsn_5": NCSN | {"ema.decay": 0.999},  # ve/ncsn/celeba_5
    "ncsn_124": NCSN | MANY_LEVELS | {"model.num_scales": 500},  # ve/ncsn/celeba_124
    "ncsn_1245": NCSN  # ve/ncsn/celeba_1245
    | MANY_LEVELS
    | {"model.num_scales": 500, "ema.decay": 0.999},
    "ncsnv2": NCSN  # ve/ncsnv2/celeba
    | MANY_LEVELS
    | {
        "model": {"name": "ncsnv2_64", "nf": 128, "input_range": (0.0, 1.0)},
        "denoiser.prediction": "score",
        "optimizer.learning_rate": 1e-4,
        "ema.decay": 0.999,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The recipe, or one of its variants."""
    config = ConfigDict()
    config.seed = 42
    config.data = ConfigDict(
        {
            "source": {"name": "tfds", "dataset": "celeb_a", "center_crop": 140, "size": 64},
            "random_flip": True,
        }
    )
    # This recipe keeps the data in [0, 1]; the network maps them to [-1, 1].
    config.codec = ConfigDict({"name": "pixels", "low": 0.0, "high": 1.0})
    config.sde = ConfigDict({"name": "smld", "steps": 1000, "sigma_min": 0.01, "sigma_max": 90.0})
    config.model = ConfigDict(
        {
            "name": "ncsnpp",
            "nf": 128,
            "ch_mult": (1, 2, 2, 2),
            "num_res_blocks": 4,
            "attn_resolutions": (16,),
            "dropout": 0.1,
            "embedding_type": "positional",
            "fir": True,
            "fir_kernel": (1, 3, 3, 1),
            "progressive_input": "residual",
            "input_range": (0.0, 1.0),
        }
    )
    config.denoiser = ConfigDict({"prediction": "score", "time_input": "reverse_index"})
    config.loss = ConfigDict({"weight": "noise", "half_sum": True, "times": "levels"})
    config.optimizer = ConfigDict(
        {"name": "adam", "learning_rate": 2e-4, "warmup_steps": 5000, "clip_norm": 1.0}
    )
    config.ema = ConfigDict({"name": "constant", "decay": 0.999})
    config.training = ConfigDict({"steps": 1_300_000, "batch_size": 128, "checkpoint_every_steps": 10_000})
    config.sampling = ConfigDict(
        {
            "solver": {"name": "pc", "predictor": "reverse_diffusion", "corrector": "langevin", "snr": 0.17},
            "steps": 999,
            "t_end": 0.0,
        }
    )
    return vary(config, VARIANTS, variant)
