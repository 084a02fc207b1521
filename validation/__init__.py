"""Measured figures against predicted ones: `python -m validation SUITE... [--data FOLDER] [--json OUT]`."""
