"""Each script of the gallery runs at small size, draws, and keeps what it claims; the pictures that are shown are those of the scripts as they are."""

import importlib
import re
import runpy
import sys
from pathlib import Path

import make
import picture
import pytest
from PIL import Image

GALLERY = Path(make.__file__).parent
CLAIM = re.compile(r"^(?P<what>.+): (?P<value>\S+), (?P<word>below|above) (?P<bound>\S+)$", re.MULTILINE)
SLOW = {"distributed", "flow", "hugging_face", "image_and_label", "own_solver"}
"""Those that take more than three seconds of one processor."""
NEEDS = {"hugging_face": ("transformers", "BertForMaskedLM")}
"""What must load, as a torchvision of another torch keeps it from doing."""
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in make.scripts()]


def run(monkeypatch, script, *words):
    """Runs a script in this process, which has imported torch already."""
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, words)])
    runpy.run_path(str(script), run_name="__main__")


def broken(claims):
    """The claims of a text that do not hold, and how many there are in all."""
    found = list(CLAIM.finditer(claims))
    wrong = [m[0] for m in found if not (float(m["value"]) < float(m["bound"]) if m["word"] == "below" else float(m["value"]) > float(m["bound"]))]
    return wrong, len(found)


def test_there_are_at_least_fifteen():
    assert len(NAMES) >= 15


@pytest.mark.parametrize("name", NAMES)
def test_a_script_draws_and_keeps_what_it_claims(name, monkeypatch, tmp_path, capsys):
    if name in NEEDS:
        package, needed = NEEDS[name]
        try:
            getattr(importlib.import_module(package), needed)
        except ImportError as error:
            pytest.skip(f"{package} is not there, or cannot load {needed} ({error}): pip install -e .[hf]")
    run(monkeypatch, GALLERY / f"{name}.py", tmp_path / "picture.png", "--quick")
    with Image.open(tmp_path / "picture.png") as image:
        assert min(image.size) > 200
        assert len(image.getcolors(256)) > 8, "something is drawn"
    wrong, count = broken(capsys.readouterr().out)
    assert count >= 1
    assert not wrong


@pytest.mark.parametrize("name", make.scripts())
def test_the_picture_that_is_shown_is_that_of_the_script(name):
    about = make.about(name)
    assert about["Source"] == picture.digest(GALLERY / f"{name}.py"), "run `make gallery`"
    assert (GALLERY / "pictures" / f"{name}.png").stat().st_size < make.LARGEST
    wrong, count = broken(about["Claims"])
    assert count >= 1
    assert not wrong


def test_every_script_is_on_the_index_twice():
    """In a grid, and in the table of contents."""
    words = (GALLERY / "index.md").read_text().split()
    assert {name: words.count(name) for name in make.scripts()} == dict.fromkeys(make.scripts(), 2)


def test_all_pictures_are_less_than_a_megabyte():
    assert sum(path.stat().st_size for path in (GALLERY / "pictures").iterdir()) < 1_000_000


def test_a_claim_that_does_not_hold_ends_the_script_without_a_picture(monkeypatch, tmp_path, capsys):
    script = tmp_path / "wrong.py"
    script.write_text('"""A mistake."""\nfrom picture import claim, panels, save\nclaim("an error", 2.0, below=1.0)\nsave(panels(1)[0])\n')
    with pytest.raises(SystemExit, match="an error: 2, below 1"):
        run(monkeypatch, script, tmp_path / "picture.png")
    assert not (tmp_path / "picture.png").exists()
    assert broken(capsys.readouterr().out) == (["an error: 2, below 1"], 1)


def test_a_figure_that_is_not_a_number_keeps_no_claim():
    for word in ("below", "above"):
        with pytest.raises(SystemExit):
            picture.claim("not a number", float("nan"), **{word: 0.0})


def test_a_picture_of_other_code_is_out_of_date(tmp_path):
    one, same, other = (tmp_path / f"{name}.py" for name in ("one", "same", "other"))
    one.write_text('"""One."""\nx = 1\n')
    same.write_text('"""Other words."""\nx = 1\n')
    other.write_text('"""One."""\nx = 2\n')
    assert picture.digest(one) == picture.digest(same) != picture.digest(other)
