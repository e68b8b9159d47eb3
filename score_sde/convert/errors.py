"""What is wrong with a file that was given for import."""


class CheckpointError(ValueError):
    """A file that cannot be read; the message names it and the cause."""


class UnsafePickle(CheckpointError):
    """A pickle that asks for something outside the allow-list; the message names it."""
