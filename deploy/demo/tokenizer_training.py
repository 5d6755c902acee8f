"""The demo model's tokenizer: the pipeline of Qwen3's, with a vocabulary of its own."""

import collections

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        processors, trainers)

VOCABULARY = 16_000
ROWS_OF_A_LANGUAGE_MAX = 20_000
LONG_CHARACTERS_MAX = 600
END_OF_TEXT = "<|endoftext|>"
SPECIAL = (END_OF_TEXT, "<|im_start|>", "<|im_end|>")
# The split pattern of Qwen's tokenizers: a fact of the format, since the ids depend on it.
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def byte_level(kind):
    return kind(add_prefix_space=False, trim_offsets=False, use_regex=False)


def train_tokenizer(rows, vocabulary=VOCABULARY):
    """A byte-level BPE of the corpus' rows, no language with more than its share."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(SPLIT), "isolated"), byte_level(pre_tokenizers.ByteLevel)])
    tokenizer.decoder = byte_level(decoders.ByteLevel)

    seen, texts = collections.Counter(), []
    for row in rows:
        seen[row["lang"]] += 1
        if seen[row["lang"]] <= ROWS_OF_A_LANGUAGE_MAX:
            texts.append(row["short"] + "\n" + row["long"][:LONG_CHARACTERS_MAX])
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False, special_tokens=[]))

    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    end = tokenizer.token_to_id(END_OF_TEXT)
    tokenizer.post_processor = processors.Sequence([
        byte_level(processors.ByteLevel),
        processors.TemplateProcessing(single=f"$A {END_OF_TEXT}", pair=f"$A $B {END_OF_TEXT}",
                                      special_tokens=[(END_OF_TEXT, end)])])
    return tokenizer
