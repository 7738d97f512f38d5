"""TD errors and losses of held-out programs under a trained critic, reference and policy, token by token.

    python scripts/make_micro_models.py && wmtp_critic
    python scripts/credit_study.py      # reads storage/, writes nbs/9_reports/results/credit_study.json

nbs/9_reports/91_credit_study.ipynb turns them into weights.
"""
import argparse
import json
import sys

import torch

from wmtp.cli import Arguments, guarded
from wmtp.config.load import load_config, project_root, resolve_path
from wmtp.core import derive_seed, state_mask
from wmtp.models.mtp import MetaLlamaMTPAdapter
from wmtp.pipelines.policy import policy_nll
from wmtp.pipelines.report import colour_program
from wmtp.pipelines.rho1 import open_reference
from wmtp.pipelines.setup import prepare_run
from wmtp.pipelines.verifiable import open_weighing_critic
from wmtp.runtime.output import say
from wmtp.value_weighting.td_error import compute_td_errors


def make_parser():
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--critic', default='storage/checkpoints/critic_local',
                        help='a critic: folder of a run or checkpoint')
    parser.add_argument('--policy', default='storage/models/micro-policy', help='an MTP network')
    parser.add_argument('--reference', default='storage/models/micro-reference', help='a reference')
    parser.add_argument('--programs', type=int, default=160,
                        help='held-out programs to read, drawn by a hash of their names')
    return parser


def read_programs(args, stop):
    settings = [f'models.value_model.checkpoint_path={args.critic}', 'mlflow.enabled=false',
                'runtime.dtype=float32']
    setup = prepare_run(load_config(None, settings, 'verifiable'))
    critic, about = open_weighing_critic(setup)
    policy = MetaLlamaMTPAdapter.from_pretrained(resolve_path(args.policy)).eval()
    score = open_reference(resolve_path(args.reference), setup.tokenizer, torch.float32, 'cpu')
    order = sorted(range(len(setup.valid)),
                   key=lambda i: derive_seed('study', setup.valid.rows[i]['task_id']))[:args.programs]
    programs = []
    for i in order:
        batch = setup.valid.batch([i])
        with torch.no_grad():
            values = critic(batch.input_ids, batch.attention_mask)
            td = compute_td_errors(values, batch.rewards, state_mask(batch.labels),
                                   setup.cfg.weighting.gamma, batch.terminated)
            colourings = [('td', td[0], 'td'), ('policy_nll', policy_nll(setup, policy, batch)[0], 'value'),
                          ('reference_nll', score(batch)[0], 'value')]
            first = values[0, setup.valid.examples[i].n_prompt - 1]
        program = colour_program(setup.valid, i, colourings)
        numbers = {name: [round(x, 4 if name == 'td' else 2) for x in line]
                   for name, line, _ in program.colourings}
        row = {'title': program.title, 'correct': setup.valid.rows[i]['is_correct'], 'bug': program.bug,
               'first_value': round(float(first), 4)} | numbers
        programs.append(row | {'pieces': program.pieces} if len(programs) < 40 else row)
    target = project_root()/'nbs'/'9_reports'/'results'/'credit_study.json'
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({'critic': {k: about[k] for k in ('class_prior', 'step')},
                                  'programs': programs}, separators=(',', ':')) + '\n', encoding='utf-8')
    say(f'{len(programs)} programs: {target}')
    return 0


if __name__ == '__main__': sys.exit(guarded(make_parser(), read_programs))
