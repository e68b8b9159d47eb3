"""Flow matching along straight paths on CIFAR-10: Lipman et al. 2023 (arXiv:2210.02747), section 4.1.

    python run.py --config=configs/flow_cifar.py --mode=train \\
        --config.data.source=folder --config.data.source.path=DIR

DIR holds train/ and test/ folders of 32x32 images.  Without the overrides the data come from TensorFlow
Datasets by name (cifar10).  The network is DDPM++ of vp_cifar.py, not the paper's.

Published with another network (table 1): FID 6.35, 2.99 bits/dim, 142 evaluations.  61.804 M parameters here.
Hardware: about 3e18 FLOP for the whole run.
"""

from ml_collections import ConfigDict

from score_sde.experiment.files import vary

VARIANTS = {"": {}, "cond": {"conditions.names": ("label",)}}


def get_config(variant: str = "") -> ConfigDict:
    """The recipe, or one of its variants."""
    config = ConfigDict()
    config.seed = 0
    config.data = ConfigDict({"source": {"name": "tfds", "dataset": "cifar10"}, "random_flip": True})
    config.sde = ConfigDict({"name": "flow"})
    config.model = ConfigDict(
        {
            "name": "ncsnpp",
            "nf": 128,
            "ch_mult": (1, 2, 2, 2),
            "num_res_blocks": 4,
            "attn_resolutions": (16,),
            "dropout": 0.1,
            "embedding_type": "positional",
        }
    )
    config.denoiser = ConfigDict({"prediction": "velocity", "time_input": "time_999"})
    config.loss = ConfigDict({"weight": "velocity", "times": "low_discrepancy"})
    config.optimizer = ConfigDict(
        {"name": "adam", "learning_rate": 2e-4, "warmup_steps": 5000, "clip_norm": 1.0}
    )
    config.ema = ConfigDict({"name": "constant", "decay": 0.9999})
    config.training = ConfigDict({"steps": 400_000, "batch_size": 128, "checkpoint_every_steps": 10_000})
    config.sampling = ConfigDict({"solver": "ode", "t_end": 1e-4})
    config.likelihood = ConfigDict({"t_min": 1e-4})
    return vary(config, VARIANTS, variant)
