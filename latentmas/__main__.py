"""`python -m latentmas`: the command line."""

from __future__ import annotations

from latentmas.cli import main

if __name__ == "__main__":
    main()
