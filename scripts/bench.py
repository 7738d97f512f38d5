"""Speed, measured where it is claimed: medians of interleaved runs, ratios within one run.

    python scripts/bench.py                            # every section
    python scripts/bench.py --only batches --draws 9   # one of them, more patiently
    python scripts/bench.py --threads 1
"""
import argparse
import subprocess
import sys
import time
from statistics import median

import numpy as np
import torch

from wmtp.core import last_true_index
from wmtp.data.sampling import RowTable, plan_epoch
from wmtp.value_weighting.lambda_return import compute_lambda_return


def timed(work):
    "Seconds that a call takes; waits for the accelerator where there is one."
    started = time.perf_counter()
    work()
    if torch.cuda.is_available(): torch.cuda.synchronize()
    return time.perf_counter() - started


def table(title, rows):
    "One section: a heading, and a line per case with its median and its ratio to the first."
    print(f'\n{title}')
    for name, value, unit, ratio in rows: print(f'  {name:<44} {value:>12,.1f} {unit:<12} {ratio:>7.2f}x')


def micro_llama(device):
    "Two Llama layers without a head: enough for its cost to be that of the tokens, padding included."
    from transformers import LlamaConfig, LlamaModel
    config = LlamaConfig(vocab_size=512, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=352,
                         max_position_embeddings=2048)
    return LlamaModel(config).to(device)


def step(model, lengths, device):
    "One forward and backward pass over right-padded rows of these lengths, random ids."
    lengths = torch.tensor(lengths.astype(np.int64))
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    ids = torch.randint(512, mask.shape)
    hidden = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).last_hidden_state
    (hidden.float().square().mean(-1) * mask.to(device)).sum().backward()
    model.zero_grad(set_to_none=True)


def bench_batches(draws, device):
    "Real tokens per second: batches of random rows padded to the longest, against rows grouped by length within a token budget."
    rng, budget = np.random.default_rng(0), 4096
    lengths = np.minimum(rng.lognormal(5.931, .725, 20_000), 2048).astype(np.int32).clip(1)  # mean 490, 95th percentile 1242
    rows = RowTable(np.ones(len(lengths), bool), np.zeros(len(lengths), np.int32), lengths)
    per_batch = budget // int(lengths.mean())
    n_random = len(lengths) // per_batch
    plans = {'padded': np.split(rng.permutation(len(lengths))[:n_random * per_batch], n_random),
             'grouped': plan_epoch(rows, 0, 0, 'uniform', budget)}
    plans = {name: sorted(batches, key=lambda batch: lengths[batch].max()) for name, batches in plans.items()}
    model, speeds = micro_llama(device), {name: [] for name in plans}
    step(model, lengths[plans['padded'][0]], device)
    for _ in range(draws):
        tokens, seconds = dict.fromkeys(plans, 0), dict.fromkeys(plans, 0.)
        for place in (np.arange(3) + rng.random()) / 3:  # batches of three widths, the two plans in turn, so that both see the same weather
            for name, batches in plans.items():
                batch = batches[int(place * len(batches))]
                seconds[name] += timed(lambda: step(model, lengths[batch], device))
                tokens[name] += int(lengths[batch].sum())
        for name in plans: speeds[name].append(tokens[name] / seconds[name])
    padded, grouped = median(speeds['padded']), median(speeds['grouped'])
    table(f'batches: {draws} draws of 3, {per_batch} rows padded or {budget} tokens grouped', [
        ('random rows, padded to the longest', padded, 'tokens/s', 1.),
        ('grouped by length, token budget', grouped, 'tokens/s', grouped / padded)])


def loop_lambda_return(values, rewards, mask, gamma=1., lam=.95):
    "The definition as a loop over rows and tokens."
    out = torch.zeros_like(values)
    for b in range(len(values)):
        at = mask[b].nonzero()[:, 0].tolist()
        if not at: continue
        G = out[b, at[-1]] = rewards[b]
        for t, after in zip(at[-2::-1], at[:0:-1]): G = out[b, t] = gamma * ((1 - lam) * values[b, after] + lam * G)
    return out


