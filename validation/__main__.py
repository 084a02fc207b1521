"""`python -m validation SUITE... [--data FOLDER] [--json OUT]`: recompute figures, print them, say which miss."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

from validation.checks import Check, print_table, write_json
from validation.page import record

SUITES = ("kernels", "paper", "speculation", "vllm", "run_fit", "bands", "queueing", "speed")


def main() -> int:
    """Exit status 1 where a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m validation", description=__doc__)
    parser.add_argument("suites", nargs="+", choices=SUITES, metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--data", type=Path, help="folder of the public tables and traces; else their cases skip")
    parser.add_argument("--json", type=Path, help="also write the checks here")
    parser.add_argument("--record", type=Path, metavar="DOCS", help="also write DOCS/accuracy.json and accuracy.md")
    arguments = parser.parse_args()
    if arguments.data is not None and not arguments.data.is_dir():
        parser.error(f"--data must be a folder, got {arguments.data}")
    checks: list[Check] = []
    for suite in dict.fromkeys(arguments.suites):
        checks += import_module(f"validation.{suite}").checks(arguments.data)
    print_table(checks)
    if arguments.json is not None:
        write_json(checks, arguments.json)
    if arguments.record is not None:
        record(checks, arguments.record)
    return int(any(check.passed is False for check in checks))


if __name__ == "__main__":
    sys.exit(main())
