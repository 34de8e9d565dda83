"""A stranger's files, damaged at random: each is taken or refused in one line, at little cost, and harms nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_no_damaged_file_does_harm(tmp_path: Path):
    """See `fuzz.py`, which runs more of them and other ones; TLKIT_FUZZ_SEED chooses others here."""
    command = [sys.executable, Path(__file__).with_name("fuzz.py"), tmp_path / "fuzz", "--seconds", "90"]
    command += ["--count", "2000", "--seed", os.environ.get("TLKIT_FUZZ_SEED", "0")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all " in done.stdout
