"""Real tokens per second of batches by length within a token budget and of packed rows, beside random rows
padded to the longest."""
import numpy as np
import torch
from measure import median, table, timed

from wmtp.data.collate import Batch
from wmtp.data.packing import document_mask, lay_out
from wmtp.data.row_table import RowTable
from wmtp.data.sampling import plan_epoch


def micro_llama(device):
    "Two Llama layers without a head: enough for its cost to be that of the tokens, padding included."
    from transformers import LlamaConfig, LlamaModel
    config = LlamaConfig(vocab_size=512, hidden_size=128, num_hidden_layers=2, num_attention_heads=2,
                         intermediate_size=352, max_position_embeddings=2048)
    return LlamaModel(config).to(device)


def step(model, lengths, device, packing):
    "One forward and backward pass over programs of these lengths, random ids."
    lengths = torch.tensor(lengths.astype(np.int64))
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).long()
    batch = Batch(torch.randint(512, mask.shape), mask, mask, lengths, lengths > 0).to(device)
    layout = lay_out(batch, packing)
    inputs = {'input_ids': layout.input_ids}
    if packing: inputs |= dict(attention_mask=document_mask(layout.segments), position_ids=layout.positions)
    hidden = layout.unpack(model(use_cache=False, **inputs).last_hidden_state)
    (hidden.float().square().mean(-1) * batch.attention_mask).sum().backward()
    model.zero_grad(set_to_none=True)


def run(draws, device):
    "Real tokens per second: random rows padded to the longest, rows grouped by length, packed rows."
    rng, budget = np.random.default_rng(0), 4096
    # mean 490, 95th percentile 1242
    lengths = np.minimum(rng.lognormal(5.931, .725, 20_000), 2048).astype(np.int32).clip(1)
    rows = RowTable(np.ones(len(lengths), bool), np.zeros(len(lengths), np.int32), lengths)
    per_batch = budget // int(lengths.mean())
    n_random = len(lengths) // per_batch
    plans = {'padded': np.split(rng.permutation(len(lengths))[:n_random * per_batch], n_random),
             'grouped': plan_epoch(rows, 0, 0, 'uniform', budget),
             'packed': plan_epoch(rows, 0, 0, 'uniform', budget, packing=True)}
    plans = {name: sorted(batches, key=lambda batch: lengths[batch].max()) for name, batches in plans.items()}
    model, speeds = micro_llama(device), {name: [] for name in plans}
    for name in plans: step(model, lengths[plans[name][0]], device, name == 'packed')
    for _ in range(draws):
        tokens, seconds = dict.fromkeys(plans, 0), dict.fromkeys(plans, 0.)
        # batches of three widths, the plans in turn, so that all see the same weather
        for share in (np.arange(3) + rng.random()) / 3:
            for name, batches in plans.items():
                batch = batches[int(share * len(batches))]
                seconds[name] += timed(lambda: step(model, lengths[batch], device, name == 'packed'))
                tokens[name] += int(lengths[batch].sum())
        for name in plans: speeds[name].append(tokens[name] / seconds[name])
    padded, grouped, packed = (median(speeds[name]) for name in plans)
    table(f'batches: {draws} draws of 3, {per_batch} rows padded or {budget} tokens grouped', [
        ('random rows, padded to the longest', padded, 'tokens/s', 1.),
        ('grouped by length, token budget', grouped, 'tokens/s', grouped / padded),
        ('random rows, packed, token budget', packed, 'tokens/s', packed / padded)])