def torchrl_lambda_return(values, rewards, mask, gamma=1., lam=.95):
    "torchrl's vectorised lambda-return as a call without arguments, its inputs made beforehand; None where torchrl is not installed."
    try: from torchrl.objectives.value.functional import vec_td_lambda_return_estimate
    except ImportError: return None
    done = torch.zeros_like(mask).scatter_(1, last_true_index(mask)[:, None], True)
    following = torch.where(mask, values, 0).roll(-1, 1)
    reward = torch.where(done, rewards[:, None], 0.)
    following, reward, done = (x[..., None].contiguous() for x in (following, reward, done))
    return lambda: vec_td_lambda_return_estimate(gamma, lam, following, reward, done, done)


def bench_lambda(draws, device):
    "compute_lambda_return at 64 x 2048 against torchrl, the loop and a masked copy (the floor). No holes: torchrl knows none."
    g, position = torch.Generator().manual_seed(0), torch.arange(2048)
    n, start = torch.randint(1024, 2049, (64, 1), generator=g), torch.randint(0, 256, (64, 1), generator=g)
    values, rewards = torch.rand(64, 2048, generator=g).to(device), (torch.rand(64, generator=g) < .5).float().to(device)
    mask = ((position >= start) & (position < n)).to(device)
    cases = {'compute_lambda_return': lambda: compute_lambda_return(values, rewards, mask),
             'one masked copy (floor)': lambda: torch.where(mask, values, 0),
             'torchrl vec_td_lambda_return_estimate': torchrl_lambda_return(values, rewards, mask)}
    loop = lambda: loop_lambda_return(values, rewards, mask)
    error = (cases['compute_lambda_return']() - loop()).abs().max().item()
    seconds = {name: [] for name, work in cases.items() if work}
    for _ in range(3 + 5 * draws):
        for name in seconds: seconds[name].append(timed(cases[name]))
    took = {name: median(s[3:]) for name, s in seconds.items()} | {'loop over rows and tokens': median(timed(loop) for _ in range(draws))}
    ours = took['compute_lambda_return']
    table(f'lambda: 64 x 2048, {int(mask.sum())} choices, largest difference from the loop {error:.0e}; ratios of time', [
        (name, 1000 * s, 'ms', s / ours) for name, s in took.items()])
    if len(seconds) < len(cases):
        print('  torchrl is missing: pip install --no-deps --target DIR torchrl tensordict pyvers; PYTHONPATH=DIR')


def bench_help(draws, device):
    "`wmtp_critic --help` in a fresh process, beside a Python that does nothing (the floor). Help must not wait for torch."
    codes = {'python -c pass (floor)': 'pass',
             'wmtp_critic --help': "import sys; from wmtp.cli import main; sys.exit(main('critic', ['--help']))"}
    start = lambda code: subprocess.run([sys.executable, '-c', code], stdout=subprocess.DEVNULL, check=True)
    seconds = {name: [] for name in codes}
    for _ in range(1 + 2 * draws):
        for name, code in codes.items(): seconds[name].append(timed(lambda: start(code)))
    took = {name: median(s[1:]) for name, s in seconds.items()}
    floor = took['python -c pass (floor)']
    table(f'help: wall time of a process, median of {2 * draws}; goal under 1,000 ms; ratios of time', [
        (name, 1000 * s, 'ms', s / floor) for name, s in took.items()])


SECTIONS = {'batches': bench_batches, 'lambda': bench_lambda, 'help': bench_help}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', nargs='+', choices=SECTIONS, default=list(SECTIONS), help='sections to run')
    parser.add_argument('--draws', type=int, default=5, help='repetitions of which the median is taken')
    parser.add_argument('--threads', type=int, default=2, help='CPU threads of torch')
    parser.add_argument('--device', default='cpu', help='cpu, cuda or mps, where a section allows it')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(f'torch {torch.__version__}, {args.threads} threads, {args.device}')
    for name in args.only: SECTIONS[name](args.draws, args.device)


if __name__ == '__main__': main()
