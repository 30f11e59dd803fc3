"""The spelling of the package, of the documentation and of what stands beside them. Tests misspell names on purpose and are left out."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("codespell_lib", reason="codespell is not installed: pip install -e .[dev]")

ROOT = Path(__file__).parent.parent
READ = ("genmatch", "docs", "benchmarks", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "pyproject.toml")


def spell(*places):
    command = [sys.executable, "-m", "codespell_lib", "--skip=*.json,*.gz,*.txt,*.png,*.safetensors,_build", *map(str, places)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_nothing_is_misspelled():
    found = spell(*(ROOT / place for place in READ))
    assert found.returncode == 0, found.stdout


def test_a_misspelling_is_found(tmp_path):
    (tmp_path / "page.md").write_text("A recieved wisdom.\n")
    assert spell(tmp_path).returncode != 0
