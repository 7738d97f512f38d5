"""Sizes and measurements of scripts/bench_gpu.py: a 7B policy with four heads, a 2.7B critic."""
import time
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import torch

from wmtp.data.collate import Batch
from wmtp.models.mtp import MetaLlamaMTPAdapter, MetaLlamaMTPConfig

PEAK = {'A100': 312e12, 'H100': 989e12, 'H200': 989e12} # FLOP/s of the tensor cores in bfloat16
FLOP_PER_TOKEN = 30.7e9 # LoRA on 7B, rows of 2,048: forward, and backward without gradients of frozen weights


@dataclass
class Bench:
    "On what, and how large."
    device: torch.device
    tiny: bool

    @property
    def on_gpu(self): return self.device.type == 'cuda'

    @property
    def config(self):
        "The policy's sizes."
        small = dict(dim=32, n_layers=5, n_heads=2, hidden_dim=64, vocab_size=64, max_seq_len=64)
        return MetaLlamaMTPConfig(n_future_tokens=4, **(small if self.tiny else {}))

    @property
    def backbone(self):
        "The critic's and the reference's: vocabulary, width, blocks, heads, feed-forward width."
        return (64, 32, 2, 2, 64) if self.tiny else (32000, 2560, 32, 20, 6912)

    def tokens(self, n): return n // 128 if self.tiny else n

    def policy(self, dtype=torch.bfloat16):
        "A random policy, made on the device."
        with self.making(dtype): return MetaLlamaMTPAdapter(self.config)

    @contextmanager
    def making(self, dtype):
        "Modules get their numbers on the device and in this dtype."
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with self.device: yield
        finally: torch.set_default_dtype(before)

    def batch(self, n_tokens):
        "Rows of full length at random; the first quarter of each is its prompt."
        n_tokens, length = self.tokens(n_tokens), self.tokens(2048)
        g = torch.Generator().manual_seed(0)
        ids = torch.randint(self.config.vocab_size, (n_tokens // length, length), generator=g)
        labels = ids.clone()
        labels[:, :length // 4] = -100
        return Batch(ids, labels, torch.ones_like(ids), torch.ones(len(ids)), torch.ones(len(ids)).bool())

    def wait(self):
        if self.on_gpu: torch.cuda.synchronize()

    def timed(self, work, warm=3, n=10, tokens=None):
        "Median milliseconds of a call, its peak in GiB, tokens a second and their share of the peak."
        if self.tiny: warm, n = 1, 1
        for _ in range(warm): work()
        self.wait()
        if self.on_gpu: torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(n):
            began = time.perf_counter()
            work()
            self.wait()
            seconds.append(time.perf_counter() - began)
        numbers = {'ms': round(1e3 * median(seconds), 3)}
        if self.on_gpu: numbers['peak_gib'] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        if tokens: numbers['tokens_per_s'] = round(self.tokens(tokens) / median(seconds), 1)
        return numbers

    def share_of_peak(self, numbers):
        "The same with the share of the tensor cores that a step of LoRA uses."
        name = torch.cuda.get_device_name(self.device) if self.on_gpu else ''
        peak = next((flops for kind, flops in PEAK.items() if kind in name), None)
        share = peak and round(numbers['tokens_per_s'] * FLOP_PER_TOKEN / peak, 3)
        return numbers | {'share_of_peak': share}
