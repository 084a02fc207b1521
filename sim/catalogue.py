"""A model by catalogue name or from a Hugging Face `config.json`."""

from __future__ import annotations

from pathlib import Path

from sim.huggingface import model_from_config
from sim.model import Model, known_models, read_model


def load_model(name: str, field: str) -> Model:
    """The catalogued model `name`, or the one that the file `name` (it ends in .json) describes.

    Raises:
        ValueError: unknown, malformed or not derivable; the message opens with `field`.
    """
    if name.endswith(".json"):
        if not Path(name).is_file():
            raise ValueError(
                f"{field} must be a catalogue name or the path of a config.json, got {name!r}: no such file"
            )
        return model_from_config(Path(name))
    if name not in known_models():
        raise ValueError(
            f"{field} must be one of {', '.join(known_models())}, or the path of a config.json, got {name!r}"
        )
    return read_model(name)
