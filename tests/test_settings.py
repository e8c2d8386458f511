"""lab.toml: what is written is read; what is wrong is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from devops_lab.errors import BadInput, NotALab
from devops_lab.platform import settings
from devops_lab.platform.settings import Settings


def test_written_settings_are_read_back(tmp_path: Path) -> None:
    wanted = Settings(pace="class", learner='Zoë "Z" \\ Ünal', replicas=3)
    settings.write(tmp_path, wanted)
    assert settings.read(tmp_path) == wanted


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [("engine", "dokcer", "Did you mean 'docker'"), ("pace", "warp", "quick, class")],
)
def test_unknown_choices_name_the_right_ones(name: str, value: str, hint: str) -> None:
    with pytest.raises(BadInput) as caught:
        Settings(**{name: value})  # type: ignore[arg-type]
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("format = 99\n", "newer version"),
        ("format = \n", "does not parse"),
        ('format = 1\ncolour = "red"\n', "unknown settings: colour"),
        ('format = 1\nreplicas = "many"\n', "lab.toml"),
    ],
)
def test_bad_files_are_refused_with_the_reason(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "lab.toml").write_text(text)
    with pytest.raises((NotALab, BadInput), match=words):
        settings.read(tmp_path)


def test_a_directory_without_marker_is_no_lab(tmp_path: Path) -> None:
    with pytest.raises(NotALab, match="not a lab"):
        settings.read(tmp_path)
