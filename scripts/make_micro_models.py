"""Fill storage/models/ with the micro models: a policy and the reference for Rho-1, trained on microcode.

    python scripts/make_micro_models.py                      # both, a quarter of an hour on two CPU cores
    python scripts/make_micro_models.py --only reference     # what wmtp_rho1 needs
    python scripts/make_micro_models.py --set training.max_steps=2400

Each is the best checkpoint of a `wmtp_baseline` run, without the optimizer's state. To cut a micro model out
of a big one instead, see scripts/slice_model.py.
"""
import argparse
import shutil
import sys
from pathlib import Path

from wmtp.config.load import load_config, project_root
from wmtp.core import InputError
from wmtp.pipelines.baseline import run_baseline
from wmtp.runtime.output import keep_writing, say, warn

MODELS = {  # name -> what differs from configs/baseline/baseline_local.yaml
    'policy': ['training.max_steps=1200', 'training.eval_every_steps=300', 'checkpoint.save_every_steps=300',
               'training.lr_warmup_steps=60', 'runtime.seed=10'],
    'reference': ['models.policy.dim=96', 'models.policy.n_layers=4', 'models.policy.hidden_dim=256',
                  'models.policy.n_future_tokens=1',
                  'training.max_steps=500', 'training.eval_every_steps=250',
                  'checkpoint.save_every_steps=250', 'runtime.seed=100'],
}


def make(name, settings):
    "Train one micro model and put its best checkpoint into storage/models/micro-<name>."
    target = project_root()/'storage'/'models'/f'micro-{name}'
    if target.exists(): raise InputError(f"{target} exists already; move it away to make it anew")
    folder = project_root()/'storage'/'checkpoints'/f'micro_{name}'
    own = [*MODELS[name], 'mlflow.enabled=false', f'checkpoint.save_dir={folder}']
    cfg = load_config(None, [*own, *settings], 'baseline')
    summary = run_baseline(cfg, log=say).summary
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f'.part-{target.name}')
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(Path(summary['checkpoint']['best']), part,
                    ignore=shutil.ignore_patterns('trainer', 'manifest.json'))
    part.rename(target)
    say(f"{target}: {summary['steps']} steps in {summary['wall_s']:.0f} s, loss on held-out correct "
        f"programs {summary['metrics']['valid/loss']:.3f} nats per token")


def main():
    keep_writing()
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--only', choices=MODELS, help='make one of them')
    parser.add_argument('--set', metavar='KEY=VALUE', nargs='+', default=[],
                        help='change single keys of the runs')
    args = parser.parse_args()
    try:
        for name in [args.only] if args.only else MODELS: make(name, args.set)
    except InputError as e:
        warn(f'make_micro_models: error: {e}')
        return 2


if __name__ == '__main__': sys.exit(main())
