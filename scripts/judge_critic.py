"""Judge a critic on labelled programs: the numbers that a run ends with, what masks would hit, what it sees.

    python scripts/judge_critic.py --critic storage/checkpoints/critic_local --data FILE.jsonl --out DIR

DIR/summary.json holds them: precision and recall of masking the choices whose td is under each threshold, and
for each kind of mistake how many of its problem's correct programs stand above the broken one. Several
critics are judged by the mean of their values.
"""
import argparse
import json
import sys
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from wmtp.cli import Arguments, guarded
from wmtp.core import last_true_index
from wmtp.data.schema import problem_id
from wmtp.evaluation.credit_metrics import compute_mask_metrics, gather_programs
from wmtp.explain import load_critic
from wmtp.pipelines.critic import critic_metrics, predict_values, with_truth
from wmtp.pipelines.setup import read_programs
from wmtp.runtime.checkpoint import replace_text
from wmtp.runtime.output import say
from wmtp.value_weighting.td_error import compute_td_errors


def mean_predictions(critics, programs):
    "What `predict_values` gives, with the mean value of several critics."
    each = [predict_values(critic.model, programs, 16384, critic.model.device) for critic in critics]
    index, _, masks = each[0]
    return index, [torch.stack(values).mean(0) for values in zip(*(values for _, values, _ in each))], masks

def masks_at(programs, predictions, thresholds):
    "Precision and recall of a mask at each threshold."
    values, mask, rewards, _, spans, ended = gather_programs(*with_truth(programs, predictions))
    td = compute_td_errors(values, rewards, mask, 1., ended)
    return {f'{name}, td under {threshold}': share for threshold in thresholds
            for name, share in compute_mask_metrics(td, mask, spans, threshold).items()}

def seen_by_kind(programs, predictions):
    "For each kind of mistake the share of its problem's correct programs whose last value is higher."
    index, values, masks = predictions
    rows = [programs.rows[i] for i in index]
    last = [float(v[last_true_index(m[None])]) for v, m in zip(values, masks)]
    right, seen = {}, {}
    for row, v in zip(rows, last):
        if row['is_correct']: right.setdefault(problem_id(row), []).append(v)
    for row, v in zip(rows, last):
        others, kind = right.get(problem_id(row)), row['metadata'].get('mutation')
        if row['is_correct'] or not others or not kind: continue
        seen.setdefault(kind, []).append(mean(np.sign(x - v) / 2 + .5 for x in others))
    return {f'seen/{kind}': mean(shares) for kind, shares in sorted(seen.items())}

def judge(critics, data, thresholds):
    "All numbers of one critic, or of the mean of several."
    programs = read_programs(data, critics[0].tokenizer)
    predictions = mean_predictions(critics, programs)
    metrics = (critic_metrics(programs, predictions) | masks_at(programs, predictions, thresholds)
               | seen_by_kind(programs, predictions))
    return {name: None if x != x else round(float(x), 4) for name, x in metrics.items()}


def make_parser():
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--critic', nargs='+', required=True, metavar='PATH', help='a run, or a checkpoint')
    parser.add_argument('--data', type=Path, required=True, metavar='FILE', help='.jsonl or .jsonl.gz')
    parser.add_argument('--thresholds', type=float, nargs='+', default=[-.1, -.2, -.4], metavar='TD')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR')
    return parser


def judge_and_write(args, stop):
    metrics = judge([*map(load_critic, args.critic)], args.data, args.thresholds)
    args.out.mkdir(parents=True, exist_ok=True)
    replace_text(args.out/'summary.json', json.dumps({'metrics': metrics}, indent=1) + '\n')
    say(f"{args.out}: pairwise {metrics['value/pairwise_last']}")
    return 0


if __name__ == '__main__': sys.exit(guarded(make_parser(), judge_and_write))
