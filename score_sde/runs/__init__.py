"""A workdir on disk and the model in it: what every mode stands on."""
