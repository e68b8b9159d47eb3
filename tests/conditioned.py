"""Conditions of the networks in tests."""

from score_sde.conditions import Condition, labelled

COUNTS = {"label": "num_classes", "augment": "augment_dim"}  # in recorded options
RENAMED = {"conditional": "noise_conditional"}


def conditions(label=0, augment=0):
    """The field ``conditions`` of a network that takes a class, an augmentation, or both."""
    return labelled(label) + ((("augment", Condition("vector", (augment,))),) if augment else ())


def with_conditions(fields):
    """Recorded options of a network under the names of here; numbers of classes and such are conditions."""
    counts = {name: fields[key] for name, key in COUNTS.items() if fields.get(key)}
    rest = {RENAMED.get(key, key): value for key, value in fields.items() if key not in COUNTS.values()}
    return rest | ({"conditions": conditions(**counts)} if counts else {})
