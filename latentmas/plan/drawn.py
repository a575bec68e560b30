"""Drawings of a plan: methods of `Plan` that forward to `latentmas.viz`, which lies above."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from latentmas.atomic import write_atomically
from latentmas.errors import PlanError

if TYPE_CHECKING:
    from latentmas.plan.plan import Plan

__all__ = ["Drawn"]


class Drawn:
    """Drawings and summaries of a plan."""

    def mermaid(self) -> str:
        """The graph as Mermaid text."""
        from latentmas.viz import to_mermaid

        return to_mermaid(self._plan)

    def svg(self) -> str:
        """The graph as an SVG picture."""
        from latentmas.viz import to_svg

        return to_svg(self._plan)

    def dot(self) -> str:
        """The graph as DOT text, for Graphviz."""
        from latentmas.viz import to_dot

        return to_dot(self._plan)

    def html(self) -> str:
        """The graph as a self-contained HTML page with the drawing and tables."""
        from latentmas.viz import to_html

        return to_html(self._plan)

    def png(self) -> bytes:
        """The graph as a PNG picture.

        Raises:
            LatentMASError: matplotlib (the extra `viz`) is not installed.
        """
        from latentmas.viz import to_png

        return to_png(self._plan)

    def draw(self, path: str | Path) -> Path:
        """Write the drawing to a file, without network access; the suffix selects the format.

        Args:
            path: A file that ends in `.svg`, `.html`, `.png` (needs the extra `viz`), `.mmd`
                (Mermaid) or `.dot` (Graphviz).

        Raises:
            PlanError: The suffix is not one of these.
            LatentMASError: `.png` without matplotlib.
        """
        path = Path(path)
        makers: dict[str, Callable[[], str | bytes]] = {
            ".svg": self.svg,
            ".html": self.html,
            ".png": self.png,
            ".mmd": self.mermaid,
            ".dot": self.dot,
        }
        if path.suffix not in makers:
            *most, last = makers
            allowed = f"{', '.join(most)} or {last}"
            raise PlanError(f"cannot draw {path.name!r}: the suffix must be {allowed}")
        return write_atomically(path, makers[path.suffix]())

    def _repr_svg_(self) -> str:
        return self.svg()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"image/svg+xml": self.svg(), "text/plain": self._plan.summary()}

    @property
    def _plan(self) -> Plan:
        return cast("Plan", self)
