"""Say where a row's CPU time goes: the gateway under load, sampled by py-spy.

    python bench/hotspots.py rest-p200 [--seconds 10] [--native] [--folded FILE]

py-spy is no dependency of the project: `pip install py-spy` anywhere and have it on the PATH. Only
samples in which a thread was on the CPU count. `file` and `self` are time in a file's and in a
function's own lines, `with calls` also in what it called; `--native` adds the frames of C extensions,
without which their time is their caller's, and slows the gateway. FILE gets folded stacks, as flame
graph tools read them.
"""

import argparse
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from gateways import CannotMeasure
from processes import build, cpu_s, upstream
from rows import ROWS, command, port_of, warm_up
from run import gateway_of, run_to_end

RATE_HZ, NATIVE_RATE_HZ = 500, 100
MAIN_SHARE = 0.9  # What is on nearly every stack says nothing.
LINE_NUMBER = re.compile(r":\d+\)$")


def record(pid: int, seconds: float, is_native: bool, folded: Path) -> None:
    py_spy = shutil.which("py-spy")
    if py_spy is None:
        raise CannotMeasure("py-spy is not on the PATH: pip install py-spy")
    words = [py_spy, "record", "--pid", str(pid), "--duration", f"{seconds:.0f}"]
    words += [
        "--rate",
        str(NATIVE_RATE_HZ if is_native else RATE_HZ),
        "--format",
        "raw",
        "--output",
        str(folded),
        "--subprocesses",
    ]
    result = subprocess.run(words + ["--native"] * is_native, capture_output=True, text=True)
    if result.returncode:
        raise CannotMeasure(f"py-spy: {result.stderr.strip()}")


def shares(folded: Iterable[str]) -> tuple[int, dict[str, Counter[str]]]:
    """Samples in all, and by the file and the function on top and by every function on the stack."""
    total, files, own, with_calls = 0, Counter[str](), Counter[str](), Counter[str]()
    for row in folded:
        stack, _, count = row.rpartition(" ")
        frames = [LINE_NUMBER.sub(")", frame) for frame in stack.split(";")]
        total += int(count)
        files[frames[-1].rpartition("(")[2].rstrip(")")] += int(count)
        own[frames[-1]] += int(count)
        for frame in set(frames):
            with_calls[frame] += int(count)
    return total, {"file": files, "self": own, "with calls": with_calls}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("row", choices=[row.name for row in ROWS if row.model != "hold"])
    parser.add_argument("--gateway", default="trunkline")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--top", type=int, default=25, help="lines of each list")
    parser.add_argument("--native", action="store_true")
    parser.add_argument("--folded", type=Path)
    options = parser.parse_args()
    row = next(row for row in ROWS if row.name == options.row)
    build("load")
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        upstream() as (_, upstream_port),
        gateway_of(options.gateway, upstream_port) as (described, pid),
    ):
        folded = options.folded or Path(folder) / "folded"
        warm_up(row, described)
        words = command(
            row, port=port_of(row, described), gateway=described, seconds=options.seconds + 2
        )
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as load:
            time.sleep(1)
            before_s = cpu_s(pid)
            record(pid, options.seconds, options.native, folded)
            busy = (cpu_s(pid) - before_s) / options.seconds
            load.terminate()
        total, counts = shares(folded.read_text().splitlines())
    print(f"{row.name}: {total:,} samples on the CPU, {busy:.2f} cores busy")
    for title, counter in counts.items():
        print(f"\n{title:>10}")
        below_main = {name: n for name, n in counter.items() if n < MAIN_SHARE * total}
        for name, count in Counter(below_main).most_common(options.top):
            print(f"{count / total:>9.1%}  {name}")
    return 0


if __name__ == "__main__":
    run_to_end(main)
