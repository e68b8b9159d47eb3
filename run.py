"""Score-based generative modelling through SDEs.

  train       fit a score model; the same command resumes it
              python run.py --config=configs/vp_digits.py --mode=train --workdir=runs/digits
  sample      draw images or arrays from a trained model
              python run.py --mode=sample --workdir=runs/digits --num_samples=64 --output=grid.png
  likelihood  bits/dim of the held-out data by the probability-flow ODE
              python run.py --mode=likelihood --workdir=runs/digits
  evaluate    loss on the held-out data by noise level; scores of generated samples, or of anyone's
              python run.py --mode=evaluate --workdir=runs/digits
              python run.py --mode=evaluate --workdir=runs/digits --num_samples=1500
              python run.py --mode=evaluate --samples=FOLDER --reference=FOLDER
  import      a workdir from a released checkpoint (docs/import.md)
              python run.py --mode=import --checkpoint=checkpoint_8.pth --config=configs/vp_cifar.py
  export      the averaged parameters of a workdir as one file
              python run.py --mode=export --workdir=runs/digits --output=digits.safetensors
  stats       reference statistics of a data set, for evaluate
              python run.py --config=configs/vp_digits.py --mode=stats --output=digits.npz
  classifier  a classifier of a labelled data set, whose features evaluate can use
              python run.py --mode=classifier --workdir=runs/digits
  dequantiser the density of the dequantisation noise, for tighter likelihoods
              python run.py --mode=dequantiser --workdir=runs/digits
  report      one HTML page about a run
              python run.py --mode=report --workdir=runs/digits
  encode      latents of examples, and how exactly they decode (docs/inversion.md)
              python run.py --mode=encode --workdir=runs/digits --samples=FOLDER
  decode      examples from latents, at one temperature or several
              python run.py --mode=decode --workdir=runs/digits --samples=runs/digits/latents.npz
  interpolate a strip of pictures from one example to another
              python run.py --mode=interpolate --workdir=runs/digits --images=3,five.png
  edit        fill, colour, enlarge or sharpen pictures with a trained model (docs/inverse.md)
              python run.py --mode=edit --workdir=runs/digits --task=inpaint --mask=half
  search      the most similar pictures of a folder, and retrieval accuracy where it has labels
              python run.py --mode=search --workdir=runs/digits --samples=FOLDER --images=query.png
  outliers    how unlike the training data examples are: likelihood, typicality, complexity
              python run.py --mode=outliers --workdir=runs/digits --samples=FOLDER

Any field of the config can be set: --config.training.batch_size=64.  A workdir remembers its config, so that
only training, and importing what does not say which model it is, need --config.
"""

# Kept short on purpose: the work is in score_sde, which can be imported and tested.
# Nothing heavy is imported before the flags are known, so that --help is immediate.

import gc
import os
import sys

from score_sde.cpu import malloc


def main() -> int:
    """Parse the command line and run its mode; returns the exit status."""
    malloc.restart_with_settings()
    gc.set_threshold(100_000)  # importing and tracing programs make objects by the million and hardly garbage

    from score_sde.flags import parse

    options = parse(sys.argv, __doc__ or "")

    from score_sde.cli import run

    gc.freeze()  # what is imported stays, and looking for garbage there slows the tracing of programs
    return run(options)


if __name__ == "__main__":
    try:
        status = main()
    except KeyboardInterrupt:
        print("\nrun.py: interrupted; the same command continues with what is finished", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(130)  # an orderly exit would pull the ground from under threads that still compile
    sys.exit(status)
