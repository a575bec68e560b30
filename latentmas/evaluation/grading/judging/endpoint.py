"""Ask a model behind an OpenAI-compatible endpoint, with retries."""

from __future__ import annotations

import email.utils
import os
import random
import time
from typing import Any
from urllib.parse import urlsplit

from latentmas.errors import LatentMASError
from latentmas.redact import hide, redact

__all__ = ["Endpoint"]

_KEYS = ("LATENTMAS_JUDGE_KEY", "OPENAI_API_KEY")
"""Environment variables that may hold the key, the first before the second."""
_TRANSIENT = {408, 409, 425, 429, 500, 502, 503, 504, 529}
"""HTTP status codes after which the same request may succeed."""
_LONGEST_WAIT = 60.0
_LONGEST_REASON = 300


class Endpoint:
    """A model behind an OpenAI-compatible endpoint. May be used from several threads."""

    def __init__(
        self, model: str, base_url: str, *, timeout: float, retries: int, retry_seconds: float
    ) -> None:
        """Check that the endpoint can be asked; no request is made.

        Args:
            model: name of the model at the endpoint.
            base_url: URL of the endpoint, up to and including `/v1`.
            timeout: seconds per request.
            retries: number of further attempts after a transient failure.
            retry_seconds: seconds before the first retry, doubled before each further one.

        Raises:
            LatentMASError: the key or the model is missing, the URL is malformed, or the Hub's
                client is offline.
        """
        self.model, self.base_url = model, base_url
        self._retries, self._retry_seconds = retries, retry_seconds
        key = next((os.environ[n].strip() for n in _KEYS if os.environ.get(n, "").strip()), "")
        if not model:
            raise LatentMASError("the grader 'judge' needs a model; name it with model='…'")
        if not key:
            raise LatentMASError(
                f"the grader 'judge' needs a key; put it into the environment variable {_KEYS[0]} "
                f"or {_KEYS[1]} (any text, if the endpoint takes no key)"
            )
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.netloc:
            raise LatentMASError(f"base_url must be an http or https URL, not {base_url!r}")
        hide(key)
        from huggingface_hub import InferenceClient, constants

        if constants.is_offline_mode():
            raise LatentMASError(
                "the grader 'judge' makes requests, but HF_HUB_OFFLINE is set; unset it"
            )
        self._client = InferenceClient(base_url=base_url, api_key=key, timeout=timeout)

    def ask(self, messages: list[dict[str, str]], *, max_tokens: int) -> tuple[str, int]:
        """Reply of the model at temperature 0, and the number of attempts.

        Raises:
            LatentMASError: the endpoint refuses the request, or fails in every attempt.
        """
        for attempt in range(1, self._retries + 2):
            try:
                found = self._client.chat_completion(
                    messages, model=self.model, temperature=0.0, seed=0, max_tokens=max_tokens
                )
                return _content(found), attempt
            except Exception as error:  # of the client, the network, or the shape of the reply
                if attempt > self._retries or not _is_transient(error):
                    raise self._failed(error, attempt) from None  # a cause may hold the key
                time.sleep(self._wait(error, attempt))
        raise AssertionError("unreachable")

    def _wait(self, error: Exception, attempt: int) -> float:
        """Seconds before the next attempt: as the endpoint asks for, or more with each attempt."""
        asked = _retry_after(error)
        own = self._retry_seconds * 2 ** (attempt - 1) * random.uniform(1.0, 1.25)
        return min(_LONGEST_WAIT, max(own, asked))

    def _failed(self, error: Exception, attempts: int) -> LatentMASError:
        status = _status(error)
        reason = " ".join(redact(f"{type(error).__name__}: {error}").split())[:_LONGEST_REASON]
        fix = {
            401: f"; check the key in {_KEYS[0]} or {_KEYS[1]}",
            403: f"; check what the key in {_KEYS[0]} or {_KEYS[1]} may use",
            404: "; check base_url and model",
        }.get(status or 0, "")
        tries = f"{attempts} attempt{'s' * (attempts > 1)}"
        return LatentMASError(
            f"judge {self.model!r} at {self.base_url} failed after {tries}: {reason}{fix}"
        )


def _content(found: Any) -> str:
    """Text of the first choice.

    Raises:
        ValueError: the reply does not have the form of a chat completion.
    """
    try:
        text = found.choices[0].message.content
    except (AttributeError, IndexError, KeyError, TypeError):
        text = None
    if not isinstance(text, str):
        raise ValueError("the reply is not a chat completion with a text")
    return text


def _status(error: Exception) -> int | None:
    """HTTP status code of an error; None without a response."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _is_transient(error: Exception) -> bool:
    status = _status(error)
    return status is None or status in _TRANSIENT


def _retry_after(error: Exception) -> float:
    """Seconds that the response asks to wait; 0 if it does not say."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    told = str(headers.get("retry-after", ""))
    try:
        return max(0.0, float(told))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(told).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0
