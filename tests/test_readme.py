"""What the README shows runs, and what it names exists."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from genmatch.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.mark.slow
def test_the_example_runs_and_is_short(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {}
    exec(example, names)
    assert names["samples"].shape == (1000, 2)
    assert "'exact', 'euler', 'midpoint', 'heun'" in capsys.readouterr().out
    calls = [line for line in example.splitlines() if line and not line.startswith(("import", "#"))]
    assert len(calls) <= 10


def test_the_picture_and_the_commands_exist():
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / picture).exists()
    for command in re.findall(r"\$ genmatch (\w+)", README):
        assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0
    targets = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{target}:", targets, re.MULTILINE), target
