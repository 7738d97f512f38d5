"""Fill storage/models/ with the micro models of microcode: a critic, a policy and the reference for Rho-1.

    python scripts/make_micro_models.py                      # those that are missing, from two CPU cores
    python scripts/make_micro_models.py --only reference     # what wmtp_rho1 needs, three minutes
    python scripts/make_micro_models.py --only critic --force --set runtime.seed=1

Each is the best checkpoint of a run with its card, without the optimizer's state, with the run's numbers in
summary.json beside it. Critic and policy are tracked: they are what one plays with before training anything.
The critic has the settings of wmtp_critic and takes as long; the policy takes ten minutes. What was stopped
goes on when called again. To cut a micro model out of a big one instead, see scripts/slice_model.py.
"""
import argparse
import json
import shutil
import sys
from importlib import import_module

from wmtp.cli import Arguments, closing_lines, guarded
from wmtp.config.load import load_config, project_root
from wmtp.runtime.checkpoint import MANIFEST, write_folder
from wmtp.runtime.output import say

FROM_SCRATCH = ['models.policy.path=null', 'training.learning_rate=2e-3']
MODELS = {  # name -> the run that trains it, and what differs from its local configuration
    'critic': ('critic', []),
    'policy': ('baseline',
               [*FROM_SCRATCH, 'data.packing=true', 'training.max_steps=1200',
                'training.eval_every_steps=300', 'checkpoint.save_every_steps=300',
                'training.lr_warmup_steps=60', 'runtime.seed=10']),
    'reference': ('baseline',
                  [*FROM_SCRATCH, 'models.policy.dim=96', 'models.policy.n_layers=4',
                   'models.policy.hidden_dim=256', 'models.policy.n_future_tokens=1',
                   'training.max_steps=500', 'training.eval_every_steps=250',
                   'checkpoint.save_every_steps=250', 'training.lr_warmup_steps=40', 'runtime.seed=100']),
}


def place(name): return project_root()/'storage'/'models'/f'micro-{name}'


def make(name, settings, stop):
    "Train one micro model and put its best checkpoint in its place, instead of what stood there."
    run, own = MODELS[name]
    folder = project_root()/'storage'/'checkpoints'/f'micro_{name}'
    cfg = load_config(None, [*own, 'mlflow.enabled=false', f'checkpoint.save_dir={folder}', *settings], run)
    train = getattr(import_module(f'wmtp.pipelines.{run}'), f'run_{run}')
    summary = train(cfg, 'auto', stop, log=say).summary
    best = summary.pop('checkpoint')['best']

    def fill(part):
        shutil.copytree(best, part, ignore=shutil.ignore_patterns('trainer', MANIFEST), dirs_exist_ok=True)
        (part/'summary.json').write_text(json.dumps(summary, indent=1) + '\n', encoding='utf-8')

    shutil.rmtree(place(name), ignore_errors=True)
    say(*closing_lines(summary), f'{write_folder(place(name), fill)} is made')
    shutil.rmtree(folder, ignore_errors=True) # or --force would find it finished


def make_parser():
    parser = Arguments(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', choices=MODELS, help='make one of them')
    parser.add_argument('--force', action='store_true', help='make anew what is there')
    parser.add_argument('--set', metavar='KEY=VALUE', nargs='+', default=[],
                        help='change single keys of the runs')
    return parser


def make_missing(args, stop):
    for name in [args.only] if args.only else MODELS:
        if args.force or not place(name).exists(): make(name, args.set, stop)
        else: say(f'{place(name)} is there; --force makes it anew')
    return 0


if __name__ == '__main__': sys.exit(guarded(make_parser(), make_missing))
