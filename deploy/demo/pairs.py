"""Training pairs, kept on the GPU as padded rows of token ids and augmented there."""

import random

import numpy as np
import torch

MAX_TOKENS = 128
QUERY_PROMPT = ("Instruct: Given a web search query, retrieve relevant passages that answer the "
                "query\nQuery:")


class Pairs:
    """Rows of token ids and the rules that make pairs of them.

    Each description has a short text, a long text, and the short text behind the query prompt.
    """

    def __init__(self, rows, tokenizer, end_of_text):
        self.end = end_of_text
        self.prompt = self._encode(tokenizer, [QUERY_PROMPT])[0][:-1]
        short = self._encode(tokenizer, [row["short"] for row in rows])
        long = self._encode(tokenizer, [row["long"] or row["short"] for row in rows])
        sequences = []
        for row, short_ids, long_ids in zip(rows, short, long):
            for name, ids in (("short_row", short_ids), ("long_row", long_ids),
                              ("query_row", self.prompt + short_ids)):
                row[name] = len(sequences)
                sequences.append(self.cut(ids))
        self.sequences = sequences
        padded = np.full((len(sequences), MAX_TOKENS), self.end, dtype=np.int32)
        for i, ids in enumerate(sequences):
            padded[i, :len(ids)] = ids
        self.ids = torch.from_numpy(padded).cuda()
        self.lengths = torch.tensor([len(ids) for ids in sequences]).cuda()

    @staticmethod
    def _encode(tokenizer, texts):
        return [encoding.ids for encoding in tokenizer.encode_batch(texts)]

    def cut(self, ids):
        return ids if len(ids) <= MAX_TOKENS else ids[:MAX_TOKENS - 1] + [self.end]

    @staticmethod
    def draw(by_language):
        """Row numbers of one pair from the languages of one description."""
        english = by_language["en"]
        others = [language for language in by_language if language != "en"]
        kind = random.random()
        if others and kind < 0.5:  # Across languages.
            other, which = by_language[random.choice(others)], random.random()
            if which < 0.35:
                return other["short_row"], english["short_row"]
            if which < 0.55:
                return other["long_row"], english["long_row"]
            return other[random.choice(("query_row", "short_row"))], english["long_row"]
        if kind < 0.9:
            return english[random.choice(("query_row", "short_row"))], english["long_row"]
        return english["long_row"], english["long_row"]  # Two different crops of one text.

    def augmented(self, rows, drop, crop):
        """(ids, lengths) of the rows: tokens dropped at random, and of some only a stretch kept."""
        ids, lengths = self.ids[rows].long(), self.lengths[rows]
        n, at = len(rows), torch.arange(MAX_TOKENS, device="cuda")[None]
        # The prompt stays whole.
        prompt = torch.tensor(self.prompt, device="cuda")
        prompt_tokens = (ids[:, :len(prompt)] == prompt).all(1) * len(prompt)
        share = drop * (torch.rand(n, 1, device="cuda") < 0.5) * torch.rand(n, 1, device="cuda")
        keep = (torch.rand(n, MAX_TOKENS, device="cuda") > share) | (at < prompt_tokens[:, None])
        cropped = (torch.rand(n, device="cuda") < crop) & (lengths > 24)
        stretch = (lengths * (0.35 + 0.5 * torch.rand(n, device="cuda"))).long()
        start = ((lengths - 1 - stretch).clamp(min=0) * torch.rand(n, device="cuda")).long()
        inside = (at >= start[:, None]) & (at < (start + stretch)[:, None])
        keep &= torch.where(cropped[:, None], inside, torch.ones_like(keep))
        text = at < (lengths - 1)[:, None]
        keep &= text
        keep |= ~keep.any(1)[:, None] & text  # Never nothing at all.
        order = torch.sort((~keep).int(), dim=1, stable=True).indices
        kept = keep.sum(1)
        out = torch.where(at < kept[:, None], ids.gather(1, order), torch.full_like(ids, self.end))
        return out, kept + 1
