"""Several processes of one job: which one writes and prints."""

import jax


def is_chief() -> bool:
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


def say(message: str) -> None:
    """Print on the first process."""
    if is_chief():
        print(message, flush=True)
