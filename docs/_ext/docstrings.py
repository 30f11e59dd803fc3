"""Reads the package's docstrings, which are written as plain text, as reStructuredText.

Formulas in dollars become mathematics, indented blocks become literal ones, and characters that are markup elsewhere
(`*`, `|`) stand for themselves.
"""

import re

SECTION = re.compile(r"\s*(Args|Attributes|Example|Examples|Note|Raises|Returns|Yields)(: .*|:)$")
VERBATIM = re.compile(r"(``.*?``|`[^`]*`|\$[^$]+\$)")


def _inline(line):
    parts = VERBATIM.split(line)
    parts[::2] = [re.sub(r"([*|])", r"\\\1", part) for part in parts[::2]]
    parts[1::2] = [f":math:`{part[1:-1]}`" if part.startswith("$") else part for part in parts[1::2]]
    return "".join(parts)


def _indent(line):
    return len(line) - len(line.lstrip())


def convert(lines):
    """The lines of a docstring as reStructuredText."""
    done, literal, section, doctest = [], None, None, False
    text = "\n".join(lines)
    lines = re.sub(r"\$([^$]+)\$", lambda found: "$" + " ".join(found[1].split()) + "$", text).split("\n")
    for line in lines:
        blank, after_blank = not line.strip(), not done or not done[-1].strip()
        if blank:
            doctest = False
        elif SECTION.match(line):
            section, literal = _indent(line), None
            title, _, rest = line.partition(": ")
            done += [f"{title}:", f"{' ' * (section + 4)}{_inline(rest)}", ""] if rest else [line]
            continue
        elif section is not None and _indent(line) <= section:
            section = None
        if not blank and literal is not None and _indent(line) < literal:
            literal = None
        if not blank and literal is None and section is None and after_blank and _indent(line) >= 4:
            literal = _indent(line)
            done += ["::", ""]
        doctest = doctest or line.lstrip().startswith(">>>")
        done.append(line if blank or literal is not None or doctest else _inline(line))
    return done


COLON = "\N{RATIO}"
"""Stands in for a colon while napoleon reads the first line of a property, which it would split into a type and a text."""


def _process(app, what, name, obj, options, lines):
    lines[:] = convert(lines)
    if what in ("attribute", "data", "property") and lines:
        lines[0] = lines[0].replace(":", COLON)


def _restore(app, what, name, obj, options, lines):
    lines[:] = [line.replace(COLON, ":") for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", _process, priority=400)
    app.connect("autodoc-process-docstring", _restore, priority=600)
    return {"parallel_read_safe": True}
