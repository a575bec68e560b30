"""Answers in texts: boxed results, words, reasoning left out."""
