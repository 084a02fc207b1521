"""An Experiment as flat text: what a reader compares, and what tells two runs apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass


def settings(value: object, path: str = "") -> dict[str, str]:
    """Every field of a tree of dataclasses, path -> text; a dataclass itself appears as its class name."""
    if is_dataclass(value):
        named = {path: type(value).__name__} if path else {}
        for field in fields(value):
            named |= settings(getattr(value, field.name), f"{path}.{field.name}".lstrip("."))
        return named
    if isinstance(value, dict) and value:
        return _each({f"{path}.{key}": item for key, item in value.items()})
    if isinstance(value, list | tuple) and any(is_dataclass(item) for item in value):
        return _each({f"{path}[{i}]": item for i, item in enumerate(value)})
    return {path: "none" if value is None else repr(value) if value == "" else str(value)}


def distinguish(runs: Sequence[dict[str, str]], most: int = 3) -> list[str]:
    """What sets each run's settings apart from the others', as text; their numbers where nothing does."""
    keys = sorted({key for run in runs for key in run})
    differing = [key for key in keys if len({run.get(key) for run in runs}) > 1][:most]
    if not differing:
        return [f"run {number}" for number in range(1, len(runs) + 1)]
    return [", ".join(f"{key}={run[key]}" for key in differing if key in run) for run in runs]


def _each(items: dict[str, object]) -> dict[str, str]:
    return {key: text for path, item in items.items() for key, text in settings(item, path).items()}
