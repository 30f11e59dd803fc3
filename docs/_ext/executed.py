"""A directive that runs code while the page is made and shows what it prints, so that tables and reports cannot go stale.

    ```{executed}
    :show:                   shows the code too
    :parse:                  reads the output as Markdown, not as text
    :figure: what it shows   then shows the matplotlib figure that the code calls `figure`
    print(...)
    ```

Code that raises fails the build. A page's directives share their names, and know `torch`, `gm` and `docs`, the
folder of the documentation.
"""

import base64
import contextlib
import html
import io

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
        with contextlib.redirect_stdout(printed):
            known = self.env.temp_data.setdefault("executed", {"torch": torch, "gm": gm, "docs": self.env.srcdir})
            exec(code, known)
        shown = [_literal(code, "python")] if "show" in self.options else []
        picture = [_picture(known["figure"], self.options["figure"])] if "figure" in self.options else []
        if "parse" in self.options:
            return shown + self.parse_text_to_nodes(printed.getvalue()) + picture
        output = printed.getvalue().rstrip()
        return shown + picture + ([nodes.container("", _literal(output, "text"), classes=["executed-output"])] if output else [])


def _literal(text, language):
    block = nodes.literal_block(text, text)
    block["language"] = language
    return block


def _picture(figure, description):
    """A matplotlib figure as part of the page: nothing is written beside it."""
    data = io.BytesIO()
    figure.savefig(data, format="svg", bbox_inches="tight", transparent=False)
    encoded = base64.b64encode(data.getvalue()).decode()
    text = html.escape(description, quote=True)
    return nodes.raw("", f'<img class="made" alt="{text}" src="data:image/svg+xml;base64,{encoded}">', format="html")


def setup(app):
    app.add_directive("executed", Executed)
    return {"parallel_read_safe": True}
