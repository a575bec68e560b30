"""Reasons why a declared backbone cannot be served, known without its weights."""

from __future__ import annotations

from latentmas.errors import WeightsError

__all__ = ["RefusedBackboneError", "UnsuitableBackboneError"]


class UnsuitableBackboneError(WeightsError):
    """The model exists but is not a decoder with a hidden size and a vocabulary."""


class RefusedBackboneError(WeightsError):
    """The declaration asks for what cannot be done. The compiler reports it under its own code."""

    def __init__(self, code: str, message: str, hint: str, file_hint: str = "") -> None:
        """Keep the parts; as an error of loading, the text is `CODE message; fix`."""
        super().__init__(f"{code} {message}; {hint}")
        self.code, self.message, self.hint, self.file_hint = code, message, hint, file_hint
