"""``python -m trainers.queue``."""

import sys

from trainers.queue.cli import main

if __name__ == "__main__":
    sys.exit(main())
