"""Finds the bundled data folders and turns YAML files into checked dataclasses.

`conf/` and `hardware_specs/` lie beside `sim/` in a checkout and inside it (`sim/_data/`) in a wheel.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_PACKAGE = Path(__file__).resolve().parent


def data_dir(name: str) -> Path:
    """Absolute path of `conf` or `hardware_specs`.

    Raises:
        FileNotFoundError: the installation holds no such folder.
    """
    for parent in (_PACKAGE / "_data", _PACKAGE.parent):
        if (parent / name).is_dir():
            return parent / name
    raise FileNotFoundError(f"data folder {name!r} is missing beside or inside {_PACKAGE}; reinstall moesd-sim")


def names_in(folder: Path) -> list[str]:
    """Names of the YAML files directly inside `folder`, sorted, without their ending."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def read_yaml(path: Path, schema: type[T]) -> T:
    """The file at `path` as an instance of the dataclass `schema`.

    Read through OmegaConf, so that `80.0e9` is a number and an unknown key or a wrong type is an error; the range
    checks of the dataclass's `__post_init__` run as well.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the content does not fit the schema; the message names the file and the key.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        merged = OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.load(path))
        value = OmegaConf.to_object(merged)
    except YAMLError as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        key = getattr(error, "full_key", None)
        raise ValueError(f"{path}: {f'{key}: ' if key else ''}{str(error).splitlines()[0]}") from error
    assert isinstance(value, schema)
    return value


def read_named(folder: Path, name: str, schema: type[T], field: str) -> T:
    """Like `read_yaml` for `folder/name.yaml`; an unknown name is a ValueError that lists the known ones.

    `field` is the configuration field the name came from; it opens the message.
    """
    known = names_in(folder)
    if name not in known:
        raise ValueError(f"{field} must be one of {', '.join(known)}, got {name!r}")
    return read_yaml(folder / f"{name}.yaml", schema)
