"""A directive that runs code while the page is made and shows what it prints, so that tables and reports cannot go stale.

    ```{executed}
    :show:                   shows the code too
    :parse:                  reads the output as Markdown, not as text
    :figure: what it shows   shows the matplotlib figure that the code leaves in the name `figure`, with these words for those who do not see it
    print(...)
    ```

Code that raises fails the build. A page's directives share their names, and know `torch`, `gm` and `docs`, the
folder of the documentation.
"""

import base64
import contextlib
import io

import matplotlib
import torch
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

import genmatch as gm


class Executed(SphinxDirective):
    """Shows the output of its content."""

    has_content = True
    option_spec = {"show": directives.flag, "parse": directives.flag, "figure": directives.unchanged_required}  # noqa: RUF012 (the type that docutils declares)

    def run(self):
        code, printed = "\n".join(self.content), io.StringIO()
        names = self.env.temp_data.setdefault("executed", {"torch": torch, "gm": gm, "docs": self.env.srcdir})
        with contextlib.redirect_stdout(printed):
            exec(code, names)
        shown = [_literal(code, "python")] if "show" in self.options else []
        if "figure" in self.options:
            shown.append(_picture(names.pop("figure"), self.options["figure"]))
        if "parse" in self.options:
            return shown + self.parse_text_to_nodes(printed.getvalue())
        output = printed.getvalue().rstrip()
        return shown + ([nodes.container("", _literal(output, "text"), classes=["executed-output"])] if output else [])


def _picture(figure, words):
    image = nodes.image(uri=_data_uri(figure), alt=words)
    width, height = figure.get_size_inches()
    return nodes.container("", image, classes=["wide-figure"]) if width > 2.5 * height else image


def _data_uri(figure):
    """The figure as SVG within the page, with nothing in it that differs from build to build."""
    written = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "genmatch"}):
        figure.savefig(written, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(written.getvalue()).decode()


def _literal(text, language):
    block = nodes.literal_block(text, text)
    block["language"] = language
    return block


def setup(app):
    app.add_directive("executed", Executed)
    return {"parallel_read_safe": True}
