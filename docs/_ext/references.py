"""References to public names where they are used, `genmatch.Flow`, lead to where they are defined, `genmatch.processes.Flow`."""

import genmatch


def _home(app, env, node, contnode):
    """The node of a reference to a name of `import genmatch as gm`, which is described in its own module; None for any other."""
    package, _, name = node.get("reftarget", "").partition(".")
    home = genmatch._HOMES.get(name) if package == "genmatch" and node.get("refdomain") == "py" else None
    if home is None:
        return None
    return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, node["reftype"], f"genmatch.{home}.{name}", node, contnode)


def setup(app):
    app.connect("missing-reference", _home)
    return {"parallel_read_safe": True}
