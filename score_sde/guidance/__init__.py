"""Wrappers of the denoiser."""
