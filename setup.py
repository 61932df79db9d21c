"""The packages are those of harness/, and conf/ as harness.conf: pyproject.toml cannot say the second of found ones."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["harness", "harness.*"]), "harness.conf"])
