"""Builds dualfast._C. Everything else about the package stands in pyproject.toml."""

from __future__ import annotations

import tomllib
from glob import glob

from pybind11.setup_helpers import Pybind11Extension
from setuptools import setup

with open("pyproject.toml", "rb") as file:
    version = tomllib.load(file)["project"]["version"]

setup(
    ext_modules=[
        Pybind11Extension(
            "dualfast._C",
            sorted(glob("csrc/*.cpp")),
            depends=sorted(glob("csrc/*.h")),
            define_macros=[("DUALFAST_VERSION", f'"{version}"')],
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
            ],
            extra_link_args=["-fopenmp"],
        )
    ]
)
