"""`sim.data`: finding the bundled folders, and YAML files that do or do not fit their schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sim.data import data_dir, names_in, read_named, read_yaml


@dataclass(kw_only=True, slots=True)
class Inner:
    rate: float


@dataclass(kw_only=True, slots=True)
class Schema:
    name: str
    size: int = 1
    peaks: dict[str, float] = field(default_factory=dict)
    inner: Inner | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size must be >= 1, got {self.size}")


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "case.yaml"
    path.write_text(text)
    return path


def test_scientific_numbers_nested_dataclasses_and_defaults(tmp_path: Path) -> None:
    value = read_yaml(write(tmp_path, "name: a\npeaks: {bf16: 9.89e14}\ninner: {rate: 2}\n"), Schema)
    assert value == Schema(name="a", size=1, peaks={"bf16": 989e12}, inner=Inner(rate=2.0))
    assert type(value.peaks) is dict


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("name: a\nsize: big\n", ["size", "'big'"]),
        ("name: a\nsize: 1.5\n", ["size", "1.5"]),
        ("name: a\npeaks: {bf16: fast}\n", ["peaks.bf16", "'fast'"]),
        ("name: a\ninner: {rate: slow}\n", ["inner.rate", "'slow'"]),
        ("name: a\ncolour: red\n", ["colour"]),
        ("size: 2\n", ["name"]),
        ("", ["name"]),
        ("name: a\nsize: 0\n", ["size must be >= 1", "0"]),
        ("- a\n", ["List"]),
        ("name: [a\n", ["not YAML", "line 2"]),
    ],
)
def test_a_file_that_does_not_fit_names_itself_and_the_key(tmp_path: Path, text: str, named: list[str]) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=r"case\.yaml: ") as caught:
        read_yaml(path, Schema)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert all(part in message for part in named), message


def test_a_missing_file_is_not_a_value_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.yaml"):
        read_yaml(tmp_path / "absent.yaml", Schema)


@pytest.mark.parametrize("name", ["c", "", "../folder/a", "a.yaml"])
def test_an_unknown_name_lists_the_known_ones(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for known in ("b", "a"):
        (folder / f"{known}.yaml").write_text(f"name: {known}\n")
    (folder / "notes.txt").write_text("not a configuration")
    assert names_in(folder) == ["a", "b"]
    assert read_named(folder, "b", Schema, "schema").name == "b"
    with pytest.raises(ValueError, match=r"^schema must be one of a, b, got"):
        read_named(folder, name, Schema, "schema")


def test_bundled_folders_are_found_and_others_are_not() -> None:
    assert (data_dir("hardware_specs") / "gpu").is_dir()
    assert (data_dir("conf") / "cluster").is_dir()
    with pytest.raises(FileNotFoundError, match="no_such_folder"):
        data_dir("no_such_folder")
