"""One seed again, with its story: python -m tests.simulation SEED"""

import sys

from tests.simulation.story import Simulation, folder


def main() -> int:
    with folder() as base:
        outcome = Simulation(base).run(int(sys.argv[1]))
    print("\n".join(outcome.story))
    print(f"calls: {outcome.calls}; deaths: {outcome.deaths}, of hostd: {outcome.hostd}")
    print("\n".join(f"BROKEN: {text}" for text in outcome.faults) or "all promises kept")
    return 1 if outcome.faults else 0


if __name__ == "__main__":
    sys.exit(main())
