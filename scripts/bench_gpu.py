"""What one GPU makes of 7B, in minutes: random weights made on it, no file read, no weight written down.

    python scripts/bench_gpu.py --minutes 9 --out bench.jsonl           # a GPU with 80 GB or more
    python scripts/bench_gpu.py --tiny --minutes 2 --out tiny.jsonl     # every part at a toy size, on a CPU

Parts come in order of worth, so that a cut loses the least; each is tried by itself, and what it finds is a
line of --out at once: {"part", "what", ...}, or {"part", "error"} or {"part", "skipped"}.

No GPU has run it yet. Predicted for an H200 by the roofline (70 % of 989 TFLOP/s, 85 % of 4.8 TB/s), in
tokens a second of a policy step of 7B with LoRA: 8,900 checkpointed with PEFT's casts, about 12,500 as
configured, at 41 GiB; the loss 3 to 4 % of a step; critic and reference 0.11 s for 8,192 tokens each; all
weights trained 119 GiB; decoding launch-bound, 8 to 10 ms a token whatever the batch, and drafts no gain
before 1.1 tokens a pass (32 blocks instead of 29).
"""
import argparse
import gc
import json
import sys
import time
import traceback
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent/'benchmarks'))
import gpu_kernels  # noqa: E402
import gpu_training  # noqa: E402
from gpu_measure import Bench  # noqa: E402

PARTS = {**gpu_training.FIRST, **gpu_kernels.PARTS, **gpu_training.LAST}


def describe(device):
    "The machine that the numbers are of."
    if device.type != 'cuda': return {'device': device.type}
    properties = torch.cuda.get_device_properties(device)
    return {'device': properties.name, 'memory_gib': round(properties.total_memory / 2**30, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--minutes', type=float, default=9., help='no part begins after this')
    parser.add_argument('--out', type=Path, required=True, help='a file of JSON lines, added to')
    parser.add_argument('--tiny', action='store_true', help='toy sizes, on a CPU')
    parser.add_argument('--only', nargs='+', choices=PARTS, default=[*PARTS], help='parts to run')
    args = parser.parse_args()
    warnings.filterwarnings('ignore', message='`is_gradient_checkpointing`') # transformers asks peft
    device = torch.device('cpu' if args.tiny else 'cuda')
    if device.type == 'cuda' and not torch.cuda.is_available():
        parser.error('there is no GPU; --tiny runs every part on a CPU')
    bench, began, failed = Bench(device, args.tiny), time.monotonic(), 0

    def record(part, what='', **numbers):
        row = {'part': part, 'what': what, 'at_s': round(time.monotonic() - began, 1), **numbers}
        print(json.dumps(row), flush=True)
        with args.out.open('a', encoding='utf-8') as file: file.write(json.dumps(row) + '\n')

    record('machine', torch.__version__, **describe(device))
    for name in args.only:
        if time.monotonic() - began > 60 * args.minutes:
            record(name, skipped=f'the {args.minutes:g} minutes are over')
            continue
        try:
            for what, numbers in PARTS[name](bench): record(name, what, **numbers)
        except Exception as e:  # noqa: BLE001  the next part may work
            failed += 1
            record(name, error=repr(e), trace=traceback.format_exc()[-2000:])
        gc.collect()
        if device.type == 'cuda': torch.cuda.empty_cache()
    sys.exit(1 if failed else 0)


if __name__ == '__main__': main()
