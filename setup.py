"""Builds dualfast._C. Everything else about the package stands in pyproject.toml."""

from __future__ import annotations

import shlex
import subprocess
import tomllib
from glob import glob

from pybind11.setup_helpers import Pybind11Extension
from setuptools import find_packages, setup

with open("pyproject.toml", "rb") as file:
    version = tomllib.load(file)["project"]["version"]


def found(package: str) -> tuple[list[str], list[str]] | None:
    """Compiler's and linker's flags of a system library, None where its headers are not there."""
    asked = [["pkg-config", kind, package] for kind in ("--cflags", "--libs")]
    try:
        compiler, linker = (subprocess.run(one, capture_output=True, text=True, check=True).stdout for one in asked)
    except (OSError, subprocess.CalledProcessError):
        return None
    return shlex.split(compiler), shlex.split(linker)


jpeg = found("libjpeg")  # without it dualfast.decode leaves JPEGs to Pillow

setup(
    packages=[*find_packages(include=["dualfast*"]), "dualfast.kernels"],
    ext_modules=[
        Pybind11Extension(
            "dualfast._C",
            sorted(glob("csrc/*.cpp")),
            depends=sorted(glob("csrc/*.h")),
            define_macros=[("DUALFAST_VERSION", f'"{version}"'), *([("DUALFAST_JPEG", None)] if jpeg else [])],
            cxx_std=17,
            # No -march: target_clones picks the code at load time. No contraction: every clone gives the same bits.
            extra_compile_args=[
                "-O3",
                "-fopenmp",
                "-fopenmp-simd",
                "-ffp-contract=off",
                "-fno-math-errno",
                "-fno-trapping-math",
                "-fvisibility=hidden",
                "-Wall",
                "-Wextra",
                "-Werror",
                *(jpeg[0] if jpeg else []),
            ],
            extra_link_args=["-fopenmp", *(jpeg[1] if jpeg else [])],
        )
    ],
)
