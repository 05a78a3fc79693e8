"""`python -m harness.emulator [flags]`: a stand-in for text-generation-launcher."""

import sys

from harness.emulator.launcher import main

if __name__ == "__main__":
    sys.exit(main())
