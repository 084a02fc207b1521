"""Studies: one configuration varied along named axes over batch sizes, in one table with its figures."""
