"""A directive that runs code while the page is made and shows what it prints, so that tables and reports cannot go stale.

    ```{executed}
    :show:                   shows the code too
    :parse:                  reads the output as Markdown, not as text
    print(...)
    ```

Code that raises fails the build. A page's directives share their names, and know `torch`, `gm` and `docs`, the
folder of the documentation.
"""

import contextlib
import io

import torch
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util.docutils import SphinxDirective

import genmatch as gm


class Executed(SphinxDirective):
    """Shows the output of its content."""

    has_content = True
    option_spec = {"show": directives.flag, "parse": directives.flag}  # noqa: RUF012 (the type that docutils declares)

    def run(self):
        code, printed = "\n".join(self.content), io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, self.env.temp_data.setdefault("executed", {"torch": torch, "gm": gm, "docs": self.env.srcdir}))
        shown = [_literal(code, "python")] if "show" in self.options else []
        if "parse" in self.options:
            return shown + self.parse_text_to_nodes(printed.getvalue())
        output = printed.getvalue().rstrip()
        return shown + ([nodes.container("", _literal(output, "text"), classes=["executed-output"])] if output else [])


def _literal(text, language):
    block = nodes.literal_block(text, text)
    block["language"] = language
    return block


def setup(app):
    app.add_directive("executed", Executed)
    return {"parallel_read_safe": True}
