"""The Python package installs as its users install it, and is typed."""

import pathlib
import shutil
import subprocess
import sys

from cluster import ROOT


def test_pip_install(tmp_path):
    # A copy, since setuptools leaves build folders beside the sources.
    source = shutil.copytree(ROOT / "clients/python", tmp_path / "source",
                             ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    target = tmp_path / "target"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index",
                    "--no-build-isolation", "--target", target, source], check=True, timeout=300)
    assert (target / "tessera/py.typed").exists()
    code = "import tessera, pathlib; print(tessera.Client, pathlib.Path(tessera.__file__).parent)"
    out = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(target)}, check=True,
                         capture_output=True, timeout=60)
    assert str(target) in out.stdout.decode()
    assert pathlib.Path(target).joinpath("tessera").is_dir()
