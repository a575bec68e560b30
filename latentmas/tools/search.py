"""The tool `search`: searches the web with Tavily's client."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any, Protocol

from latentmas.errors import DataError, LatentMASError
from latentmas.tools import Tool, register

__all__ = ["SearchClient", "search", "search_tool"]

KEY = "TAVILY_API_KEY"
_GET_ONE = f"get a key at https://tavily.com and put it into the environment variable {KEY}"
_PLACEHOLDER = re.compile(r"your[_ -]|yourkey|xxxx|placeholder|changeme|example|\.\.\.|[<>{}\s*]")
_SHORTEST_KEY = 16  # characters
_ANY_KEY = re.compile(r"tvly-[\w-]+")
_LONGEST_REASON = 200  # characters
_TIMEOUT = 30  # seconds
_FIELDS = ("title", "url", "snippet")


class SearchClient(Protocol):
    """The part of `tavily.TavilyClient` that is used."""

    def search(self, query: str, *, max_results: int, timeout: float) -> dict[str, Any]:
        """Results under the key `results`, each with `title`, `url` and `content`."""
        ...


@register("search")
def search(query: str) -> str:
    """Search the web and return the best results, each with its title, address and a passage.

    Args:
        query: what to look for, in a few words or as a question.
    """
    return _DEFAULT(query)


def search_tool(
    *,
    max_results: int = 4,
    snippet_chars: int = 320,
    cache_dir: str | Path | None = None,
    client: SearchClient | None = None,
) -> Tool:
    """The tool `search` with custom options.

    Args:
        max_results: Number of results per query, 1 to 20.
        snippet_chars: Number of characters of each result's passage, at least 1.
        cache_dir: Directory that caches results, one JSON file per query and options; a cached
        query needs neither key nor network. None: no cache.
        client: Client used instead of a `tavily.TavilyClient` with the key from `TAVILY_API_KEY`.

    Raises:
        LatentMASError: An option is out of range. The tool itself raises it if the package or
            the key is needed and missing.
    """
    if not 1 <= max_results <= 20:
        raise LatentMASError(f"max_results must be 1 to 20, not {max_results!r}")
    if snippet_chars < 1:
        raise LatentMASError(f"snippet_chars must be at least 1, not {snippet_chars!r}")
    folder = None if cache_dir is None else Path(cache_dir)

    def tool(query: str) -> str:
        if not isinstance(query, str):
            raise DataError(f"the tool 'search' takes the text of a query, not {query!r:.60}")
        query = " ".join(query.split())
        if not query:
            return "[search failed: the query is empty]"
        options = {"query": query, "max_results": max_results, "snippet_chars": snippet_chars}
        path = None if folder is None else folder / f"{_digest(options)}.json"
        results = _cached(path)
        if results is None:
            asked = client or _tavily()
            try:
                answer = asked.search(query, max_results=max_results, timeout=_TIMEOUT)
                results = _results(answer, max_results, snippet_chars)
            except Exception as error:  # the service or the network may raise any exception
                return f"[search failed: {_reason(error, asked)}]"
            _keep(path, {**options, "results": results})
        return _shown(results)

    tool.__name__ = tool.__qualname__ = "search"
    tool.__doc__ = search.__doc__
    return tool


def _tavily() -> SearchClient:
    """Tavily's client with the key from the environment.

    Raises:
        LatentMASError: The key is missing or a placeholder, or the package is missing.
    """
    key = os.environ.get(KEY, "").strip()
    if not key:
        raise LatentMASError(f"the tool 'search' needs a key; {_GET_ONE}")
    if len(key) < _SHORTEST_KEY or _PLACEHOLDER.search(key.lower()):
        raise LatentMASError(f"{KEY} holds a placeholder, not a key; {_GET_ONE}")
    try:
        from tavily import TavilyClient
    except ImportError as error:
        raise LatentMASError(
            "the tool 'search' needs the package tavily-python; "
            "install it with: pip install 'latentmas[search]'"
        ) from error
    made: SearchClient = TavilyClient(api_key=key)
    return made


def _results(answer: Any, max_results: int, snippet_chars: int) -> list[dict[str, str]]:
    """Title, address and passage of each result.

    Raises:
        LatentMASError: The response does not contain a list of results.
    """
    found = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(found, list) or not all(isinstance(result, dict) for result in found):
        raise LatentMASError("the service did not return a list of results")
    return [
        {
            "title": _line(result.get("title"), snippet_chars) or "(no title)",
            "url": _line(result.get("url")),
            "snippet": _line(result.get("content"), snippet_chars),
        }
        for result in found[:max_results]
    ]


def _line(text: object, longest: int | None = None) -> str:
    """Text as one line of printable characters, cut at a word with an ellipsis."""
    shown = "".join(c if c.isprintable() else " " for c in str(text or ""))
    line = " ".join(shown.split())
    if longest is None or len(line) <= longest:
        return line
    return line[:longest].rsplit(" ", 1)[0] + "…"


def _shown(results: list[dict[str, str]]) -> str:
    blocks = [
        f"{number}. {result['title']}\n   {result['url']}\n   {result['snippet']}".rstrip()
        for number, result in enumerate(results, start=1)
    ]
    return "\n".join(blocks) or "[no results]"


def _reason(error: Exception, client: object) -> str:
    """Reason of a failure in one line, without any key."""
    text = _line(f"{type(error).__name__}: {error}".rstrip(": "))
    if isinstance(error, LatentMASError):
        text = _line(error)
    for key in (os.environ.get(KEY, "").strip(), str(getattr(client, "api_key", "") or "")):
        text = text.replace(key, "***") if key else text
    return _line(_ANY_KEY.sub("***", text), _LONGEST_REASON)


def _digest(options: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()


def _cached(path: Path | None) -> list[dict[str, str]] | None:
    """Cached results; None if there are none or the file is damaged."""
    if path is None:
        return None
    try:
        results = json.loads(path.read_text(encoding="utf-8"))["results"]
        return [{name: str(result[name]) for name in _FIELDS} for result in results]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(path: Path | None, content: dict[str, object]) -> None:
    """Write a file atomically."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


_DEFAULT = search_tool()
