"""A trainable multi-token-prediction Llama in plain torch, with the parameter names of Meta's checkpoints.

Written from the published facts alone; PROVENANCE.md names them and their sources. No line of Meta's code is
in this file.
"""
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class ModelArgs:
    """The sizes of a transformer, named as in Meta's params.json; `None` is filled in by Meta's rule.
    Impossible ones are a `ValueError`."""
    dim: int = 4096
    n_layers: int = 32  # all blocks: the trunk's, and one per head
    n_heads: int = 32
    n_kv_heads: int | None = None  # None = n_heads
    vocab_size: int = 32000
    multiple_of: int = 256  # the feed-forward width is rounded up to a multiple of it
    ffn_dim_multiplier: float | None = None
    norm_eps: float = 1e-5
    rope_theta: float = 10000.
    max_seq_len: int = 4096
    n_future_tokens: int = 1  # heads; head k predicts the k-th next token
    head_dim: int | None = None  # None = dim / n_heads
    hidden_dim: int | None = None  # feed-forward; None = 2/3 of 4 dim, times ffn_dim_multiplier, rounded up

    def __post_init__(self):
        optional = 'n_kv_heads', 'head_dim', 'hidden_dim'
        for name in ('dim', 'n_layers', 'n_heads', 'n_kv_heads', 'vocab_size', 'multiple_of', 'max_seq_len',
                     'n_future_tokens', 'head_dim', 'hidden_dim'):
            size = getattr(self, name)
            if size is None and name in optional: continue
            if type(size) is not int or size < 1:
                raise ValueError(f"{name} is {size!r}; wanted a whole number of at least 1")
        for name in ('norm_eps', 'rope_theta', 'ffn_dim_multiplier'):
            size = getattr(self, name)
            if size is None and name == 'ffn_dim_multiplier': continue
            if type(size) not in (int, float) or not 0 < size < float('inf'):
                raise ValueError(f"{name} is {size!r}; wanted a number above 0")
        if self.head_dim is None and self.dim % self.n_heads:
            raise ValueError(f"dim {self.dim} is not divisible by n_heads {self.n_heads}; change one of them "
                             f"or give head_dim")
        if self.n_future_tokens > self.n_layers:
            raise ValueError(f"n_future_tokens is {self.n_future_tokens}, n_layers {self.n_layers}; every "
                             f"head needs a layer of its own")
        if self.n_kv_heads is None: self.n_kv_heads = self.n_heads
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads {self.n_heads} is not divisible by n_kv_heads {self.n_kv_heads}; "
                             f"every group needs as many heads")
        if self.head_dim is None: self.head_dim = self.dim // self.n_heads
        if self.head_dim % 2:
            raise ValueError(f"head_dim is {self.head_dim}; rotary positions need an even number")
        if self.hidden_dim is None:
            width = int((self.ffn_dim_multiplier or 1) * int(8 * self.dim / 3))
            self.hidden_dim = self.multiple_of * -(-width // self.multiple_of)


class RMSNorm(nn.Module):
    "x / rms(x) * weight, the quotient in float32 (arXiv 1910.07467)."
    def __init__(self, dim: int, eps: float):
        super().__init__()
        self.eps, self.weight = eps, nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), x.shape[-1:], eps=self.eps).type_as(x) * self.weight


def rope_table(
    positions: Tensor,  # [seq] on the CPU, as `polar` is: Apple's accelerators have no complex numbers
    head_dim: int,
    theta: float,
) -> Tensor:  # [seq, 1, 2, head_dim] float32: factors of a coordinate, and of its partner in the pair
    """How far each pair of coordinates turns at each position (arXiv 2104.09864):
    pair i by position * theta ** (-2i / head_dim)."""
    pairs = torch.arange(0, head_dim, 2, dtype=torch.float32)
    angles = positions.float()[:, None, None] * (1. / theta ** (pairs / head_dim))
    cos, sin = torch.view_as_real(torch.polar(torch.ones_like(angles), angles)).unbind(-1)
    return torch.stack((cos, cos, -sin, sin), -1).unflatten(-1, (2, 2)).transpose(-3, -2).flatten(-2)


