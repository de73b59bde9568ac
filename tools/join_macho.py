#!/usr/bin/env python3
"""Joins programs for several processors into one universal Mach-O file: tools/join_macho.py OUT PROGRAM...

The form (<mach-o/fat.h>): a header in big-endian words, an entry for each processor, then the programs as they are, each
at a multiple of its processor's page size. Signatures cover one program each, so they stay valid.
"""
import os
import struct
import sys

PAGE_BITS = {0x0100000C: 14, 0x01000007: 12}  # arm64, x86_64


def main():
    out, paths = sys.argv[1], sys.argv[2:]
    if not paths:
        sys.exit("usage: tools/join_macho.py OUT PROGRAM...")
    programs = []
    for path in paths:
        with open(path, "rb") as f:
            data = f.read()
        magic, cpu, sub = struct.unpack_from("<III", data)
        if magic != 0xFEEDFACF or cpu not in PAGE_BITS:
            sys.exit(f"{path}: no Mach-O program for arm64 or x86_64")
        programs.append((PAGE_BITS[cpu], cpu, sub, data))
    programs.sort(key=lambda p: p[:2])  # the least alignment first, so that little is lost between them
    at, entries, body = 8 + 20 * len(programs), b"", b""
    for bits, cpu, sub, data in programs:
        gap = -at % (1 << bits)
        body += bytes(gap) + data
        entries += struct.pack(">IIIII", cpu, sub, at + gap, len(data), bits)
        at += gap + len(data)
    with open(out + ".new", "wb") as f:
        f.write(struct.pack(">II", 0xCAFEBABE, len(programs)) + entries + body)
    os.chmod(out + ".new", 0o755)
    os.replace(out + ".new", out)


main()
