"""Pages of HTML over runs and trainings, from plain data. No torch."""

from latentmas.report.depths import DepthMap
from latentmas.report.run import report_run
from latentmas.report.training import training_report

__all__ = ["DepthMap", "report_run", "training_report"]
