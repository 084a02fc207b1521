"""Readers of other people's kernel timings; each yields a `checks.Trace`."""
