"""`python -m pytest_trainguard.static FILE...`: cases 71, 72, 73 and 76 on files, without a run."""

import sys

from pytest_trainguard.static.checker import main

sys.exit(main())
