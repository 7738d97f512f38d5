"""Train critics that differ in data and loss, judge each on held-out problems, keep one row a run.

    python scripts/compare_critics.py --policy storage/models/micro-policy    # all arms, seeds 0 1 2
    python scripts/compare_critics.py --arms default siblings --seeds 0 --steps 650

The policy, where one is given, writes the programs of the arms `own` and those on which every critic is
judged besides mutants; scripts/make_micro_models.py makes one. What is finished is not made again. Several
seeds give one row more, for the mean of their values. Data, runs and evaluations lie under storage/, the rows
in nbs/9_reports/results/critic_study.json, one line each.
(scripts/credit_study.py reads one critic, token by token.)
"""
import argparse
import json
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from compare_arms import call
from wmtp.config.load import project_root
from wmtp.core import last_true_index
from wmtp.data.schema import problem_id
from wmtp.data.tokenizer import load_tokenizer
from wmtp.evaluation.benchmarks import read_lines
from wmtp.evaluation.samples import labelled_samples
from wmtp.microcode.problems import make_problems
from wmtp.microcode.siblings import instruction_twin_rows
from wmtp.models.value_model import ValueModel
from wmtp.pipelines.critic import critic_metrics, predict_values
from wmtp.pipelines.setup import read_programs
from wmtp.runtime.checkpoint import replace_text

STORAGE, RESULTS = project_root()/'storage', project_root()/'nbs'/'9_reports'/'results'
MICROCODE = STORAGE/'datasets'/'microcode'
BCE = ['models.value_model.output=sigmoid', 'critic.loss=bce', 'critic.value_coef=16']
ARMS = {  # arm -> (what is read besides the shipped rows, settings)
    'default': ((), []),
    'siblings': (('siblings',), []),
    'bce': ((), BCE),
    'siblings, bce': (('siblings',), BCE),
    'own': (('own',), []),
    'siblings, own': (('siblings', 'own'), []),
    'siblings, own, bce': (('siblings', 'own'), BCE),
}
KEPT = ('value/pairwise_last', 'value/pairwise_mean', 'value/brier', 'value/ece', 'credit/bug_hit@1',
        'credit/bug_hit@3', 'credit/bug_hit_open@1', 'credit/bug_hit_open@3',
        'credit/mask_precision', 'credit/mask_recall')


def shipped(split): return read_lines(MICROCODE/f'{split}.jsonl.gz')

def write_rows(file, rows):
    file.parent.mkdir(parents=True, exist_ok=True)
    replace_text(file, ''.join(json.dumps(row) + '\n' for row in rows))

def own_rows(policy, benchmark, rows, n_samples):
    "What the policy writes for a benchmark at temperature .8, labelled by the sandbox."
    folder = STORAGE/'evaluations'/f'critics-{policy.name}-{benchmark}'
    if not (folder/'summary.json').exists():
        call('evaluate', '--set', f'models.policy.checkpoint_path={policy}', f'benchmark.name={benchmark}',
             f'generation.n_samples={n_samples}', 'generation.temperature=0.8', 'benchmark.pass_at=1',
             'mlflow.enabled=false', f'save_dir={folder}')
    return labelled_samples(read_lines(folder/'samples.jsonl'), read_lines(folder/'verdicts.jsonl'), rows)

def data_file(parts, policy):
    "The training rows of an arm, written once."
    if not parts: return MICROCODE/'train.jsonl.gz'
    name = '-'.join([*parts, policy.name] if 'own' in parts else parts)
    file = STORAGE/'datasets'/'critics'/f'{name}.jsonl'
    if not file.exists():
        train, new = shipped('train'), []
        if 'siblings' in parts:
            new += instruction_twin_rows(make_problems(36), train, shipped('valid') + shipped('test'))
        if 'own' in parts: new += own_rows(policy, 'microcode-train', train + new, 12)
        write_rows(file, train + new)
    return file

def own_file(policy):
    "The policy's programs for the problems of the valid split, for judging."
    file = STORAGE/'datasets'/'critics'/f'judged-{policy.name}.jsonl'
    if not file.exists(): write_rows(file, own_rows(policy, 'microcode-valid', shipped('valid'), 20))
    return file


