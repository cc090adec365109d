"""A pytest plugin: dualfast._C is the module that SANITIZED_C names, built with sanitizers, in this process."""

import importlib.util
import os
import sys

import torch  # noqa: F401  before _C, as everywhere

spec = importlib.util.spec_from_file_location("dualfast._C", os.environ["SANITIZED_C"])
assert spec is not None
assert spec.loader is not None
sys.modules["dualfast._C"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["dualfast._C"])
