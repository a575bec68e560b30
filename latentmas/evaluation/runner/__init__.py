"""Evaluates rows one system after another; finished rows are kept, whatever happens after."""

from latentmas.evaluation.runner.records import (
    Answer,
    RowRecord,
    key_of_row,
    name_samples,
    seed_of_row,
)
from latentmas.evaluation.runner.results import Results
from latentmas.evaluation.runner.run import Job, Rows, Runner, even_batches
from latentmas.evaluation.runner.shared import check_shard, open_results
from latentmas.evaluation.runner.store import RowStore, read_records

__all__ = [
    "Answer",
    "Job",
    "Results",
    "RowRecord",
    "RowStore",
    "Rows",
    "Runner",
    "check_shard",
    "even_batches",
    "key_of_row",
    "name_samples",
    "open_results",
    "read_records",
    "seed_of_row",
]
