"""Tool calls and reasoning in answers: one incremental parser, a format per family."""
