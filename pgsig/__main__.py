"""`python -m pgsig`: the command line."""

from pgsig.cli import main

if __name__ == "__main__":
    main()
