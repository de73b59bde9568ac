#!/usr/bin/env python3
"""Writes src/tokenizer/unicode_tables.c: which characters are letters, numbers and white space.

    python3 tools/unicode_tables.py > src/tokenizer/unicode_tables.c

Needs tokenizers and tiktoken (PyPI). The classes are what \\p{L}, \\p{N} and \\s match in the regular
expression engines of these two libraries, asked code point by code point: a pre-tokenizer has to agree
with them, not with the newest Unicode. The script stops if the two differ. (tokenizers 0.23 and tiktoken
0.14: Unicode 16; they agree on every code point.)
"""
import sys

import tiktoken
from tokenizers import Regex, pre_tokenizers

POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]
STEP = 4096


def by_tokenizers(pattern):
    split = pre_tokenizers.Split(Regex(pattern), "removed", invert=True)
    found = set()
    for i in range(0, len(POINTS), STEP):
        for text, _ in split.pre_tokenize_str("".join(map(chr, POINTS[i : i + STEP]))):
            found.update(map(ord, text))
    return found


def by_tiktoken(pattern):
    coder = tiktoken.Encoding("probe", pat_str=pattern, special_tokens={},
                              mergeable_ranks={bytes([i]): i for i in range(256)})
    found = set()
    for i in range(0, len(POINTS), STEP):
        found.update(map(ord, bytes(coder.encode_ordinary("".join(map(chr, POINTS[i : i + STEP])))).decode()))
    return found


def rows(values, per_row, width):
    for i in range(0, len(values), per_row):
        print("    " + ", ".join(f"{v:{width}d}" for v in values[i : i + per_row]) + ",")


def main():
    classes = bytearray(0x110000)
    for value, pattern in ((1, r"\p{L}"), (2, r"\p{N}"), (3, r"\s")):
        found = by_tokenizers(pattern)
        if found != by_tiktoken(pattern):
            sys.exit(f"tokenizers and tiktoken differ on {pattern}")
        for c in found:
            assert classes[c] == 0
            classes[c] = value
    blocks, index = [], []
    for i in range(0, 0x110000, 256):
        packed = bytes(classes[j] | classes[j + 1] << 2 | classes[j + 2] << 4 | classes[j + 3] << 6
                       for j in range(i, i + 256, 4))
        if packed not in blocks:
            blocks.append(packed)
        index.append(blocks.index(packed))
    assert len(blocks) <= 256
    print("/* unicode_tables.c - written by tools/unicode_tables.py; do not edit. Classes of unicode.h, two bits a")
    print(" * character, in blocks of 256 characters that are stored once. */")
    print('#include "tokenizer/unicode.h"\n')
    print("const uint8_t sill__unicode_index[0x1100] = {")
    rows(index, 24, 3)
    print("};\n")
    print(f"const uint8_t sill__unicode_blocks[{len(blocks)}][64] = {{")
    for b in blocks:
        print("    {" + ", ".join(map(str, b)) + "},")
    print("};\n")
    print("const uint8_t sill__unicode_ascii[256] = {")
    rows(list(classes[:128]) + [4] * 128, 24, 1)
    print("};")


main()
