"""Grade answers by asking a language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from latentmas.errors import DataError, LatentMASError
from latentmas.evaluation.graders import Grade, Grader, Row, graders
from latentmas.evaluation.grading.judging.endpoint import Endpoint
from latentmas.evaluation.grading.judging.log import ReplyLog, digest_of
from latentmas.evaluation.grading.judging.prompt import VERSION, messages, verdict
from latentmas.evaluation.grading.texts.gold import accepted
from latentmas.evaluation.grading.texts.thoughts import after_thoughts

__all__ = ["Judge"]

_LONGEST = 20_000
"""Characters of a candidate that the judge is shown: the last ones."""
_ASKED = 2
"""How often the judge is asked for a reply with a verdict."""


@graders.register("judge")
class Judge(Grader):
    """Whether a language model, asked at temperature 0, calls the answer correct.

    The model is behind an OpenAI-compatible endpoint. Its key is read from the environment variable
    `LATENTMAS_JUDGE_KEY`, or else `OPENAI_API_KEY`, and from nowhere else. The same request is made
    once. Report the model, the version of the prompt (`Judge.prompt_version`) and a grader without
    a model, such as `em`, beside its score.
    """

    prompt_version = VERSION

    def __init__(
        self,
        *,
        model: str = "",
        base_url: str = "https://api.openai.com/v1",
        log: str | Path | None = None,
        question_field: str = "question",
        max_tokens: int = 512,
        timeout: float = 60.0,
        retries: int = 5,
        retry_seconds: float = 1.0,
    ) -> None:
        """Make a judge; no request is made.

        Args:
            model: name of the model at the endpoint.
            base_url: URL of the endpoint, up to and including `/v1`.
            log: JSONL file of prompts and replies. Requests in it are not made again.
            question_field: field of a row that holds the question.
            max_tokens: maximum number of tokens of a reply.
            timeout: seconds per request.
            retries: number of further attempts after a transient failure (HTTP 429 and 5xx, time
                limit, no connection).
            retry_seconds: seconds before the first retry, doubled before each further one; the
                endpoint may ask for more.

        Raises:
            LatentMASError: the key or the model is missing, or an option is out of range.
            WriteError: the log cannot be written.
        """
        for name, value, low in (
            ("max_tokens", max_tokens, 1),
            ("retries", retries, 0),
            ("timeout", timeout, 0.001),
            ("retry_seconds", retry_seconds, 0),
        ):
            if not low <= value < float("inf"):
                raise LatentMASError(f"{name} must be at least {low} and finite, not {value!r}")
        self._endpoint = Endpoint(
            model, base_url, timeout=timeout, retries=retries, retry_seconds=retry_seconds
        )
        self._log = ReplyLog(None if log is None else Path(log))
        self._max_tokens, self._question = max_tokens, question_field
        self.needs = (question_field,)

    def grade(self, text: str, gold: Any, row: Row) -> Grade:
        """Ask the judge about a text.

        Raises:
            DataError: the row lacks the question.
            LatentMASError: the endpoint refuses the request, or fails in every attempt.
        """
        problem = self.gold_problem(gold, row)
        if problem is not None:
            raise DataError(f"the judge cannot grade this row: {problem}")
        candidate = after_thoughts(text).strip()[-_LONGEST:]
        if not candidate:
            return Grade(False, None, "no answer found")
        asked = messages(str(row[self._question]), accepted(gold), candidate)
        right = self._ask(asked)
        answer = " ".join(candidate.split())
        if right is None:
            return Grade(False, answer, "the judge gave no verdict")
        return Grade(right, answer, "judged correct" if right else "judged incorrect")

    def gold_problem(self, gold: Any, row: Row) -> str | None:
        """Why the judge cannot be asked about this row."""
        if row.get(self._question) in (None, ""):
            return f"the row lacks the field {self._question!r}, which holds the question"
        if not any(one.strip() for one in accepted(gold)):
            return "the correct answer is empty"
        return None

    def _ask(self, asked: list[dict[str, str]]) -> bool | None:
        """The judge's verdict, from the log if it was given before."""
        url, model = self._endpoint.base_url, self._endpoint.model
        digest = digest_of([url, model, VERSION, self._max_tokens, asked])
        known = self._log.get(digest)
        if known is not None:
            return verdict(known)
        found: bool | None = None
        for _ in range(_ASKED):
            reply, attempts = self._endpoint.ask(asked, max_tokens=self._max_tokens)
            found = verdict(reply)
            facts: dict[str, Any] = {"model": model, "base_url": url, "prompt_version": VERSION}
            facts |= {"messages": asked, "reply": reply, "attempts": attempts}
            told = {True: "C", False: "I", None: None}[found]
            self._log.add(digest, {**facts, "grade": told}, keep=found is not None)
            if found is not None:
                break
        return found
