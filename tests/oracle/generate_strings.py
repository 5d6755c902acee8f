#!/usr/bin/env python3
"""Prints strings on which tokenizers go wrong, one JSON string a line, from a seed.

    generate_strings.py SEED COUNT [--longest PARTS]

Each is put together from fragments of several kinds: contractions, digits, line breaks and white
space before words, emoji with joiners, combining marks in and out of order, pairs that compose,
Hangul syllables and their parts, right-to-left text, private use and unassigned code points, special
tokens whole and in part, long runs, and code points drawn from everywhere.
"""
import argparse
import json
import random
import unicodedata

WORDS = ["the", "quick", "Brown", "FOX", "don", "isn", "we", "o", "Tokenizer", "x1", "naïve", "straße",
         "Москва", "слово", "είναι", "שלום", "مرحبا", "हिन्दी", "ไทย", "日本語", "中文", "字符", "한국어", "ﬁ",
         "İstanbul", "ǅ", "ª", "ʰ", "def", "return", "http", "foo_bar", "camelCase"]
CONTRACTIONS = ["'s", "'S", "'t", "'re", "'RE", "'ve", "'m", "'ll", "'LL", "'Ll", "'d", "'ſ", "'",
                "’s", "''", "'l", "'r", "'v", "'e", "'sup", "o'clock", "'K", "'ßs"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\r", "\n\n", " \n", "\n ", "\t\t", "\v", "\f",
          "\u0085", "\u00a0", "\u1680", "\u2003", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000",
          "\u200b", "\ufeff", "\u180e", "\x1c", "\x1f", " " * 17, "\n" * 9, " " * 40]
SYMBOLS = ["!", "?", ".", ",", "...", "—", "(", ")", "[", "{", "}", "==", "!=", "->", "//", "/*",
           "#", "@", "$", "€", "°", "«", "»", "、", "。", "！", "\x00", "\x7f", "\u00ad", "_", "-", "``"]
NUMBERS = ["0", "7", "42", "2024", "3.14", "1,000", "½", "²", "Ⅳ", "٣", "१", "〇", "㊿", "𝟘", "₁"]
EMOJI = ["😀", "👩‍👩‍👧‍👦", "👍🏽", "🇩🇪", "❤️", "☃", "🏳️‍🌈", "\u200d", "\ufe0f", "\U000e0067"]
HANGUL = ["한", "글", "가", "각", "\u1100", "\u1161", "\u11a8", "\u1100\u1161", "\u1112\u1161\u11ab",
          "가\u11a8", "각\u11a8", "\ua960", "\ud7b0", "\ud7cb", "\u11a7"]
MARKS = ["\u0301", "\u0300", "\u0327", "\u0328", "\u0323", "\u0307", "\u0308", "\u0345", "\u05b4",
         "\u064b", "\u0651", "\u093c", "\u094d", "\u0e38", "\u0e48", "\u0f71", "\u0f72", "\u3099",
         "\u20d0", "\u20d2", "\u1ab0", "\u1abf", "\u0c3c", "\u1df6", "\U0001d165", "\u034f", "\u0334"]
COMPOSING = ["e\u0301", "a\u0323\u0302", "o\u031b\u0301", "A\u030a", "\u212b", "\u2126", "\u0344", "\u0958",
             "\u2adc", "\ufb1d", "\uf900", "\U0002f800", "\u1e9b\u0323", "\u03b1\u0345\u0301", "か\u3099",
             "\U000105c9", "\U000105d2\u0307", "\u0cc6\u0cc2\u0cd5", "\U000110ab\u0301", "\u1b05\u1b35", "q\u0307\u0323"]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>",
           "</tool_response>", "<|fim_pad|>", "<|", "|>", "<|im_", "end|>", "<", "</s>", "<s>", "<unk>",
           "<|endoftext", "<<|im_end|>>", "<|im_end|><|im_end|>", "<THINK>", "＜|im_end|>"]
ODD = ["\ue000", "\uf8ff", "\U000f0000", "\U0010fffd", "\u0378", "\u0380", "\U0003ffff", "\ufffe",
       "\uffff", "\ufffd", "\u202e", "\u200f", "\U0001e943", "\U00012000", "\U00018000", "\U000323af",
       "\U00010d4a", "\u1c89", "\ua7cb", "\U000105c0", "\U00016d40", "\U0001ccf0"]
KINDS = [WORDS, CONTRACTIONS, SPACES, SYMBOLS, NUMBERS, EMOJI, HANGUL, MARKS, COMPOSING, SPECIAL, ODD]


def any_code_point(rng):
    first, last = rng.choice([(0x20, 0x24F), (0x300, 0x1FFF), (0x2000, 0x33FF), (0x3400, 0x9FFF),
                              (0xA000, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x1FFFF),
                              (0x20000, 0x10FFFF)])
    return chr(rng.randint(first, last))


def run(rng):
    unit = rng.choice([rng.choice(rng.choice(KINDS)), any_code_point(rng), "ab", "aab", "zq"])
    return unit * rng.choice([2, 3, 7, 16, 33, 70])


def letters(rng):
    alphabet = rng.choice(["ab", "etaoin", "qxzjk", "абв", "的一是不了人", "あいう", "กขค", "ابت"])
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 90)))


def fragment(rng, favourite):
    chance = rng.random()
    if chance < 0.45:
        return rng.choice(favourite)
    if chance < 0.80:
        return rng.choice(rng.choice(KINDS))
    if chance < 0.90:
        return any_code_point(rng)
    return letters(rng) if chance < 0.96 else run(rng)


def string(rng, longest):
    favourite = rng.choice(KINDS)
    text = "".join(fragment(rng, favourite) for _ in range(rng.randint(1, longest)))
    form = rng.random()
    if form < 0.05:
        return unicodedata.normalize("NFD", text)
    if form < 0.08:
        return unicodedata.normalize("NFC", text)
    return text.upper() if form < 0.10 else text


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("seed", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--longest", type=int, default=14)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    for _ in range(arguments.count):
        print(json.dumps(string(rng, arguments.longest)))


if __name__ == "__main__":
    main()
