"""`python -m demo.overbooked [LEVELS ...] [--runs N]`: play the reference example, and count how often it held."""

from __future__ import annotations

import argparse
import os
import sys

import msgspec

from demo.overbooked.scenario import LEVELS, play
from demo.overbooked.world import Failed
from trivet.base.error import TrivetError


def main() -> int:
    """Play the example at each of the levels, `--runs` times; 1 if it once didn't hold."""
    parser = argparse.ArgumentParser(prog="demo.overbooked", description="36 of 32 promised, and nobody hurt.")
    parser.add_argument("levels", nargs="*", choices=[[], *LEVELS], default=list(LEVELS), metavar="LEVELS")
    parser.add_argument("--runs", type=int, default=1, help="how often (1)")
    parser.add_argument(
        "--weight", type=int, default=1, help="times the usual weight, on a machine with other work (1)"
    )
    args = parser.parse_args()
    failed = 0
    for name in args.levels:
        held, seconds = 0, []
        parts = tuple(msgspec.structs.replace(part, weight=part.weight * args.weight) for part in LEVELS[name])
        for run in range(1, args.runs + 1):
            load = os.getloadavg()[0]
            print(f"{name}, run {run} of {args.runs}, at a load of {load:.1f}", flush=True)
            try:
                seconds.append(play(parts, lambda text: print(f"  {text}", flush=True)).seconds)
                held += 1
            except (Failed, TrivetError) as error:
                print(f"  failed: {error}", flush=True)
        slowest = f"; the database waited {max(seconds):.1f} s at most" if seconds else ""
        print(f"{name}: {held} of {args.runs} runs held{slowest}", flush=True)
        failed += args.runs - held
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
