"""The parts of scripts/bench_gpu.py that take one thing out of a model: the loss, decoding, attention."""
from functools import partial

import torch
import torch.nn.functional as F
from mtp_loss import inputs, naive, ours, step, torch_chunked

from wmtp.evaluation.generate import generate
from wmtp.evaluation.speculative import acceptance
from wmtp.losses.head_terms import head_targets
from wmtp.value_weighting.advantage import align_weights


class Ids:
    "A tokenizer without an end of text, so that every answer has full length."
    def __init__(self, vocab_size): self.bos_id, self.eos_id, self.vocab_size = 1, -1, vocab_size

    def decode(self, ids): return ''


def liger():
    "Liger's fused loss with a weight for each row, or None where it is not installed."
    try: from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss
    except ImportError: return None
    each = LigerFusedLinearCrossEntropyLoss(reduction='none')
    def loss(hidden, weight, labels, weights):
        n_future = hidden.shape[2]
        nll = each(weight, hidden.flatten(0, 2), head_targets(labels, n_future).flatten())
        return (nll.float() * align_weights(weights, n_future).flatten()).sum()
    return loss


def mtp_loss(bench):
    "Forward and backward pass of the loss alone, 8,192 positions, and its gradient beside float64 on a few."
    dim, seq, vocab = (32, 64, 64) if bench.tiny else (4096, 8192, 32000)
    fused = liger()
    if fused is None: yield 'Liger', {'skipped': 'liger_kernel is not installed'}
    losses = {'ours': ours, 'torch': torch_chunked, 'naive': naive, **({'Liger': fused} if fused else {})}
    for frozen in (True, False):
        for name, loss in losses.items():
            few = inputs('bfloat16', dim, min(256, seq), frozen, 4, vocab, bench.device)
            step(loss, few)
            hidden, *others = (x.detach().double() if x.is_floating_point() else x for x in few)
            naive(hidden.requires_grad_(), *others).backward()
            error = (few[0].grad.double() - hidden.grad).norm() / hidden.grad.norm()
            args = inputs('bfloat16', dim, seq, frozen, 4, vocab, bench.device)
            numbers = bench.timed(partial(step, loss, args))
            yield f"{name}, {'frozen' if frozen else 'trained'}", numbers | {'gradient_error': error.item()}


def decoding(bench):
    "Milliseconds of a token, plain, and of a pass with drafts; what a pass must give for drafts to pay."
    model, n_new = bench.policy().eval(), bench.tokens(2048) if bench.tiny else 128
    prompt = torch.randint(4, bench.config.vocab_size, (bench.tokens(512),)).tolist()
    tokenizer, plain = Ids(bench.config.vocab_size), {}
    for size in (1, 16, 64):
        write = partial(generate, model, tokenizer, [prompt] * size, n_new, batch_size=size)
        numbers = bench.timed(write, warm=1, n=3)
        plain[size] = numbers['ms'] / n_new
        yield f'plain, {size} rows', numbers | {'ms_per_token': round(plain[size], 3),
                                                'tokens_per_s': round(size * 1e3 / plain[size], 1)}
    for size in (1, 16):
        write = partial(generate, model, tokenizer, [prompt] * size, n_new, batch_size=size, speculative=True)
        n_passes = acceptance(write(), bench.config.n_future_tokens)['passes'] / size
        numbers = bench.timed(write, warm=0, n=3)
        per_pass = numbers['ms'] / n_passes
        yield f'with drafts, {size} rows', numbers | {'ms_per_pass': round(per_pass, 3),
                                                      'break_even_tokens': round(per_pass / plain[size], 3)}


def attention(bench):
    "Rows of 2,048 in a block's attention: causal, as a packed row's mask, and as flex attention."
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    heads, length, width = (2, 128, 16) if bench.tiny else (32, 2048, 128)
    dtype = torch.float32 if bench.tiny else torch.bfloat16
    q, k, v = torch.randn(3, 2, heads, length, width, device=bench.device, dtype=dtype)
    for x in (q, k, v): x.requires_grad_(bench.on_gpu)
    document = torch.arange(length, device=bench.device) // (length // 4)
    causal = torch.ones(length, length, dtype=torch.bool, device=bench.device).tril()
    packed = (causal & (document[:, None] == document)).expand(2, 1, -1, -1)
    allowed = lambda b, h, i, j: (i >= j) & (document[i] == document[j])
    blocks = create_block_mask(allowed, None, None, length, length, device=bench.device)
    flex = torch.compile(flex_attention) if bench.on_gpu else flex_attention
    variants = {'causal': lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True),
                'packed mask': lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=packed),
                'packed, flex': lambda: flex(q, k, v, block_mask=blocks)}
    results = {}
    for name, forward in variants.items():
        def work():
            results[name] = forward()
            if bench.on_gpu: results[name].sum().backward()
        yield name, bench.timed(work)
    difference = (results['packed mask'] - results['packed, flex']).abs().max().item()
    yield 'flex beside the mask', {'largest_difference': difference}


PARTS = {'loss': mtp_loss, 'decoding': decoding, 'attention': attention}
