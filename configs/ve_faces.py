"""NCSN++ cont. (VE) on faces: arXiv:2011.13456, ve/celebahq_256_ncsnpp_continuous, and its siblings.

    python run.py --config=configs/ve_faces.py --mode=train --config.data.source.path=DIR

DIR holds images of CelebA-HQ or FFHQ.  Variants: ``ffhq_256``, and ``celebahq_1024`` and ``ffhq_1024``, the
recipe of 1024x1024 pixels (appendix H.3).

Published: samples only.  65.575 M parameters at 256, 105.786 M at 1024.
Hardware: 530 GFLOP an image forwards at 256; at 1024 the authors trained for about 2.4 M steps of 8 images.
"""

from ml_collections import ConfigDict

from score_sde.experiment.files import vary

LARGE = {
    "data.source.size": 1024,
    "sde.sigma_max": 1348.0,
    "model.nf": 16,
    "model.ch_mult": (1, 2, 4, 8, 16, 32, 32, 32),
    "model.num_res_blocks": 1,
    "ema.decay": 0.9999,
    "training.batch_size": 8,
    "training.sample_count": 4,
    "sampling.solver.snr": 0.15,
    "sampling.batch_size": 4,
}
VARIANTS = {
    "": {},  # ve/celebahq_256_ncsnpp_continuous
    "ffhq_256": {},  # ve/ffhq_256_ncsnpp_continuous: the same numbers, other data
    "celebahq_1024": LARGE,  # ve/celebahq_ncsnpp_continuous
    # ve/ffhq_ncsnpp_continuous, which alone of the VE recipes takes the mean over pixels.
    "ffhq_1024": LARGE | {"loss.half_sum": False},
}


def get_config(variant: str = "") -> ConfigDict:
    """The recipe, or one of its variants."""
    config = ConfigDict()
    config.seed = 42
    config.data = ConfigDict({"source": {"name": "folder", "size": 256}, "random_flip": True})
    # This recipe keeps the data in [0, 1]; the network maps them to [-1, 1].
    config.codec = ConfigDict({"name": "pixels", "low": 0.0, "high": 1.0})
    config.sde = ConfigDict({"name": "ve", "sigma_min": 0.01, "sigma_max": 348.0})
    config.model = ConfigDict(
        {
            "name": "ncsnpp",
            "nf": 128,
            "ch_mult": (1, 1, 2, 2, 2, 2, 2),
            "num_res_blocks": 2,
            "attn_resolutions": (16,),
            "dropout": 0.0,
            "embedding_type": "fourier",
            "fourier_scale": 16.0,
            "fir": True,
            "fir_kernel": (1, 3, 3, 1),
            "progressive": "output_skip",
            "progressive_input": "input_skip",
            "input_range": (0.0, 1.0),
        }
    )
    config.denoiser = ConfigDict({"prediction": "score", "time_input": "log_sigma"})
    config.loss = ConfigDict({"weight": "noise", "half_sum": True})
    config.optimizer = ConfigDict(
        {"name": "adam", "learning_rate": 2e-4, "warmup_steps": 5000, "clip_norm": 1.0}
    )
    config.ema = ConfigDict({"name": "constant", "decay": 0.999})
    config.training = ConfigDict({"steps": 2_400_000, "batch_size": 64, "checkpoint_every_steps": 5_000})
    config.sampling = ConfigDict(
        {
            "solver": {"name": "pc", "predictor": "reverse_diffusion", "corrector": "langevin", "snr": 0.075},
            "steps": 2000,
            "t_end": 1e-5,
        }
    )
    return vary(config, VARIANTS, variant)
