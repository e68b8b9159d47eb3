"""EDM on CIFAR-10: Karras et al. 2022 (arXiv:2206.00364), configuration F of table 2.

    python run.py --config=configs/edm_cifar.py --mode=train \\
        --config.data.source=folder --config.data.source.path=DIR

DIR holds train/ and test/ folders of 32x32 images, with a sub-folder per class for ``cond``.  Without the two
overrides the data come from TensorFlow Datasets by name (cifar10).  Variants: ``cond`` learns with the ten
labels, and ``class_conditional`` also without them, for guidance; ``ncsnpp`` and ``ncsnpp_cond`` have the
NCSN++ network.

Published with 35 evaluations: FID 1.97, cond 1.79, ncsnpp 1.98, ncsnpp_cond 1.79.  55.7 M parameters, ncsnpp
56.4 M.
Hardware: 200 M training images; about two days on 8 V100 in the paper.
"""

from ml_collections import ConfigDict

from score_sde.experiment.files import vary

IMAGES = 200_000_000
NCSNPP = {
    "model.embedding_type": "fourier",
    "model.fir": True,
    "model.progressive_input": "residual",
}
COND = {"conditions.names": ("label",)}
# For guidance: the labels are dropped now and then (arXiv:2207.12598).
CLASS_CONDITIONAL = COND | {"conditions.dropout": 0.1}
VARIANTS = {
    "": {},
    "cond": COND,
    "class_conditional": CLASS_CONDITIONAL,
    "ncsnpp": NCSNPP,
    "ncsnpp_cond": NCSNPP | COND,
}


def get_config(variant: str = "") -> ConfigDict:
    """The recipe, or one of its variants."""
    config = ConfigDict()
    config.seed = 0
    # The augmentation flips images and says so; a flip of its own would not.
    config.data = ConfigDict({"source": {"name": "tfds", "dataset": "cifar10"}, "augment_probability": 0.12})
    config.sde = ConfigDict({"name": "edm", "t_min": 0.002, "t_max": 80.0})
    config.model = ConfigDict(
        {
            "name": "songunet",
            "nf": 128,
            "ch_mult": (2, 2, 2),
            "num_res_blocks": 4,
            "attn_resolutions": (16,),
            "dropout": 0.13,
        }
    )
    config.denoiser = ConfigDict(
        {"prediction": {"name": "edm", "sigma_data": 0.5}, "time_input": "quarter_log_sigma"}
    )
    config.loss = ConfigDict(
        {
            "weight": {"name": "edm", "sigma_data": 0.5},
            "times": {"name": "log_normal", "p_mean": -1.2, "p_std": 1.2},
        }
    )
    config.optimizer = ConfigDict(
        {"name": "adam", "learning_rate": 1e-3, "warmup_images": 10_000_000, "clip_norm": 0.0}
    )
    config.ema = ConfigDict({"name": "half_life", "half_life_images": 500_000, "ramp_up": 0.05})
    config.training = ConfigDict(
        {
            "steps": IMAGES // 512,
            "batch_size": 512,
            "checkpoint_every_steps": 2_000,
            "keep_every_steps": 20_000,
        }
    )
    # 17 steps of two evaluations, and one to no noise: EDM's 18 noise levels.
    config.sampling = ConfigDict(
        {"solver": "heun", "grid": {"name": "power", "rho": 7.0}, "steps": 17, "t_end": 0.002}
    )
    return vary(config, VARIANTS, variant)
