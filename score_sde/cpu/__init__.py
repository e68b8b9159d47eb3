"""What exists for CPUs only.

``switch`` says when it acts: only where JAX has no accelerator, and never with ``SCORE_SDE_CPU=0``.
``malloc`` sets up the memory of the process, ``devices`` makes a device of each core, ``winograd`` computes
convolutions with fewer multiplications, and ``loops`` unrolls loops.  Nothing else in the package asks which
backend it runs on.
"""
