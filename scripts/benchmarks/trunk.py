"""The policy's trunk: SDPA beside materialised scores, bfloat16 beside float32, four more heads in memory.

Goals: at least 2 times the tokens per second of materialised scores at seq 1024 and 2048; bfloat16 at
least 1.2 times float32 on a CPU with AMX; with heads trained one after another, 8 heads need less than
15 % more memory in a training step than 4 over the same trunk.
"""
from itertools import accumulate
from unittest import mock

import torch
import torch.nn.functional as F
from measure import median, table, timed
from torch.profiler import ProfilerActivity, profile

from wmtp.losses.mtp_loss import compute_mtp_ce_loss, compute_sequential_mtp_loss
from wmtp.models.mtp import MetaLlamaMTPAdapter, MetaLlamaMTPConfig

SIZES = {'dim': 256, 'n_heads': 8, 'hidden_dim': 688, 'max_seq_len': 2048}


def policy(n_trunk, n_future, vocab_size):
    "A random policy with `n_trunk` blocks below its heads."
    torch.manual_seed(0)
    config = MetaLlamaMTPConfig(**SIZES, n_layers=n_trunk + n_future, n_future_tokens=n_future,
                                vocab_size=vocab_size)
    return MetaLlamaMTPAdapter(config)


def materialised(q, k, v, attn_mask=None, is_causal=False, enable_gqa=False):
    "Attention from its formula: all scores, a causal mask added, softmax in float32."
    if attn_mask is not None or enable_gqa:
        raise ValueError('the formula below is for plain causal attention')
    scores = q @ k.transpose(2, 3) / q.shape[-1]**.5
    if is_causal:
        hidden = torch.full(scores.shape[-2:], float('-inf'), device=q.device).triu(1)
        scores = scores + hidden.to(scores.dtype)
    return scores.float().softmax(-1).to(q.dtype) @ v


def step(model, ids, attention=F.scaled_dot_product_attention, autocast=False):
    "Forward and backward pass of the trunk."
    patched = mock.patch.object(F, 'scaled_dot_product_attention', attention)
    with patched, torch.autocast(ids.device.type, torch.bfloat16, enabled=autocast):
        model.trunk(ids).float().square().mean().backward()
    model.zero_grad(set_to_none=True)


def speeds(draws, device):
    "Tokens per second of each way, the ways in turn, so that all meet the same load of the machine."
    model, has = policy(4, 1, 512).to(device), torch.cpu.get_capabilities()
    cases = {'materialised scores': (materialised, False), 'SDPA': (F.scaled_dot_product_attention, False)}
    if device != 'cpu' or has.get('amx_bf16') or has.get('avx512_bf16'):
        cases['SDPA, bfloat16 autocast'] = F.scaled_dot_product_attention, True
    for seq in (1024, 2048):
        ids = torch.randint(512, (2048 // seq, seq), device=device)
        seconds = {name: [] for name in cases}
        for _ in range(1 + draws):
            for name, (attention, autocast) in cases.items():
                seconds[name].append(timed(lambda: step(model, ids, attention, autocast)))
        took = {name: median(s[1:]) for name, s in seconds.items()}
        reference = took['materialised scores']
        rows = [(name, ids.numel() / s, 'tokens/s', reference / s) for name, s in took.items()]
        table(f'trunk: 4 blocks of dim 256, 8 heads, float32, {tuple(ids.shape)}, forward and backward; '
              f'ratios of speed', rows)
    unmeasured = '' if len(cases) == 3 else '; without both, bfloat16 is emulated, and not measured'
    print(f"  this CPU has AMX: {bool(has.get('amx_bf16'))}; "
          f"bfloat16 in AVX-512: {bool(has.get('avx512_bf16'))}{unmeasured}")


def training_step(n_future, sequential, device):
    "Forward and backward pass of the whole loss, as a call without arguments."
    model = policy(6, n_future, 8000).to(device)
    ids = torch.randint(8000, (2, 1024), device=device)
    heads = [lambda trunk, k0=k0: model.head_latents(k0, trunk) for k0 in range(n_future)]
    used = [p for part in (model.layers[-1], model.extra_heads, model.norm) for p in part.parameters()]

    def work():
        if sequential:
            sums, _ = compute_sequential_mtp_loss(model.trunk(ids), heads, used, model.output_weight, ids)
        else: sums, _ = compute_mtp_ce_loss(model.hidden_states(ids), model.output_weight, ids)
        sums.sum().backward()
    return work


def peak(work, device):
    "MiB that a call holds at most, above what was there before."
    if device == 'cpu':
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded: work()
        events = recorded.profiler.kineto_results.events()
        return max(accumulate(e.nbytes() for e in events if e.name() == '[memory]')) / 2**20
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def memory(device):
    """The peaks of 4 and 8 heads over the same trunk; weights are there before, gradients are not.
    Exact, so measured once."""
    rows = []
    for name, sequential in (('one after another', True), ('all at once', False)):
        mib = {n: peak(training_step(n, sequential, device), device) for n in (4, 8)}
        rows += [(f'{n} heads, {name}', mib[n], 'MiB', mib[n] / mib[4]) for n in (4, 8)]
    table('heads: peak of a training step above the weights, 6 blocks of trunk, (2, 1024), vocab 8000; '
          'ratios to 4 heads', rows)


def run(draws, device):
    "Speed of the trunk, then memory of a training step as heads are added."
    speeds(draws, device)
    memory(device)
