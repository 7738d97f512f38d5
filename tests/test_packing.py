"Packed rows against one program a row: the same losses and gradients, for policy and critic; a whole run."
from dataclasses import replace

import numpy as np
import pytest
import torch

from wmtp.config.load import load_config, project_root
from wmtp.core import seed_everything
from wmtp.data.epoch import sample_pairs
from wmtp.data.packing import lay_out
from wmtp.data.tokenizer import load_tokenizer
from wmtp.pipelines.baseline import run_baseline
from wmtp.pipelines.critic import critic_losses, make_critic
from wmtp.pipelines.policy import make_policy, policy_losses
from wmtp.pipelines.setup import prepare_run, read_programs, tiny_settings

CRITIC = ['models.value_model.n_heads=4', 'models.value_model.head=linear', 'critic.ranking_coef=.3',
          'critic.eos_warmup_steps=0']


def configure(run, *changes, folder='unused'):
    own = CRITIC if run == 'critic' else ['models.policy.n_heads=4']
    return load_config(None, tiny_settings(run, folder, *own, *changes), run)


@pytest.fixture(scope='module')
def programs():
    tokenizer = load_tokenizer(project_root()/'storage/datasets/microcode/tokenizer.model')
    return read_programs(project_root()/'storage/datasets/microcode/valid.jsonl.gz', tokenizer)


@pytest.fixture(scope='module')
def batch(programs):
    "Pairs of a correct and an incorrect program of one problem, of very different lengths."
    pairs = sample_pairs(programs.table, np.random.default_rng(0))
    order = np.argsort(programs.table.lengths[pairs].min(1), kind='stable')
    return programs.batch(pairs[np.r_[order[:4], order[-2:]]].ravel())


def step(model, loss, batch, totals, seed=0):
    "Loss terms and every gradient of one step."
    seed_everything(seed)
    model.zero_grad(set_to_none=True)
    out = loss(model, batch, 3, totals)
    sum(total / max(totals[name], 1) for name, (total, _) in out.terms.items()).backward()
    return ({name: total.item() for name, (total, _) in out.terms.items()},
            {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})


def assert_same_step(step, other):
    (terms, grads), (other_terms, other_grads) = step, other
    for name in other_terms: assert terms[name] == pytest.approx(other_terms[name], rel=1e-5)
    assert grads.keys() == other_grads.keys()
    for name, grad in other_grads.items():
        assert (grads[name] - grad).norm() <= 1e-5 * grad.norm() + 1e-9, name


@pytest.mark.parametrize('one_by_one', [True, False])
def test_policy(batch, programs, one_by_one):
    heads = f'mtp.sequential_heads={one_by_one}'.lower()
    cfgs = [configure('baseline', heads, f'data.packing={packing}') for packing in ('false', 'true')]
    model = make_policy(prepare_run(cfgs[0]))
    generator = torch.Generator().manual_seed(1)
    weighted = replace(batch, weights=torch.rand(batch.labels.shape, generator=generator))
    steps = []
    for cfg in cfgs:
        loss, counts = policy_losses(cfg, model.n_future)
        steps.append(step(model, loss, weighted, counts(weighted, 3)))
    assert_same_step(*steps)


@pytest.mark.parametrize('lm', [0., .5])
def test_critic(batch, programs, lm):
    cfgs = [configure('critic', f'critic.lm_coef={lm}', f'data.packing={packing}')
            for packing in ('false', 'true')]
    model = make_critic(prepare_run(cfgs[0]))
    torch.nn.init.normal_(model.head.layers[-1].weight, std=.1)  # so that a gradient reaches the backbone
    steps = []
    for cfg in cfgs:
        loss, counts = critic_losses(cfg)
        steps.append(step(model, loss, batch, counts(batch, 3)))
    assert_same_step(*steps)


def test_no_document_sees_another(batch, programs):
    "Another program in the same row changes not one bit of an output; its own outputs change."
    policy = make_policy(prepare_run(configure('baseline'))).eval()
    critic = make_critic(prepare_run(configure('critic'))).eval()
    torch.nn.init.normal_(critic.head.layers[-1].weight)
    layout = lay_out(batch, True)
    assert len(layout.input_ids) < len(batch.input_ids)
    shared = next(row for row in layout.segments.tolist() if len({*row} - {-1}) > 1)
    first, second = sorted({*shared} - {-1}, key=shared.index)[:2]

    def latents(ids): return policy.head_latents(3, policy.trunk(ids, **layout.where), **layout.where)
    def values(ids): return critic(ids, **layout.where)[..., None]

    for read in (latents, values):
        for edited in (first, second):
            ids = torch.where(layout.segments == edited, (layout.input_ids + 7) % 700, layout.input_ids)
            with torch.no_grad(): change = (read(ids) - read(layout.input_ids)).abs().flatten(2).sum(-1)
            changed = torch.nonzero(layout.unpack(change).sum(1)).flatten().tolist()
            assert set(changed) == {edited}


def test_run(tmp_path):
    "A whole packed run, twice: the same bits."
    journals = []
    for name in 'ab':
        run_baseline(configure('baseline', 'training.max_steps=3', 'training.eval_every_steps=3',
                               'training.eval_max_batches=1', 'data.packing=true', folder=tmp_path/name))
        journals.append((tmp_path/name/'journal.jsonl').read_bytes())
    assert journals[0] == journals[1]
