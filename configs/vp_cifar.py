"""DDPM++ cont. (VP) on CIFAR-10: arXiv:2011.13456, vp/cifar10_ddpmpp_continuous.

    python run.py --config=configs/vp_cifar.py --mode=train \\
        --config.data.source=folder --config.data.path=DIR

DIR holds train/ and test/ folders of 32x32 images.  Without the two overrides the data come from TensorFlow
Datasets by name (cifar10).  Variants: ``deep`` is the published deeper network, ``reduced`` one for a CPU.

Published: FID 2.55, 3.16 bits/dim (table 3; deep: 2.41, 3.13); 61.804 M parameters.
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
            "random_flip": True,
        }
    )
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
    config.model.update(variant_of(VARIANTS, variant))
    config.denoiser = ConfigDict({"prediction": "noise", "label": "time_999"})
    config.loss = ConfigDict({"weight": "noise"})
    config.optimizer = ConfigDict(
        {"name": "adam", "learning_rate": 2e-4, "warmup_steps": 5000, "clip_norm": 1.0}
    )
    config.ema = ConfigDict({"name": "constant", "decay": 0.9999})
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
            "t_end": 1e-3,
            "predictor": "euler_maruyama",
            "corrector": "none",
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
