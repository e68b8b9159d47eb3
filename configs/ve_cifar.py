"""NCSN++ cont. (VE) on CIFAR-10: arXiv:2011.13456, ve/cifar10_ncsnpp_continuous.

    python run.py --config=configs/ve_cifar.py --mode=train \\
        --config.data.source=folder --config.data.path=DIR

DIR holds train/ and test/ folders of 32x32 images.  Without the two overrides the data come from TensorFlow
Datasets by name (cifar10).  Variants: ``deep`` is the published deeper network, ``reduced`` one for a CPU.

Published: FID 2.38, IS 9.83 (table 3; deep: 2.20, 9.89); 62.759 M parameters.
Hardware: about 1e19 FLOP for the whole run; 0.2 s a step on 4 V100 with the official code.
"""

from ml_collections import ConfigDict

from score_sde.config import variant_of

VARIANTS = {
    "": {},
    "deep": {"num_res_blocks": 8},
    "reduced": {"nf": 32, "ch_mult": (1, 2, 2), "num_res_blocks": 1},
}


def get_config(variant: str = "") -> ConfigDict:
    """The recipe, or one of its variants."""
    config = ConfigDict()
    config.seed = 42
    config.data = ConfigDict(
        {
            "source": "tfds",
            "name": "cifar10",
            "low": 0.0,  # this recipe keeps the data in [0, 1]; the network maps them to [-1, 1]
            "high": 1.0,
            "random_flip": True,
        }
    )
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
    config.model.update(variant_of(VARIANTS, variant))
    config.denoiser = ConfigDict({"prediction": "score", "label": "log_sigma"})
    config.loss = ConfigDict({"weight": "noise", "half_sum": True})
    config.optimizer = ConfigDict(
        {"name": "adam", "learning_rate": 2e-4, "warmup_steps": 5000, "clip_norm": 1.0}
    )
    config.ema = ConfigDict({"name": "constant", "decay": 0.999})
    config.training = ConfigDict(
        {
            "steps": 950_000 if variant == "deep" else 1_300_000,
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
            "solver": "pc",
            "steps": 1000,
            "t_end": 1e-5,
            "predictor": "reverse_diffusion",
            "corrector": "langevin",
            "snr": 0.16,
            "batch_size": 64,
        }
    )
    if variant == "reduced":  # a short run: the average must forget its start, the rate rise sooner
        config.optimizer.warmup_steps = 200
        config.ema = ConfigDict({"name": "warmup", "decay": 0.999})
        config.training.update({"steps": 2_000, "checkpoint_every_steps": 250})
        config.training.update({"eval_every_steps": 500, "sample_every_steps": 500, "sample_count": 36})
        config.sampling.steps = 100
    return config
