"""Time of a Pathfinder image, drawn at 300 x 300 and stored at 150 x 150: layout and drawing, on one core.

    python -m tests.benchmarks.pathfinder_speed [--images 200] [--lengths 3 5 7 9]

CPU time is that of the process, over `--images` images once warmed up; the published generator needs about 100 ms of it
an image at length 9.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from htfcli.config.images import PathfinderConfig
from htfcli.engine.vision.datasets.pathfinder_drawing import draw, lay_out, random_of
from tests.benchmarks.timing import interleaved, machine, table


def cpu(function: Callable[[], object]) -> float:
    started = time.process_time()
    function()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--lengths", type=int, nargs="+", default=[3, 5, 7, 9])
    args = parser.parse_args()
    rows = []
    for length in args.lengths:
        config = PathfinderConfig(path_length=length)
        layouts = [lay_out(config, n % 2, random_of(config, "train", n)) for n in range(args.images)]

        def lay_all_out(config: PathfinderConfig = config) -> None:
            for number in range(args.images):
                lay_out(config, number % 2, random_of(config, "train", number))

        def draw_all(config: PathfinderConfig = config, layouts: list = layouts) -> None:
            for layout in layouts:
                draw(config, layout)

        wall = interleaved({"layout": lay_all_out, "drawing": draw_all}, rounds=3)
        parts = {"layout": cpu(lay_all_out), "drawing": cpu(draw_all)}
        dashes = sum(len(layout.cores) for layout in layouts) / args.images
        each = [f"{1e3 * seconds / args.images:.2f}" for seconds in (*parts.values(), sum(parts.values()))]
        rows.append((length, f"{dashes:.0f}", *each, f"{1e3 * sum(wall.values()) / args.images:.2f}"))
    head = ("path length", "dashes", "layout, CPU ms", "drawing, CPU ms", "both, CPU ms", "both, wall ms")
    print(f"{machine()}, one core, {args.images} images each\n\n{table(head, rows)}")


if __name__ == "__main__":
    main()
