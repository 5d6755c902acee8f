#!/usr/bin/env python3
"""Writes nfc_unicode_9.json beside this script: what Unicode 9.0 says about composition.

The reference normalises with the tables of Unicode 9.0. They are read here from whatever ICU is
installed (version 58 or later), by keeping only the code points whose age is 9.0 or less: Unicode's
stability policy forbids any change of the others' normalisation. Keys of the result:
  combining_classes  [first, last, class] for each run of one class other than 0
  decompositions     {code point: [first, second or 0]}, canonical, one step, without Hangul
  not_composed       the code points whose decomposition is not undone by composition
"""
import ctypes
import ctypes.util
import json
import pathlib
import re

HERE = pathlib.Path(__file__).resolve().parent
LAST = 0x10FFFF


class Icu:
    def __init__(self):
        name = ctypes.util.find_library("icuuc")
        self.version = re.search(r"\.so\.(\d+)", name).group(1)
        self.library = ctypes.CDLL(name)
        status = ctypes.c_int(0)
        get_nfc = self.function("unorm2_getNFCInstance", ctypes.c_void_p)
        self.nfc = ctypes.c_void_p(get_nfc(ctypes.byref(status)))
        self.u_char_age = self.function("u_charAge", None)
        self.combining_class = self.function("u_getCombiningClass", ctypes.c_uint8)
        self.raw_decomposition = self.function("unorm2_getRawDecomposition", ctypes.c_int32)
        self.compose_pair = self.function("unorm2_composePair", ctypes.c_int32)

    def function(self, name, result):
        found = getattr(self.library, f"{name}_{self.version}")
        found.restype = result
        return found

    def age(self, code_point):
        version = (ctypes.c_uint8 * 4)()
        self.u_char_age(code_point, version)
        return tuple(version)

    def decomposition(self, code_point):
        buffer = (ctypes.c_uint16 * 16)()
        status = ctypes.c_int(0)
        size = self.raw_decomposition(self.nfc, code_point, buffer, 16, ctypes.byref(status))
        if size < 0:
            return None
        text = bytes(buffer)[:2 * size].decode("utf-16-le")
        return [ord(text[0]), ord(text[1]) if len(text) > 1 else 0]


def is_hangul_syllable(code_point):
    return 0xAC00 <= code_point <= 0xD7A3


def main():
    icu = Icu()
    classes, decompositions, not_composed = [], {}, []
    for code_point in range(LAST + 1):
        if icu.age(code_point) == (0, 0, 0, 0) or icu.age(code_point) > (9, 0, 0, 0):
            continue
        combining = icu.combining_class(code_point)
        if combining:
            if classes and classes[-1][1] == code_point - 1 and classes[-1][2] == combining:
                classes[-1][1] = code_point
            else:
                classes.append([code_point, code_point, combining])
        parts = None if is_hangul_syllable(code_point) else icu.decomposition(code_point)
        if parts:
            decompositions[code_point] = parts
            if not parts[1] or icu.compose_pair(icu.nfc, parts[0], parts[1]) != code_point:
                not_composed.append(code_point)
    result = {"combining_classes": classes, "decompositions": decompositions,
              "not_composed": not_composed}
    text = ",\n".join(f'"{key}": {json.dumps(value, separators=(",", ":"))}'
                      for key, value in result.items())
    (HERE / "nfc_unicode_9.json").write_text("{" + text + "}\n")
    print(len(classes), len(decompositions), len(not_composed))


if __name__ == "__main__":
    main()
