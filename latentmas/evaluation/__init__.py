"""Evaluate teams: benchmarks, graders, scores with intervals, comparisons and timing."""

from latentmas.evaluation.benchmarks import Benchmark, benchmarks
from latentmas.evaluation.benchmarks._inputs import fill_inputs
from latentmas.evaluation.benchmarks._load import Samples, load_benchmark
from latentmas.evaluation.difference import Difference, paired_difference
from latentmas.evaluation.extract import extract_answer
from latentmas.evaluation.graders import Grade, Grader, graders, open_grader
from latentmas.evaluation.intervals import tango, wilson
from latentmas.evaluation.match import accuracy, exact_match
from latentmas.evaluation.scoring import Evaluation, evaluate, pass_at
from latentmas.evaluation.timing import Timing, time_executors

__all__ = [
    "accuracy",
    "Benchmark",
    "benchmarks",
    "Difference",
    "evaluate",
    "Evaluation",
    "exact_match",
    "extract_answer",
    "fill_inputs",
    "Grade",
    "Grader",
    "graders",
    "load_benchmark",
    "open_grader",
    "paired_difference",
    "pass_at",
    "Samples",
    "tango",
    "Timing",
    "time_executors",
    "wilson",
]
