"""Readers of other people's kernel timings; each yields a `checks.Trace`.

A reader is a module with `read_file` (one file) and `read_files` (many); `aiconfigurator` calls a file a table.
"""
