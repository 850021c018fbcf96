"""One seed again, with its story: python -m tests.simulation SEED"""

import sys
import tempfile
from pathlib import Path

from tests.simulation.story import Simulation


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="partvisor-simulation-") as folder:
        outcome = Simulation(Path(folder) / "base").run(int(sys.argv[1]))
    print("\n".join(outcome.story))
    print(f"calls: {outcome.calls}; deaths: {outcome.deaths}, of hostd: {outcome.hostd}")
    print("\n".join(f"BROKEN: {text}" for text in outcome.faults) or "all promises kept")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
