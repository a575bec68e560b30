"""What graders share: texts, formulas, programs, and a language model as a judge."""
