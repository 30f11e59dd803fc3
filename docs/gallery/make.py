"""Draws the pictures of the gallery that are out of date, at full size: `python docs/gallery/make.py [name ...]`, names to draw in any case."""

import subprocess
import sys
import time

from picture import HERE, digest
from PIL import Image

LARGEST = 60_000


def scripts():
    """The examples by name."""
    return {path.stem: path for path in sorted(HERE.glob("*.py")) if path.stem not in ("make", "picture")}


def about(name):
    """What the picture says of itself, "Source" and "Claims"; nothing where there is none."""
    path = HERE / "pictures" / f"{name}.png"
    if not path.exists():
        return {}
    with Image.open(path) as image:
        return dict(image.info)


def main(names):
    for name, path in scripts().items():
        if name in names or (not names and about(name).get("Source") != digest(path)):
            print(f"== {name}", flush=True)
            start = time.perf_counter()
            subprocess.run([sys.executable, str(path)], check=True)
            picture = HERE / "pictures" / f"{name}.png"
            print(f"   {picture.stat().st_size / 1000:.0f} kB, {time.perf_counter() - start:.0f} s")
            if picture.stat().st_size > LARGEST:
                raise SystemExit(f"{picture} is larger than {LARGEST / 1000:.0f} kB.")


if __name__ == "__main__":
    main(sys.argv[1:])
