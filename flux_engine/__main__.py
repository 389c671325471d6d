"""`python -m flux_engine`: see cli/."""

import sys
from importlib import import_module

COMMANDS = {  # those that need nothing of the worker, whose import takes seconds
    "capabilities": "flux_engine.cli.capabilities",
    "estimate": "flux_engine.cli.estimate",
    "gateway": "flux_engine.cli.gateway",
    "keys": "flux_engine.cli.keys",
}

if __name__ == "__main__":
    name, *rest = sys.argv[1:] or [""]
    if name in COMMANDS:
        sys.exit(import_module(COMMANDS[name]).main(rest))
    from flux_engine.cli.generate import main

    sys.exit(main(sys.argv[1:]))
