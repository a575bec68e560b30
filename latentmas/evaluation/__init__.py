"""Evaluate teams: benchmarks, graders, scores with intervals, comparisons and timing."""

from latentmas.evaluation.benchmarks import Benchmark, benchmarks
from latentmas.evaluation.controls import CONTROLS
from latentmas.evaluation.difference import Difference, paired_difference
from latentmas.evaluation.engines import Engine, engines, open_engine
from latentmas.evaluation.engines.local import LocalEngine
from latentmas.evaluation.engines.ray import RayEngine
from latentmas.evaluation.engines.torchrun import TorchrunEngine
from latentmas.evaluation.evaluate import Shard, evaluate
from latentmas.evaluation.graders import Grade, Grader, graders, open_grader
from latentmas.evaluation.inputs import fill_inputs
from latentmas.evaluation.intervals import mean_interval, tango, wilson
from latentmas.evaluation.loading import Samples, load_benchmark
from latentmas.evaluation.match import accuracy, exact_match
from latentmas.evaluation.merge import merge_results, read_evaluation
from latentmas.evaluation.runner import RowRecord, Work, as_one_run, read_records
from latentmas.evaluation.sampling import majority_at, pass_at
from latentmas.evaluation.scoring import Evaluation
from latentmas.evaluation.tables import escape_latex, latex_table, markdown_table, write_table
from latentmas.evaluation.timing import Timing, time_executors

__all__ = [
    "accuracy",
    "as_one_run",
    "Benchmark",
    "benchmarks",
    "CONTROLS",
    "Difference",
    "Engine",
    "engines",
    "escape_latex",
    "evaluate",
    "Evaluation",
    "exact_match",
    "fill_inputs",
    "Grade",
    "Grader",
    "graders",
    "latex_table",
    "load_benchmark",
    "LocalEngine",
    "majority_at",
    "markdown_table",
    "mean_interval",
    "merge_results",
    "open_engine",
    "open_grader",
    "paired_difference",
    "pass_at",
    "RayEngine",
    "read_evaluation",
    "read_records",
    "RowRecord",
    "Samples",
    "Shard",
    "tango",
    "time_executors",
    "Timing",
    "TorchrunEngine",
    "wilson",
    "Work",
    "write_table",
]
