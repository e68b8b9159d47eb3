"""Weights and inputs of the recorded networks, regenerated instead of stored (numpy only)."""

import zlib

import numpy as np


def state_dict(seed: int, table: list) -> dict[str, np.ndarray]:
    """Tensor NAME is ``mean + std * PCG64([seed, crc32(NAME)])`` normals, cast once to float32."""
    tensors = {}
    for name, shape, mean, std in table:
        generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
        tensors[name] = (mean + std * generator.standard_normal(tuple(shape))).astype(np.float32)
    return tensors


def normals(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """float32 normals of ``PCG64(seed)``."""
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32)


def uniforms(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """float32 uniforms of ``PCG64(seed)``."""
    return np.random.Generator(np.random.PCG64(seed)).random(shape).astype(np.float32)
