"""The page: one file without outside resources, under a strict content security policy."""

from __future__ import annotations

import functools
import secrets
from importlib.resources import files

from markupsafe import Markup

from latentmas.plan import Plan
from latentmas.serve.playground.reading import described
from latentmas.viz import page_environment, to_svg

__all__ = ["make_page"]

_STYLES = ("look.css", "parts.css")
_SCRIPTS = ("dom.js", "stream.js", "graph.js", "form.js", "answers.js", "latents.js", "main.js")
"""Files of the page's script, in order; they share one scope."""


def make_page(plan: Plan) -> tuple[str, dict[str, str]]:
    """The page of a team, and the headers to send with it.

    Style and script carry a nonce of this response, and nothing else may be loaded or run.
    """
    nonce = secrets.token_urlsafe(16)
    text = (
        page_environment("latentmas.serve.playground")
        .get_template("page.html.jinja")
        .render(
            nonce=nonce,
            team=described(plan),
            agents=[agent.name for agent in plan.graph.agents],
            backbones=len(plan.backbones),
            drawing=Markup(to_svg(plan, inline=True, nonce=nonce)),  # it escapes its words
            style=_joined(_STYLES),
            script=_joined(_SCRIPTS),
        )
    )
    return text, _headers(nonce)


def _headers(nonce: str) -> dict[str, str]:
    policy = {
        "default-src": "'none'",
        "script-src": f"'nonce-{nonce}'",
        "style-src": f"'nonce-{nonce}'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


@functools.cache
def _joined(names: tuple[str, ...]) -> Markup:
    """Files of the package as one text; they are ours, and need no escapes."""
    folder = files("latentmas.serve.playground") / "templates"
    return Markup("\n".join((folder / name).read_text(encoding="utf-8") for name in names))
