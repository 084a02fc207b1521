"""Checks of command-line overrides before Hydra sees them, and one line for what it finds wrong with them."""

from __future__ import annotations

from collections.abc import Sequence

from sim.data import data_dir, names_in

_OPTIONAL = {"speculation": "draft_model", "failures": "off", "disaggregation": "off"}
"""Groups that can be off -> what `conf/config.yaml` chooses."""


def refuse_without_effect(overrides: Sequence[str]) -> None:
    """Refuse a group that is set to nothing, and fields of a group that is off, of which Hydra would trip.

    Raises:
        ValueError: there is one; the message names the options.
    """
    if any("--config" in override for override in overrides):
        return
    chosen = dict(_OPTIONAL)
    for override in overrides:
        group, equals, option = override.partition("=")
        folder = data_dir("conf") / group
        if not equals or not group or "." in group or not folder.is_dir():
            continue
        known = names_in(folder)
        if option in {"", "null"} and known:
            raise ValueError(f"{group} must be one of {', '.join(known)}, got {option or 'nothing'}")
        if group in chosen:
            chosen[group] = option
    for group in (group for group, option in chosen.items() if option == "off"):
        for field in (
            override for override in overrides if override.lstrip("+").startswith((f"{group}.", f"{group}/"))
        ):
            known = [name for name in names_in(data_dir("conf") / group) if name != "off"]
            raise ValueError(f"{field} has no effect with {group}=off; choose {group}= one of {', '.join(known)}")


def told(error: BaseException) -> str:
    """What Hydra found wrong, in one line: its message and its cause's, without what only its authors read."""
    texts = [str(part) for part in (error, error.__cause__) if part is not None]
    lines = [line.strip() for text in texts for line in text.partition("Config search path")[0].splitlines()]
    unknown_field = any(line.startswith("Key ") and " not in '" in line for line in lines)
    dropped = ("full_key:", "reference_type=", "object_type=", "See https:")
    kept = [
        line.removeprefix("In 'config': ")
        for line in lines
        if line and not line.startswith(dropped) and not line.endswith("_schema")
        if not (unknown_field and line.startswith("To append"))
    ]
    return " ".join(dict.fromkeys(kept)) + ("; moesd-sim --cfg job lists every field" if unknown_field else "")
