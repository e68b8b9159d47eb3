"""Score-based generative modelling through SDEs.

  train       fit a score model, or go on where --workdir stopped
              python run.py --config=configs/vp_digits.py --mode=train --workdir=runs/digits
  sample      draw images or arrays from a trained model
              python run.py --mode=sample --workdir=runs/digits --num_samples=64 --output=grid.png
  likelihood  bits/dim of the held-out data by the probability-flow ODE
              python run.py --mode=likelihood --workdir=runs/digits
  evaluate    loss on the held-out data by noise level; scores of generated samples, or of anyone's
              python run.py --mode=evaluate --workdir=runs/digits
  import      a workdir from a released checkpoint (docs/import.md)
              python run.py --mode=import --checkpoint=checkpoint_8.pth --config=configs/vp_cifar.py
  export      the averaged parameters of a workdir as one file
              python run.py --mode=export --workdir=runs/digits --output=digits.safetensors
              python run.py --mode=evaluate --workdir=runs/digits --num_samples=1500
              python run.py --mode=evaluate --samples=FOLDER --reference=FOLDER
  stats       reference statistics of a data set, for evaluate
              python run.py --config=configs/vp_digits.py --mode=stats --output=digits.npz
  classifier  a classifier of a labelled data set, whose features evaluate can use
              python run.py --mode=classifier --workdir=runs/digits
  report      one HTML page about a run
              python run.py --mode=report --workdir=runs/digits

Any field of the config can be set: --config.training.batch_size=64.  A workdir remembers its config, so that
only training, and importing what does not say which model it is, need --config.
"""

# Kept short on purpose: the work is in score_sde, which can be imported and tested.
# Nothing heavy is imported before the flags are known, so that --help is immediate.

import sys

from score_sde.flags import parse

if __name__ == "__main__":
    options = parse(sys.argv, __doc__ or "")

    from score_sde.cli import run

    sys.exit(run(options))
