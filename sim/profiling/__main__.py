"""`python -m sim.profiling`."""

import sys

from sim.profiling.command import main

if __name__ == "__main__":
    sys.exit(main())
