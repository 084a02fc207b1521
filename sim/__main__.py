"""`python -m sim` is the command `moesd-sim`."""

from sim.cli import main

if __name__ == "__main__":
    main()
