"""Makes a page of each script in gallery/: its docstring, its picture, what it claims, its code; and a grid of thumbnails.

    ```{gallery}
    flow
    diffusion
    ```

A script's docstring is Markdown, its first line the title. The picture and the claims are those that the script wrote, see
gallery/picture.py; a script without a picture fails the build.
"""

import ast
from pathlib import Path

from docutils import nodes
from PIL import Image
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective


def page(source, name, claims):
    """The Markdown of a script's page."""
    tree = ast.parse(source)
    title, _, text = ast.get_docstring(tree).partition("\n")
    code = "\n".join(source.splitlines()[tree.body[0].end_lineno :]).strip()
    return "\n".join(
        [
            f"# {title}",
            text,
            f"\n![{title}](pictures/{name}.png)\n",
            f"What it measured when this picture was drawn, with the bounds that end the script if they do not hold:\n\n```text\n{claims}\n```\n",
            f"`python docs/gallery/{name}.py`, or with `--quick` in a few seconds:\n\n```python\n{code}\n```",
        ]
    )


def claims_of(folder, name):
    """What the script printed when it drew its picture."""
    path = Path(folder) / "pictures" / f"{name}.png"
    if not path.exists():
        raise ExtensionError(f"the gallery has no picture of {name}: run `make gallery`.")
    with Image.open(path) as image:
        return image.info["Claims"]


class Gallery(SphinxDirective):
    """Thumbnails of scripts, each a link to its page."""

    has_content = True

    def run(self):
        grid = nodes.container(classes=["gallery"])
        for name in self.content:
            path = Path(self.env.doc2path(self.env.docname)).with_name(f"{name}.py")
            self.env.note_dependency(str(path))
            title = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).partition("\n")[0]
            grid += nodes.container("", *self.parse_text_to_nodes(f"[![{title}](pictures/{name}.png)]({name}.py)\n\n[{title}]({name}.py)"))
        return [grid]


def _read(app, docname, source):
    path = Path(app.env.doc2path(docname))
    if path.suffix == ".py":
        source[0] = page(source[0], path.stem, claims_of(path.parent, path.stem))


def setup(app):
    app.add_source_suffix(".py", "markdown")
    app.add_directive("gallery", Gallery)
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}
