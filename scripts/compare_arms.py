"""Train every arm of the experiment from several seeds on the embedded data and collect what came of it for nbs/92_compare_arms.ipynb.

    python scripts/make_micro_models.py --only reference && wmtp_critic
    python scripts/compare_arms.py --jobs 2                  # all arms, seeds 0 1 2: about half an hour on two CPU cores
    python scripts/compare_arms.py --seeds 0 --arms baseline td --set training.max_steps=40

Each run is the local configuration of its command, 200 steps long, with the settings below; a finished run is not made again. Runs lie in
storage/checkpoints/compare/<arm>-<seed>/; the table goes to nbs/results/compare_arms.json.
"""
import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from wmtp.config import project_root

LENGTH = ['training.max_steps=200', 'training.eval_every_steps=200', 'checkpoint.save_every_steps=200']  # shorter than the local default: 18 runs
TARGET = ['weighting.target_ess=0.6', 'weighting.max_weight=5', 'weighting.normalize=mean_one']
ARMS = {  # arm -> (run, configuration, what differs from it)
    'baseline': ('baseline', None, []),
    'outcome told': ('baseline', 'reward_conditioned_local', []),
    'td': ('verifiable', None, []),
    'td, ess .6': ('verifiable', None, TARGET),
    'shuffled, ess .6': ('verifiable', None, [*TARGET, 'weighting.control=shuffled']),
    'rho1': ('rho1', None, []),
}


def train(arm, seed, settings, home):
    "One run as a process of its own, unless it has finished before; its folder."
    run, config, own = ARMS[arm]
    folder = home/f"{arm.replace(',', '').replace(' ', '_')}-{seed}"
    if not (folder/'summary.json').exists():
        code = f'import sys; from wmtp.cli import {run}; sys.exit({run}())'
        command = [sys.executable, '-c', code, *(['--config', config] if config else []), '--resume', 'auto', '--set', *LENGTH, *own, *settings,
                   f'runtime.seed={seed}', 'mlflow.enabled=false', f'checkpoint.save_dir={folder}']
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
        if done.returncode: raise SystemExit(f"{arm}, seed {seed}: {done.stderr.strip()}")
    print(arm, seed, 'done', flush=True)
    return folder


def collect(arm, seed, folder):
    "What a finished run found: its held-out metrics, the means of its weight statistics, its time."
    summary = json.loads((folder/'summary.json').read_text())
    rows = [json.loads(line) for line in (folder/'journal.jsonl').read_text().splitlines()]
    weights = {name: sum(row[name] for row in rows if name in row) / sum(name in row for row in rows)
               for name in ('weight/mean', 'weight/ess_share', 'weight/beta', 'data/correct') if any(name in row for row in rows)}
    metrics = {name: round(x, 5) for name, x in (summary['metrics'] | weights).items()}
    return {'arm': arm, 'seed': seed, 'steps': summary['steps'], 'wall_s': summary['wall_s'], 'config_sha256': summary['config_sha256'], 'metrics': metrics}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--arms', nargs='+', choices=ARMS, default=list(ARMS), metavar='ARM', help=f"of {', '.join(ARMS)}")
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--jobs', type=int, default=1, help='runs at a time, one CPU thread each')
    parser.add_argument('--set', metavar='KEY=VALUE', nargs='+', default=[], help='change single keys of every run')
    args = parser.parse_args()
    home, root = project_root()/'storage'/'checkpoints'/'compare', project_root()
    todo = [(arm, seed) for seed in args.seeds for arm in args.arms]
    with ThreadPoolExecutor(args.jobs) as pool: folders = list(pool.map(lambda job: train(*job, args.set, home), todo))
    found = [collect(*job, folder) for job, folder in zip(todo, folders)]
    (root/'nbs'/'results').mkdir(exist_ok=True)
    (root/'nbs'/'results'/'compare_arms.json').write_text(json.dumps(found, indent=1) + '\n')


if __name__ == '__main__': main()
