"""Tests of the Python package against coordinators that are scripted here; no process is
started."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "clients/python"))
