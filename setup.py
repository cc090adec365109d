"""Builds dualfast._C. Everything else about the package is in pyproject.toml."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tomllib
from glob import glob

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import find_packages, setup

with open("pyproject.toml", "rb") as file:
    version = tomllib.load(file)["project"]["version"]


def build_flags(package: str) -> tuple[list[str], list[str]] | None:
    """The compiler and linker flags of a system library, None if its headers are not installed."""
    commands = [["pkg-config", flags, package] for flags in ("--cflags", "--libs")]
    try:
        compile_flags, link_flags = (
            subprocess.run(command, capture_output=True, text=True, check=True).stdout for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return shlex.split(compile_flags), shlex.split(link_flags)


ParallelCompile().install()  # a file per core at a time
HARDENED = ["-fstack-protector-strong", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=3"]
# GCC 11 warns that it has level 2 only; clang knows neither GCC's pragmas nor some of the loops to vectorize.
QUIET = ["-Wno-cpp", "-Wno-unknown-pragmas", "-Wno-pass-failed"]
RELRO = ["-Wl,-z,relro", "-Wl,-z,now"] if sys.platform.startswith("linux") else []
jpeg = build_flags("libjpeg")  # without it dualfast.loading.decode decodes JPEGs with Pillow

setup(
    packages=[*find_packages(include=["dualfast*"]), "dualfast.kernels"],
    ext_modules=[
        Pybind11Extension(
            "dualfast._C",
            sorted(glob("csrc/*.cpp")),
            depends=sorted(glob("csrc/*.h")),
            define_macros=[("DUALFAST_VERSION", f'"{version}"'), *([("DUALFAST_JPEG", None)] if jpeg else [])],
            cxx_std=17,
            # No -march: csrc/levels.h picks the instruction set at run time. No contraction: all give the same bits.
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
                *QUIET,
                *HARDENED,
                *(jpeg[0] if jpeg else []),
            ],
            extra_link_args=["-fopenmp", *RELRO, *(jpeg[1] if jpeg else [])],
        )
    ],
)