def rotate(
    x: Tensor,  # [batch, seq, heads, head_dim]; coordinates 2i and 2i + 1 are a pair
    table: Tensor,  # [seq, 1, 2, head_dim] from `rope_table`, or [batch, seq, 1, 2, head_dim]
) -> Tensor:  # same shape and dtype
    "Every pair turned by its angle, in float32: (a, b) becomes (a cos - b sin, b cos + a sin)."
    x32, (own, partner) = x.float(), table.unbind(-2)
    swapped = x32.unflatten(-1, (-1, 2)).roll(1, -1).flatten(-2)
    return (x32 * own + swapped * partner).type_as(x)


def store(
    buffer: Tensor,  # [batch, n_kv_heads, length, head_dim] from `new_cache`; changed
    places: slice | Tensor,  # where the new ones go: one slice for all rows, or [batch, seq]
    new: Tensor,  # [batch, n_kv_heads, seq, head_dim]
) -> Tensor:  # [batch, n_kv_heads, <= length, head_dim]
    "Keys or values put at their places; those that attention may need, the new ones among them."
    if isinstance(places, Tensor): return buffer.scatter_(2, places[:, None, :, None].expand_as(new), new)
    buffer[:, :, places] = new
    return buffer[:, :, :places.stop]


class Attention(nn.Module):
    "Causal self-attention; `n_heads / n_kv_heads` query heads share a key and value head (arXiv 2305.13245)."
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = args.n_heads, args.n_kv_heads, args.head_dim
        self.wq = nn.Linear(args.dim, args.n_heads * args.head_dim, bias=False)
        self.wk = nn.Linear(args.dim, args.n_kv_heads * args.head_dim, bias=False)
        self.wv = nn.Linear(args.dim, args.n_kv_heads * args.head_dim, bias=False)
        self.wo = nn.Linear(args.n_heads * args.head_dim, args.dim, bias=False)

    def forward(self, x, table, mask=None, places=None, cache=None, queries=None, query_table=None):
        heads = lambda projected, n: projected.unflatten(-1, (n, self.head_dim))
        if queries is None: queries, query_table = x, table  # every position looks at all up to itself
        q = rotate(heads(self.wq(queries), self.n_heads), query_table)
        k = rotate(heads(self.wk(x), self.n_kv_heads), table)
        q, k, v = (y.transpose(1, 2) for y in (q, k, heads(self.wv(x), self.n_kv_heads)))
        if cache is not None: k, v = (store(buffer, places, new) for buffer, new in zip(cache, (k, v)))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask,
                                             is_causal=mask is None and (cache is None or x.shape[1] > 1),
                                             enable_gqa=self.n_kv_heads != self.n_heads)
        return self.wo(out.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    "w2(silu(w1 x) * w3 x) (SwiGLU, arXiv 2002.05202)."
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.w1 = nn.Linear(args.dim, args.hidden_dim, bias=False)
        self.w2 = nn.Linear(args.hidden_dim, args.dim, bias=False)
        self.w3 = nn.Linear(args.dim, args.hidden_dim, bias=False)

    def forward(self, x): return self.w2(F.silu(self.w1(x)) * self.w3(x))


class TransformerBlock(nn.Module):
    "Attention and feed-forward, each after a norm and added to what came in."
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.attention, self.feed_forward = Attention(args), FeedForward(args)
        self.attention_norm = RMSNorm(args.dim, args.norm_eps)
        self.ffn_norm = RMSNorm(args.dim, args.norm_eps)

    def forward(self, x, table, mask=None, places=None, cache=None, query=None):
        h = self.attention_norm(x)
        if query is None: h = x + self.attention(h, table, mask, places, cache)
        else:  # from `Transformer.query_at`: all positions are read, the output is that of these alone
            at, query_table, mask = query
            x, queries = (y.gather(1, at[..., None].expand(-1, -1, y.shape[-1])) for y in (x, h))
            h = x + self.attention(h, table, mask, places, cache, queries, query_table)
        return h + self.feed_forward(self.ffn_norm(h))


def attention_mask(
    n_new: int,  # tokens in this pass
    start_pos: int,  # tokens already in the cache
    segments: Tensor | None,  # [batch, seq] document number of each position
    device,
) -> Tensor | None:  # true = may be looked at, [n_new, start_pos + n_new] or [batch, 1, seq, seq]
    "The mask that attention needs beyond being causal from position 0; None when that is enough."
    if segments is None and (start_pos == 0 or n_new == 1): return None
    causal = torch.ones(n_new, start_pos + n_new, dtype=torch.bool, device=device).tril(start_pos)
    return causal if segments is None else causal & (segments[:, None, :, None] == segments[:, None, None, :])


class Transformer(nn.Module):
    """A trunk and `n_future_tokens` heads of one block each, side by side on the trunk's output.
    Section 2 of arXiv 2404.19737."""
    def __init__(self, args: ModelArgs):
        super().__init__()
        self.build(args)

    def build(self, args: ModelArgs):
        "Makes the modules; `layers` ends with the block of head 1, `extra_heads` those of heads 2 and up."
        self.args = args
        self.rope = None  # from `positions_table`
        self.tok_embeddings = nn.Embedding(args.vocab_size, args.dim)
        n_extra = args.n_future_tokens - 1
        self.layers = nn.ModuleList(TransformerBlock(args) for _ in range(args.n_layers - n_extra))
        self.extra_heads = nn.ModuleList(TransformerBlock(args) for _ in range(n_extra))
        self.norm = RMSNorm(args.dim, args.norm_eps)
        self.output = nn.Linear(args.dim, args.vocab_size, bias=False)

    def new_cache(self,
        batch_size: int,
        length: int,  # tokens it has room for
        all_heads: bool = False,  # room for the blocks of heads 2 and up as well
    ) -> list:  # per block (keys, values), each [batch, n_kv_heads, length, head_dim]
        """Empty buffers for `trunk`, `head_latents` and `forward`, where a pass writes its keys and values.
        Those of the trunk's blocks come first, then head 1's, then the other heads'."""
        weight, device = self.output.weight, self.output.weight.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        shape = batch_size, self.args.n_kv_heads, length, self.args.head_dim
        n_blocks = len(self.layers) + (len(self.extra_heads) if all_heads else 0)
        return [tuple(torch.zeros(shape, dtype=dtype, device=weight.device) for _ in range(2))
                for _ in range(n_blocks)]

    def positions_table(self, length: int, device) -> Tensor:  # [>= length, 1, 2, head_dim]
        "The turns at positions 0, 1, 2 ..., computed once."
        if self.rope is None or self.rope.device != device or len(self.rope) < length:
            with torch.inference_mode(False):  # so that training may use them too
                positions = torch.arange(max(length, self.args.max_seq_len))
                self.rope = rope_table(positions, self.args.head_dim, self.args.rope_theta).to(device)
        return self.rope

    def prepare_pass(self,
        n_new: int,  # tokens in this pass
        start_pos: int | Tensor,  # position of the first of them; [batch] one for each row
        cache: list | None = None,  # from `new_cache`
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        device=None,  # of the tokens
    ) -> tuple:  # table of turns, mask, places in the cache: as every block takes them
        "Where the tokens of a pass stand, worked out once for all blocks."
        room = None if cache is None else cache[0][0].shape[2]
        if isinstance(start_pos, Tensor):  # a row that runs over the cache is refused by torch
            places = start_pos[:, None] + torch.arange(n_new, device=device)
            mask = torch.arange(room, device=device) <= places[:, None, :, None]
            return self.positions_table(room, device)[places], mask, places
        end = start_pos + n_new
        if end > self.args.max_seq_len:
            raise ValueError(f"{end} tokens in a row; this model reads at most {self.args.max_seq_len}")
        if room is not None and end > room: raise ValueError(f"{end} tokens in a cache with room for {room}")
        if positions is None: table = self.positions_table(end, device)[start_pos:end]
        else: table = self.positions_table(end, device)[positions]
        return table, attention_mask(n_new, start_pos, segments, device), slice(start_pos, end)

    def query_at(self,
        at: Tensor,  # [batch] the one position of the pass whose output is wanted
        n_new: int,  # as given to `prepare_pass`
        start_pos: int | Tensor,
        cache: list,
    ) -> tuple:  # for a block, which then gives [batch, 1, dim]
        "One position of each row, its turn and its mask."
        positions = start_pos + at
        end = cache[0][0].shape[2] if isinstance(start_pos, Tensor) else start_pos + n_new
        mask = torch.arange(end, device=at.device) <= positions[:, None, None, None]
        return at[:, None], self.positions_table(end, at.device)[positions][:, None], mask

    def _run(self, blocks, first, x, start_pos, cache, positions, segments):
        "Blocks one after another; `first` is the place of their buffers in the cache."
        if cache is None and (isinstance(start_pos, Tensor) or start_pos):
            raise ValueError(f"start_pos is {start_pos} without a cache; the tokens before it are needed")
        if cache is not None and (segments is not None or positions is not None):
            raise ValueError("positions and segments are for whole rows; leave the cache out")
        table, mask, places = self.prepare_pass(x.shape[1], start_pos, cache, positions, segments, x.device)
        for i, block in enumerate(blocks):
            if cache is not None: x = block(x, table, mask, places, cache[first + i])
            else: x = block(x, table, mask)
        return x

    def trunk(self,
        tokens: Tensor,  # [batch, seq] token ids
        start_pos: int | Tensor = 0,  # of the first token, or [batch] of each row's; before it: the cache
        cache: list | None = None,  # from `new_cache`
        positions: Tensor | None = None,  # [batch, seq] of each token in its document; None = in the row
        segments: Tensor | None = None,  # [batch, seq] document number of each token; None = one a row
    ) -> Tensor:  # [batch, seq, dim], not normed
        "What all heads start from: the blocks below the heads."
        return self._run(self.layers[:-1], 0, self.tok_embeddings(tokens), start_pos, cache, positions,
                         segments)

    def head_latents(self,
        k0: int,  # 0 = the next token's head
        trunk: Tensor,  # [batch, seq, dim] from `trunk`
        start_pos: int | Tensor = 0,  # as given to `trunk`
        cache: list | None = None,
        positions: Tensor | None = None,  # as given to `trunk`
        segments: Tensor | None = None,  # as given to `trunk`
    ) -> Tensor:  # [batch, seq, dim], normed: times `output` these are the logits
        "The latents of head k0 + 1: its block, then the norm that all heads share."
        if not 0 <= k0 < self.args.n_future_tokens:
            raise ValueError(f"head {k0} of {self.args.n_future_tokens}, counted from 0: there is none")
        block = self.layers[-1] if k0 == 0 else self.extra_heads[k0 - 1]
        return self.norm(self._run([block], len(self.layers) - 1 + k0, trunk, start_pos, cache, positions,
                                   segments))

    def forward(self,
        tokens: Tensor,  # [batch, seq] token ids
        start_pos: int | Tensor = 0,  # as for `trunk`
        return_all_heads: bool = False,
        cache: list | None = None,
    ) -> Tensor:  # [batch, seq, vocab], of all heads [batch, seq, n_future, vocab]
        "Logits of the next token, or of the next n_future tokens."
        context = dict(start_pos=start_pos, cache=cache)
        trunk, n_heads = self.trunk(tokens, **context), self.args.n_future_tokens if return_all_heads else 1
        latents = [self.head_latents(k0, trunk, **context) for k0 in range(n_heads)]
        return self.output(torch.stack(latents, 2) if return_all_heads else latents[0])
