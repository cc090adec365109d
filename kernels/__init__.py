"""Triton kernels. Installed as dualfast.kernels and imported only by dualfast.ops."""
