"""`python -m flux_engine`: see cli/."""

import sys

from flux_engine.cli.generate import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
