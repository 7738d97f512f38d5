"""The GPU's benchmark at a toy size on a CPU, so that it works when there is a GPU at last."""
import contextlib
import io
import json
import sys

from commands import ROOT, WARM


def bench(out):
    "In a process of its own."
    sys.path.insert(0, str(ROOT/'scripts'))
    import bench_gpu
    sys.argv = ['bench_gpu.py', '--tiny', '--minutes', '9', '--out', str(out)]
    with contextlib.redirect_stdout(io.StringIO()): bench_gpu.main()


def test_every_part_runs_at_a_toy_size(tmp_path):
    out = tmp_path/'bench.jsonl'
    process = WARM.Process(target=bench, args=(out,))
    process.start()
    process.join()
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert process.exitcode == 0, [row for row in rows if 'error' in row]
    # Liger is no dependency
    assert not [row for row in rows if 'error' in row or 'skipped' in row and row['what'] != 'Liger']
    assert [*dict.fromkeys(row['part'] for row in rows)] == [
        'machine', 'smoke', 'step, as configured', 'step, checkpointed', 'step, with casts', 'step, compiled',
        'critic', 'rho1', 'loss', 'decoding', 'attention', 'all weights', 'shares']
    errors = {row['what']: row['gradient_error'] for row in rows if row['part'] == 'loss' and 'ms' in row}
    assert max(errors.values()) < .02 # bfloat16
    beside = next(row for row in rows if row['part'] == 'attention' and 'ms' not in row)
    assert beside['largest_difference'] < 1e-5
    smoke = {row['what']: row for row in rows if row['part'] == 'smoke'}
    assert smoke['losses']['baseline, resumed'] == smoke['losses']['baseline']
    gradients = smoke['gradients of LoRA in float32']
    assert gradients['norm'] > 0 and gradients['gradient_error'] < 1e-5
    saved = next(row for row in rows if row['what'] == 'saved while training goes on')
    assert saved['waits_s'] <= saved['s']
