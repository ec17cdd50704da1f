"""What pyproject.toml cannot say: the cffi extension, and one stable-ABI wheel for every Python from 3.10 on."""

from setuptools import setup

setup(
    cffi_modules=["native/build_ffi.py:ffi"],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
