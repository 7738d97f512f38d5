"""Tokens after a prompt, one at a time, by the next-token head and a cache of keys and values."""
import torch
from torch import Tensor


def sample_top_p(
    probs: Tensor,  # [batch, vocab]
    p: float,  # in (0, 1]
    generator: torch.Generator | None = None,
) -> Tensor:  # [batch] token ids
    "A sample from the smallest set of most probable tokens that reaches `p` together (arXiv 1904.09751)."
    ordered, tokens = probs.sort(dim=-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    sampled = torch.multinomial(ordered.where(before < p, 0.), 1, generator=generator)
    return tokens.gather(-1, sampled)[:, 0]


class Llama:
    "A model in evaluation mode, and its tokenizer."
    def __init__(self, model, tokenizer):
        self.model, self.tokenizer = model, tokenizer

    @torch.inference_mode()
    def generate(self,
        prompt_tokens: list[list[int]],  # one prompt or more, of any lengths above 0
        max_gen_len: int,  # tokens to add to each, at most
        temperature: float = .6,  # 0 = the most probable token
        top_p: float = .9,  # share of the probability that is drawn from
        generator: torch.Generator | None = None,  # None = torch's global one
    ) -> list[list[int]]:  # what follows each prompt, up to EOS, which is left out
        "Continues all prompts together; with temperature 0 a row is what it would be alone, rounding apart."
        lengths, longest = [len(prompt) for prompt in prompt_tokens], self.model.args.max_seq_len
        if not lengths or not min(lengths):
            raise ValueError("generate was given no prompt or an empty one; begin each with BOS")
        if max(lengths) > longest:
            raise ValueError(f"a prompt of {max(lengths)} tokens; this model reads at most {longest}")
        width, device = min(longest, max(lengths) + max_gen_len), self.model.output.weight.device
        padded = [[*prompt, *[0] * (width - len(prompt))] for prompt in prompt_tokens]
        tokens, starts = torch.tensor(padded, device=device), torch.tensor(lengths, device=device)
        ended = torch.zeros(len(lengths), dtype=torch.bool, device=device)
        cache, seen = self.model.new_cache(len(lengths), width), 0
        for at in range(min(lengths), width):  # a longer prompt overrules what is sampled in its places
            context = {'start_pos': seen, 'cache': cache}
            latents = self.model.head_latents(0, self.model.trunk(tokens[:, seen:at], **context), **context)
            logits, seen = self.model.output(latents[:, -1]).float(), at
            if temperature > 0: new = sample_top_p((logits / temperature).softmax(-1), top_p, generator)
            else: new = logits.argmax(-1)
            tokens[:, at] = torch.where(at < starts, tokens[:, at], new)
            ended |= (at >= starts) & (tokens[:, at] == self.tokenizer.eos_id)
            if ended.all(): break
        answers = [row[n:n + max_gen_len] for n, row in zip(lengths, tokens.tolist())]
        return [row[:row.index(self.tokenizer.eos_id)] if self.tokenizer.eos_id in row else row
                for row in answers]
