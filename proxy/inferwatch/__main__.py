"""`python -m inferwatch`."""

import sys

from inferwatch.cli import main

if __name__ == "__main__":
    sys.exit(main())
