"""Pages for people: the report of a run, the findings of a check, comparisons, the model card."""
