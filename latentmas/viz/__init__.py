"""Drawings of plans, and HTML pages over plans, runs and trainings, from plain data. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.lazy import imported_when_used

if TYPE_CHECKING:
    from latentmas.viz.analysis_page import AnalysisSection, Curves, report_analysis
    from latentmas.viz.depths import DepthMap
    from latentmas.viz.drawing.markup import to_dot, to_mermaid
    from latentmas.viz.drawing.png import to_png
    from latentmas.viz.drawing.svg import to_svg
    from latentmas.viz.evaluation_page import AnsweredRow, SystemAnswer, report_evaluation
    from latentmas.viz.pages import Table, page_environment, to_html
    from latentmas.viz.paper_page import PaperClaim, PaperSection, report_paper
    from latentmas.viz.plots import HeatMap, LinePlot, Measured
    from latentmas.viz.run_page import report_run
    from latentmas.viz.study_page import StudyCell, report_study
    from latentmas.viz.summary import summarise
    from latentmas.viz.training_page import training_report

__all__ = [
    "AnalysisSection",
    "AnsweredRow",
    "Curves",
    "DepthMap",
    "HeatMap",
    "LinePlot",
    "Measured",
    "PaperClaim",
    "PaperSection",
    "StudyCell",
    "SystemAnswer",
    "Table",
    "page_environment",
    "report_analysis",
    "report_evaluation",
    "report_paper",
    "report_run",
    "report_study",
    "summarise",
    "to_dot",
    "to_html",
    "to_mermaid",
    "to_png",
    "to_svg",
    "training_report",
]

_HOMES = {
    "AnalysisSection": "analysis_page",
    "AnsweredRow": "evaluation_page",
    "Curves": "analysis_page",
    "DepthMap": "depths",
    "HeatMap": "plots",
    "LinePlot": "plots",
    "Measured": "plots",
    "PaperClaim": "paper_page",
    "PaperSection": "paper_page",
    "StudyCell": "study_page",
    "SystemAnswer": "evaluation_page",
    "Table": "pages",
    "page_environment": "pages",
    "report_analysis": "analysis_page",
    "report_evaluation": "evaluation_page",
    "report_paper": "paper_page",
    "report_run": "run_page",
    "report_study": "study_page",
    "summarise": "summary",
    "to_dot": "drawing.markup",
    "to_html": "pages",
    "to_mermaid": "drawing.markup",
    "to_png": "drawing.png",
    "to_svg": "drawing.svg",
    "training_report": "training_page",
}

__getattr__ = imported_when_used(__name__, _HOMES)
