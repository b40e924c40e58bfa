"""The check of built images finds files that an image must not contain."""

from __future__ import annotations

from pathlib import Path

import pytest

from image_check.contents import build_tools, megabytes, unused_folders

_PACKAGES = "opt/marquee/lib/python3.11/site-packages"


@pytest.mark.parametrize(
    "path",
    [
        "usr/local/bin/pip3.11",
        "usr/bin/gcc-12",
        "usr/share/python-wheels/pip-23.0.1-py3-none-any.whl",
        f"{_PACKAGES}/setuptools/__init__.py",
        f"{_PACKAGES}/wheel-0.48.0.dist-info/METADATA",
        f"{_PACKAGES}/clang/native/libclang.so",
    ],
)
def test_packaging_tools_and_compilers_are_found(tmp_path: Path, path: str) -> None:
    """Programs and packages are found in all folders where images have them."""
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text("")
    assert list(build_tools(tmp_path))


@pytest.mark.parametrize("path", ["tensorflow/include/Eigen", "numpy/linalg/tests/test.py"])
def test_unused_folders_are_found(tmp_path: Path, path: str) -> None:
    """Headers and tests of installed packages are found."""
    (tmp_path / _PACKAGES / path).parent.mkdir(parents=True)
    (tmp_path / _PACKAGES / path).write_text("")
    assert list(unused_folders(tmp_path))


def test_other_files_are_not_reported(tmp_path: Path) -> None:
    """Modules, folders and programs with similar names are not reported."""
    for path in (f"{_PACKAGES}/keras/wheel/make.py", f"{_PACKAGES}/pipeline.py", "bin/mkdir"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("12345")
    assert list(build_tools(tmp_path)) == list(unused_folders(tmp_path)) == []
    assert megabytes(tmp_path) == 15e-6
