"""Meta's `Tokenizer` over a SentencePiece `tokenizer.model`: text to ids and back, with BOS and EOS."""
from sentencepiece import SentencePieceProcessor


class Tokenizer:
    "The SentencePiece model at `model_path`; `n_words`, `bos_id`, `eos_id`, `pad_id` (-1 = none) are its."
    def __init__(self, model_path: str):
        self.sp_model = SentencePieceProcessor(model_file=str(model_path))
        self.n_words = self.sp_model.vocab_size()
        self.bos_id, self.eos_id = self.sp_model.bos_id(), self.sp_model.eos_id()
        self.pad_id = self.sp_model.pad_id()

    def encode(self,
        s: str,
        bos: bool,  # put BOS before the text
        eos: bool,  # put EOS after it
    ) -> list[int]:
        "The ids of a text."
        return [self.bos_id] * bos + self.sp_model.encode(s) + [self.eos_id] * eos

    def decode(self, t: list[int]) -> str:
        "The text of some ids; BOS and EOS have none."
        return self.sp_model.decode([int(i) for i in t])
