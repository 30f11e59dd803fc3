"""`prepare`: data that do not fit in memory."""

from __future__ import annotations

from pathlib import Path

import click

from genmatch.cli.group import main
from genmatch.errors import GenmatchError


@main.command(
    short_help="Prepare large data: text files, or a folder of images.",
    examples=[
        "genmatch prepare books/*.txt --tokeniser bytes --length 128 --out runs/books",
        "genmatch prepare photos --size 32 --out runs/photos",
        "genmatch prepare --verify --out runs/books",
    ],
)
@click.argument("source", required=False, nargs=-1, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("prepared"), show_default=True, help="Folder of the prepared data.")
@click.option("--tokeniser", default="characters", show_default=True, help="Of text: characters, bytes, bpe, or a JSON file of the package tokenizers.")
@click.option("--length", type=int, default=64, show_default=True, help="Of text: tokens of a window.")
@click.option("--size", type=int, default=32, show_default=True, help="Of images: pixels of a side.")
@click.option("--grey", is_flag=True, help="Of images: leave out the colours.")
@click.option("--verify", is_flag=True, help="Only check, by hash, what was prepared in --out.")
def prepare(source: tuple[Path, ...], out: Path, tokeniser: str, length: int, size: int, grey: bool, verify: bool) -> None:
    """Prepare data that do not fit in memory: text files, or a folder of images, SOURCE.

    What is prepared is the data set `prepared:FOLDER` of the other commands; it stays on the disk and is read a batch at a time.
    """
    from genmatch.data import mapped, preparing

    if verify:
        found = mapped.verify(out)
        click.echo(f"whole    {out}: {found['rows']} {'tokens' if found['kind'] == 'text' else 'images'}, {found['bytes'] / 2**20:.1f} MiB")
        return
    if not source:
        raise GenmatchError("`prepare` needs text files, or a folder of images; or --verify to check what was prepared.")
    if source[0].is_dir() and len(source) == 1:
        found = preparing.prepare_images(source[0], out, size=size, grey=grey)
    else:
        found = preparing.prepare_text(source, out, tokeniser=tokeniser, length=length)
    what = f"{found['rows']} images" if found["kind"] == "images" else f"{found['rows']} tokens of {found['levels']} kinds"
    click.echo(f"{what}, {found['bytes'] / 2**20:.1f} MiB: train on them with `--data prepared:{out}`")
