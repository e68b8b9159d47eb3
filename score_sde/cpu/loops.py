"""Loops in programs: XLA for CPUs runs the gradients of convolutions inside them without their fast path."""

from score_sde.cpu import switch


def unroll(length: int) -> int:
    """How many of ``length`` steps a loop around gradients has in its body, for ``jax.lax.scan``."""
    return length if switch.acts() else 1
