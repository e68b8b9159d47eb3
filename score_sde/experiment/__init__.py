"""From a config to the objects of an experiment."""
