"""Config files and workdirs to ``ConfigDict``, and back."""

import importlib.util
import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from score_sde.names import ConfigError, frozen, nearest
from score_sde.runtime.files import read_json

SAVED = "config.json"


def load_file(path: str) -> ConfigDict:
    """The config of ``FILE.py`` or ``FILE.py:variant``.

    Raises:
      FileNotFoundError: no such file.
      ConfigError: the file has no ``get_config``, or does not know the variant, or no variant at all.
    """
    name, _, variant = path.partition(":")
    file = Path(name)
    if not file.is_file():
        there = [str(p) for p in sorted(file.parent.glob("*.py"))] if file.parent.is_dir() else []
        raise FileNotFoundError(f"--config={name}: no such file{nearest(name, there)}")
    spec = importlib.util.spec_from_file_location("score_sde_config_file", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--config={name}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"--config={name}: defines no get_config(variant)")
    if inspect.signature(module.get_config).parameters:
        return module.get_config(variant)
    if variant:
        raise ConfigError(f"--config={path}: its get_config() takes no variant")
    return module.get_config()


def vary(config: ConfigDict, variants: Mapping[str, Mapping[str, Any]], variant: str) -> ConfigDict:
    """Apply one entry of a config file's table of variants: ``{"section.field": value}``.

    A mapping as value replaces a whole section, ``{"section": {...}}``, and the name of a member of a table,
    ``{"sampling.solver": "heun"}``, the member with all its options.

    Returns:
      ``config``, changed in place.

    Raises:
      ConfigError: there is no such variant; the message lists them.
    """
    if variant not in variants:
        names = ", ".join(repr(v) for v in variants)
        raise ConfigError(f"variant {variant!r} is not one of: {names}{nearest(variant, variants)}")
    with config.ignore_type():  # an optional field may change from None to a value, a name to a section
        for path, value in variants[variant].items():
            *sections, field = path.removesuffix(".name").split(".")
            node: Any = config
            for section in sections:
                if isinstance(node.get(section, {}), str):  # a member by its name alone
                    node[section] = ConfigDict({"name": node[section]})
                elif section not in node:
                    node[section] = ConfigDict()
                node = node[section]
            node[field] = ConfigDict(dict(value)) if isinstance(value, Mapping) else value
    return config


def save(workdir: Path, config: Mapping[str, Any], **extra: Any) -> None:
    """Write the resolved config, and JSON values that belong to it, into a workdir."""
    workdir.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"config": config, **extra}, indent=2)
    fresh = workdir / (SAVED + ".tmp")
    fresh.write_text(text + "\n", encoding="utf-8")
    os.replace(fresh, workdir / SAVED)


def load_saved(workdir: Path) -> tuple[ConfigDict, dict[str, Any]]:
    """The config of a workdir, and the values saved with it.

    Raises:
      FileNotFoundError: the workdir holds no config.
      ConfigError: its file is torn, or of something else.
    """
    file = Path(workdir) / SAVED
    if not file.is_file():
        raise FileNotFoundError(
            f"--workdir={workdir}: no {SAVED} there; train first, or name a directory that "
            "--mode=train has written"
        )
    try:
        saved = read_json(file)
    except ValueError as error:
        raise ConfigError(f"{error}") from error
    if not isinstance(saved.get("config"), dict):
        raise ConfigError(f"{file}: holds no config; restore it, or start another workdir")
    return ConfigDict(_tuples(saved.pop("config"))), saved


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _tuples(v) for k, v in value.items()}
    return frozen(value)
