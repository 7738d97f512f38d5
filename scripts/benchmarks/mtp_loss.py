"""Weighted cross-entropy of 4 heads beside the plain form, torch's linear_cross_entropy and the floor.

The floor is the time of its own matrix products. Goals, vocabulary 32,000: at least 1.3 times faster than the
better of the two others; at most 1.5 times the floor with a frozen unembedding, 2 times with a trained one;
at dim 256, seq 2048 a peak under 130 MiB above what is there at entry. A CPU without bfloat16 instructions
multiplies bfloat16 far slower than float32; there all variants and the floor get float32 copies.
"""
import ctypes
import gc
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from measure import median, table, timed

from wmtp.losses.chunked_ce import matmul_dtype
from wmtp.losses.head_terms import head_targets, naive_mtp_ce_loss
from wmtp.losses.mtp_loss import compute_mtp_ce_loss
from wmtp.value_weighting.advantage import align_weights

SHAPES = [  # dtype, dim, seq, unembedding frozen, heads, vocabulary
    ('float32', 256, 512, False, 4, 32_000), ('float32', 256, 2048, True, 4, 32_000),
    ('float32', 1024, 512, False, 4, 32_000),
    ('bfloat16', 256, 512, False, 4, 32_000), ('bfloat16', 1024, 512, True, 4, 32_000),
    ('bfloat16', 1024, 512, False, 4, 32_000),
    ('float32', 384, 700, False, 3, 50_257), ('float32', 192, 1024, False, 4, 800)]


def inputs(dtype, dim, seq, frozen, n_future, vocab, device='cpu'):
    "Latents, unembedding, labels, weights; all at random, every position labelled."
    torch.manual_seed(0)
    hidden, weight = torch.randn(1, seq, n_future, dim), torch.randn(vocab, dim) * dim**-.5
    hidden, weight = (x.to(device, getattr(torch, dtype)) for x in (hidden, weight))
    labels, weights = torch.randint(vocab, (1, seq)).to(device), torch.rand(1, seq).to(device) * 4.9 + .1
    return hidden.requires_grad_(), weight.requires_grad_(not frozen), labels, weights


def ours(hidden, weight, labels, weights):
    "The package's loss."
    return compute_mtp_ce_loss(hidden, weight, labels, weights)[0].sum()


def naive(hidden, weight, labels, weights):
    "All logits at once, in the faster dtype."
    fast = matmul_dtype(hidden, weight)
    return naive_mtp_ce_loss(hidden.to(fast), weight.to(fast), labels, weights).sum()


def torch_chunked(hidden, weight, labels, weights):
    "torch's chunked operator, well tuned: 512 rows, compact accumulation; a loss per row, not weighted."
    fast, n_future = matmul_dtype(hidden, weight), hidden.shape[2]
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=512, acc_policy='compact')
    each = F.linear_cross_entropy(hidden.flatten(0, 2).to(fast), weight.to(fast),
                                  head_targets(labels, n_future).flatten(),
                                  reduction='none', options=options)
    return (each.float() * align_weights(weights, n_future).flatten()).sum()


def step(loss, args):
    "Forward and backward pass."
    args[0].grad = args[1].grad = None
    loss(*args).backward()


def floor(args, rows=1024):
    "The products that any such loss must make, in reused buffers, as a call without arguments."
    hidden, weight = args[0].detach(), args[1].detach().to(matmul_dtype(*args[:2]))
    chunk, trained = hidden.flatten(0, 2)[:rows].to(weight.dtype), args[1].requires_grad
    logits, grad, grad_weight = chunk @ weight.T, torch.empty_like(chunk), torch.empty_like(weight)
    n_chunks = hidden[..., 0].numel() / len(chunk)

    def work():
        for i in range(int(n_chunks + .999)):
            part = slice(0, round(len(chunk) * min(1, n_chunks - i)))
            torch.mm(chunk[part], weight.T, out=logits[part])
            torch.mm(logits[part], weight, out=grad[part])
            if trained: torch.mm(logits[part].T, chunk[part], out=grad_weight)
    return work


def peak(variant, dtype):
    "MiB above entry of one step at dim 256, seq 2048, as Linux measures it; run in a process of its own."
    args, loss = inputs(dtype, 256, 2048, False, 4, 32_000), {'ours': ours, 'naive': naive}[variant]
    step(loss, inputs(dtype, 256, 8, False, 4, 32_000))  # libraries make their own buffers
    gc.collect()
    ctypes.CDLL('libc.so.6').malloc_trim(0)
    lines = lambda: Path('/proc/self/status').read_text(encoding='utf-8').splitlines()
    status = lambda key: next(int(line.split()[1]) / 1024 for line in lines() if line.startswith(key))
    with open('/proc/self/clear_refs', 'wb') as f: f.write(b'5')
    before = status('VmRSS')
    step(loss, args)
    return status('VmHWM') - before


def peak_in_child(variant, dtype):
    "`peak` in a fresh process."
    code = 'import sys; sys.path.insert(0, sys.argv[1]); import mtp_loss; print(mtp_loss.peak(*sys.argv[2:]))'
    command = [sys.executable, '-c', code, str(Path(__file__).parent), variant, dtype]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def run(draws, device):
    "Seconds of a step for each shape, the variants in turn; then peak memory, each in a fresh process."
    for shape in SHAPES:
        args = inputs(*shape, device)
        cases = {'floor: its matrix products': floor(args)}
        cases |= {loss.__name__: partial(step, loss, args) for loss in (ours, naive, torch_chunked)}
        seconds = {name: [] for name in cases}
        for _ in range(1 + max(2, draws // 2)):
            for name, work in cases.items(): seconds[name].append(timed(work))
        medians = {name: median(s[1:]) for name, s in seconds.items()}
        dtype, dim, seq, frozen, n_future, vocab = shape
        base, state = medians['floor: its matrix products'], 'frozen' if frozen else 'trained'
        table(f'mtp_loss: {dtype}, dim {dim}, seq {seq}, {n_future} heads, vocabulary {vocab}, '
              f'unembedding {state}; ratios of time to the floor',
              [(name, 1000 * s, 'ms', s / base) for name, s in medians.items()])
        faster = min(medians['naive'], medians['torch_chunked']) / medians['ours']
        print(f'  {faster:.2f} times faster than the better of the others')
    if not sys.platform.startswith('linux') or device != 'cpu': return
    for dtype in ('float32', 'bfloat16'):
        peaks = {name: peak_in_child(name, dtype) for name in ('ours', 'naive')}
        table(f'mtp_loss: peak above entry, {dtype}, dim 256, seq 2048, trained; goal under 130 MiB',
              [(name, mebibytes, 'MiB', mebibytes / peaks['ours']) for name, mebibytes in peaks.items()])
