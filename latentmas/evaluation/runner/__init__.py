"""Evaluates rows one system after another; finished rows are kept, whatever happens after."""

from latentmas.evaluation.runner.job import Job, Recipe, Rows, even_batches
from latentmas.evaluation.runner.records import (
    Answer,
    RowRecord,
    key_of_row,
    name_samples,
    seed_of_row,
)
from latentmas.evaluation.runner.relay import Lap
from latentmas.evaluation.runner.results import Results
from latentmas.evaluation.runner.run import Runner
from latentmas.evaluation.runner.shared import check_shard, shared_results
from latentmas.evaluation.runner.store import RowStore, read_records
from latentmas.evaluation.runner.work import CHUNK, Work, as_one_run

__all__ = [
    "Answer",
    "CHUNK",
    "Job",
    "Lap",
    "Recipe",
    "Results",
    "RowRecord",
    "RowStore",
    "Rows",
    "Runner",
    "Work",
    "as_one_run",
    "check_shard",
    "even_batches",
    "key_of_row",
    "name_samples",
    "read_records",
    "seed_of_row",
    "shared_results",
]
