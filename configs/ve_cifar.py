"""NCSN++ cont. (VE) on CIFAR-10: arXiv:2011.13456, ve/cifar10_ncsnpp_continuous, and its siblings.

    python run.py --config=configs/ve_cifar.py --mode=train \\
        --config.data.source=folder --config.data.source.path=DIR

DIR holds train/ and test/ folders of 32x32 images.  Without the overrides the data come from TensorFlow
Datasets by name (cifar10).  A variant follows the file name after a colon; docs/recipes.md lists them with
their published results.  ``reduced`` is a small network for a CPU.

Published: FID 2.38, IS 9.83 (table 3; deep: 2.20, 9.89); 62.759 M parameters.
Hardware: about 1e19 FLOP for the whole run; 0.2 s a step on 4 V100 with the official code.
"""

from ml_collections import ConfigDict

from score_sde.experiment.files import vary

# The process of 1000 levels, labelled by their number; as many evaluations at its own times.
DISCRETE = {
    "sde": {"name": "smld", "steps": 1000, "sigma_min": 0.01, "sigma_max": 50.0},
    "denoiser.time_input": "reverse_index",
    "loss.times": "levels",
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
        "input_range": (0.0, 1.0),
    }
}
# The first networks learn the score itself, at few levels, and are sampled by annealed Langevin dynamics.
NCSN = {
    "model": {"name": "ncsn", "nf": 128, "num_scales": 10, "input_range": (0.0, 1.0)},
    "sde": {"name": "smld", "steps": 10, "sigma_min": 0.01, "sigma_max": 1.0},
    "denoiser": {"prediction": "raw_score", "time_input": "reverse_index"},
    "loss.times": "levels",
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
    "sde.steps": 232,
    "sde.sigma_max": 50.0,
    "sampling.steps": 232,
    "sampling.solver.corrector_steps": 5,
    "sampling.solver.snr": 0.176,
}
# One network with and without the class, for guidance (arXiv:2207.12598); DIR has a sub-folder per class.
CLASS_CONDITIONAL = {"conditions.names": ("label",), "conditions.dropout": 0.1}
VARIANTS = {
    "": {},  # ve/cifar10_ncsnpp_continuous
    "ncsnpp_deep": {  # ve/cifar10_ncsnpp_deep_continuous
        "model.num_res_blocks": 8,
        "training.steps": 950_000,
    },
    "ncsnpp_discrete": DISCRETE | {"model.embedding_type": "positional"},  # ve/cifar10_ncsnpp
    "ddpm_discrete": DDPM | DISCRETE,  # ve/cifar10_ddpm
    "ncsn": NCSN,  # ve/ncsn/cifar10
    "ncsn_5": NCSN | {"ema.decay": 0.999},  # ve/ncsn/cifar10_5
    "ncsn_124": NCSN | MANY_LEVELS | {"model.num_scales": 232},  # ve/ncsn/cifar10_124
    "ncsn_1245": NCSN  # ve/ncsn/cifar10_1245
    | MANY_LEVELS
    | {"model.num_scales": 232, "ema.decay": 0.999},
    "ncsnv2": NCSN  # ve/ncsnv2/cifar10
    | MANY_LEVELS
    | {
        "model": {"name": "ncsnv2_64", "nf": 128, "input_range": (0.0, 1.0)},
        "denoiser.prediction": "score",
        "optimizer.learning_rate": 1e-4,
        "ema.decay": 0.999,
    },
    "class_conditional": CLASS_CONDITIONAL,
    "reduced": {  # meant for about ten minutes on two CPU cores
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
        "sampling.solver.predictor": "ancestral",
        "sampling.steps": 100,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The recipe, or one of its variants."""
    config = ConfigDict()
    config.seed = 42
    config.data = ConfigDict({"source": {"name": "tfds", "dataset": "cifar10"}, "random_flip": True})
    # This recipe keeps the data in [0, 1]; the network maps them to [-1, 1].
    config.codec = ConfigDict({"name": "pixels", "low": 0.0, "high": 1.0})
    config.sde = ConfigDict({"name": "ve", "sigma_min": 0.01, "sigma_max": 50.0})
    config.model = ConfigDict(
        {
            "name": "ncsnpp",
            "nf": 128,
            "ch_mult": (1, 2, 2, 2),
            "num_res_blocks": 4,
            "attn_resolutions": (16,),
            "dropout": 0.1,
            "embedding_type": "fourier",
            "fourier_scale": 16.0,
            "fir": True,
            "fir_kernel": (1, 3, 3, 1),
            "progressive_input": "residual",
            "input_range": (0.0, 1.0),
            "resblock_type": "biggan",
            "skip_rescale": True,
            "init_scale": 0.0,
        }
    )
    config.denoiser = ConfigDict({"prediction": "score", "time_input": "log_sigma"})
    config.loss = ConfigDict({"weight": "noise", "half_sum": True})
    config.optimizer = ConfigDict(
        {"name": "adam", "learning_rate": 2e-4, "warmup_steps": 5000, "clip_norm": 1.0}
    )
    config.ema = ConfigDict({"name": "constant", "decay": 0.999})
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
            "solver": {"name": "pc", "predictor": "reverse_diffusion", "corrector": "langevin", "snr": 0.16},
            "steps": 1000,
            "t_end": 1e-5,
            "batch_size": 64,
        }
    )
    return vary(config, VARIANTS, variant)
