"""What pyproject.toml cannot say: the cffi extension, and one stable-ABI wheel for every Python from 3.10 on."""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).resolve().parent))  # build front ends leave it out
from native.compilers import BuildCore

setup(
    cffi_modules=["native/build_ffi.py:ffi"],
    cmdclass={"build_ext": BuildCore},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
