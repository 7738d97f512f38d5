"""Train every arm from one start and several seeds, let each write programs, and collect the results.

    python scripts/make_micro_models.py && wmtp_critic
    python scripts/compare_arms.py --jobs 2         # all arms, seeds 0 1 2: about an hour on two CPU cores
    python scripts/compare_arms.py --seeds 0 --arms baseline td --set training.max_steps=40

The start is the micro policy; each arm goes on from it with the settings below, and its best checkpoint is
evaluated on microcode's test problems. What is finished is not made again. All lies in
storage/checkpoints/compare/; the table goes to nbs/9_reports/results/, where 92_compare_arms.ipynb reads it.
"""
import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from wmtp.config.load import project_root

START = 'storage/models/micro-policy'
LENGTH = ['training.max_steps=120', 'training.eval_every_steps=120', 'checkpoint.save_every_steps=120',
          'training.lr_warmup_steps=10', 'training.learning_rate=5e-4']
EVALUATION = ['benchmark.pass_at=1 5', 'generation.n_samples=10', 'generation.speculative=true',
              'generation.max_new_tokens=200', 'generation.temperature=0.8',
              'models.value_model.checkpoint_path=storage/checkpoints/critic_local']
SHARP = ['weighting.target_ess=0.6', 'weighting.max_weight=5', 'weighting.normalize=mean_one']
ARMS = {  # arm -> (run, configuration, what differs from it)
    'start': (None, None, []),
    'baseline': ('baseline', None, []),
    'outcome told': ('baseline', 'reward_conditioned_local', []),
    'td': ('verifiable', None, []),
    'td, sharp': ('verifiable', None, SHARP),
    'gae, sharp': ('verifiable', None, [*SHARP, 'weighting.advantage=gae']),
    'gae, correct only': ('verifiable', None, [*SHARP, 'weighting.advantage=gae', 'data.labels=correct']),
    'td paths, sharp': ('verifiable', None, [*SHARP, 'weighting.head_weight=path']),
    'shuffled, sharp': ('verifiable', None, [*SHARP, 'weighting.control=shuffled']),
    'rho1': ('rho1', None, []),
}


def call(run, *arguments):
    "One run as a process of its own on one thread."
    command = [sys.executable, '-m', 'wmtp.cli', run, '--resume', 'auto', *arguments]
    done = subprocess.run(command, capture_output=True, encoding='utf-8', errors='backslashreplace',
                          env={**os.environ, 'OMP_NUM_THREADS': '1'})
    if done.returncode: raise SystemExit(f"{' '.join(arguments)}: {done.stderr.strip()}")


def train(arm, seed, settings, home):
    "One arm from one seed, trained and evaluated unless it has been; its folder."
    run, config, own = ARMS[arm]
    folder = home/f"{arm.replace(',', '').replace(' ', '_')}-{seed}"
    if run and not (folder/'summary.json').exists():
        call(run, *(['--config', config] if config else []), '--set', *LENGTH, *own, *settings,
             f'models.policy.path={START}', f'runtime.seed={seed}', 'mlflow.enabled=false',
             f'checkpoint.save_dir={folder}')
    evaluation = home/f'{folder.name}-evaluation'
    if not (evaluation/'summary.json').exists():
        state_outcome = str(config == 'reward_conditioned_local').lower()
        call('evaluate', '--set', *EVALUATION, f'models.policy.checkpoint_path={folder if run else START}',
             f'models.policy.state_outcome={state_outcome}', f'runtime.seed={seed}', 'mlflow.enabled=false',
             f'save_dir={evaluation}')
    print(arm, seed, 'done', flush=True)
    return folder


def collect(arm, seed, folder):
    "The results of a run: held-out metrics, means of its weight statistics, what its programs came to."
    evaluation = json.loads((folder.with_name(f'{folder.name}-evaluation')/'summary.json').read_bytes())
    summary, rows = {'metrics': {}, 'steps': 0, 'wall_s': 0., 'config_sha256': None}, []
    if folder.exists():
        summary = json.loads((folder/'summary.json').read_bytes())
        rows = [json.loads(line) for line in (folder/'journal.jsonl').read_bytes().splitlines()]
    weights = {name: sum(row[name] for row in rows if name in row) / sum(name in row for row in rows)
               for name in ('weight/mean', 'weight/ess_share', 'weight/beta', 'data/correct')
               if any(name in row for row in rows)}
    written = {f'eval/{name}': x for name, x in evaluation['metrics'].items()}
    metrics = {name: x and round(x, 5) for name, x in (summary['metrics'] | weights | written).items()}
    return {'arm': arm, 'seed': seed, 'steps': summary['steps'], 'wall_s': summary['wall_s'],
            'config_sha256': summary['config_sha256'], 'failures': evaluation['failures'], 'metrics': metrics}


def main():
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument('--arms', nargs='+', choices=ARMS, default=list(ARMS), metavar='ARM',
                        help=f"of {', '.join(ARMS)}")
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--jobs', type=int, default=1, help='runs at a time, one CPU thread each')
    parser.add_argument('--set', metavar='KEY=VALUE', nargs='+', default=[], help='for every training run')
    args = parser.parse_args()
    home = project_root()/'storage'/'checkpoints'/'compare'
    jobs = [(arm, seed) for seed in args.seeds for arm in args.arms]
    with ThreadPoolExecutor(args.jobs) as pool:
        folders = list(pool.map(lambda job: train(*job, args.set, home), jobs))
    records = [collect(*job, folder) for job, folder in zip(jobs, folders)]
    target = project_root()/'nbs'/'9_reports'/'results'/'compare_arms.json'
    target.write_text(json.dumps(records, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__': main()