def seen_by_kind(programs, predictions):
    "For each kind of mistake how many of the problem's correct programs are placed above the broken one."
    index, values, masks = predictions
    last = {i: float(v[last_true_index(m[None])]) for i, v, m in zip(index, values, masks)}
    right, seen = {}, {}
    for i in index:
        if programs.rows[i]['is_correct']: right.setdefault(problem_id(programs.rows[i]), []).append(last[i])
    for i in index:
        row = programs.rows[i]
        if row['is_correct']: continue
        above = [np.sign(x - last[i]) / 2 + .5 for x in right[problem_id(row)]]
        seen.setdefault(row['metadata']['mutation'], []).append(mean(above))
    return {kind: round(mean(shares), 4) for kind, shares in sorted(seen.items())}

def mean_predictions(critics, programs):
    "What `predict_values` gives, with the mean value of several critics."
    each = [predict_values(critic, programs, 16384) for critic in critics]
    index, _, masks = each[0]
    return index, [torch.stack(values).mean(0) for values in zip(*(values for _, values, _ in each))], masks

def judge(folders, policy):
    "Critics together on held-out mutants, and on the policy's own programs where there is a policy."
    tokenizer = load_tokenizer(MICROCODE/'tokenizer.model')
    critics = [ValueModel.from_checkpoint(folder).eval_mode() for folder in folders]
    read = lambda file: (programs := read_programs(file, tokenizer), mean_predictions(critics, programs))
    mutants = read(MICROCODE/'valid.jsonl.gz')
    metrics = critic_metrics(*mutants)
    row = {name: None if metrics[name] != metrics[name] else round(metrics[name], 4) for name in KEPT}
    own = policy and critic_metrics(*read(own_file(policy)))['value/pairwise_last']
    return row | {'pairwise, own programs': own and round(own, 4), 'seen by kind': seen_by_kind(*mutants)}

def train(arm, seed, steps, data):
    "One critic, trained unless it has been; its summary."
    folder = STORAGE/'checkpoints'/'critics'/f"{arm.replace(', ', '-')}-{steps}-{seed}"
    half = steps // 2
    if not (folder/'summary.json').exists():
        call('critic', '--set', f'data.train={data}', f'training.max_steps={steps}', *ARMS[arm][1],
             f'training.eval_every_steps={half}', f'checkpoint.save_every_steps={half}',
             f'runtime.seed={seed}', 'mlflow.enabled=false', f'checkpoint.save_dir={folder}')
    return json.loads((folder/'summary.json').read_bytes())

def run(arm, seeds, steps, policy):
    "The row of one critic, or of the mean of several."
    data = data_file(ARMS[arm][0], policy)
    summaries = [train(arm, seed, steps, data) for seed in seeds]
    return {'arm': arm, 'seeds': seeds, 'steps': steps, 'policy': policy and policy.name,
            'settings': ARMS[arm][1], 'rows': len(read_lines(data)),
            'wall_s': round(sum(summary['wall_s'] for summary in summaries)),
            **judge([summary['checkpoint']['best'] for summary in summaries], policy)}


def main():
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument('--arms', nargs='+', choices=ARMS, metavar='ARM', help=f"of {'; '.join(ARMS)}",
                        default=list(ARMS))
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--steps', type=int, default=1300, help='optimizer steps of each critic')
    parser.add_argument('--policy', type=Path, help='folder of a policy; the arms `own` need one')
    args = parser.parse_args()
    if args.policy is None and any('own' in ARMS[arm][0] for arm in args.arms):
        parser.error('the arms `own` need --policy')
    target = RESULTS/'critic_study.json'
    rows = json.loads(target.read_bytes()) if target.exists() else []
    jobs = [(arm, [seed]) for seed in args.seeds for arm in args.arms]
    if len(args.seeds) > 1: jobs += [(arm, args.seeds) for arm in args.arms]
    for arm, seeds in jobs:
        key = {'arm': arm, 'seeds': seeds, 'steps': args.steps, 'policy': args.policy and args.policy.name}
        if any(row | key == row for row in rows): continue
        rows.append(run(arm, seeds, args.steps, args.policy))
        replace_text(target, '[' + ',\n '.join(map(json.dumps, rows)) + ']\n')
        print(arm, seeds, 'done', flush=True)


if __name__ == '__main__': main()
