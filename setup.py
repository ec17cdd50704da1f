"""What pyproject.toml cannot say: the cffi extension, and one stable-ABI wheel for every Python from 3.10 on.

A free-threaded Python has no stable ABI before 3.15: there the wheel is for the one version that builds it.
"""

import sys
import sysconfig
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).resolve().parent))  # build front ends leave it out
from native.compilers import BuildCore

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

setup(
    cffi_modules=["native/build_ffi.py:ffi"],
    cmdclass={"build_ext": BuildCore},
    options={} if FREE_THREADED else {"bdist_wheel": {"py_limited_api": "cp310"}},
)
