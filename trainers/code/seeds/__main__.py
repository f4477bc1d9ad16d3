"""``python -m trainers.code.seeds``."""

import sys

from trainers.code.seeds.series import main

if __name__ == "__main__":
    sys.exit(main())
