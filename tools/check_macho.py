#!/usr/bin/env python3
"""Checks a program for macOS as far as that can be done without a Mac: tools/check_macho.py [--min 13.0] [--stub FILE] PROGRAM

What is wanted are the rules of the kernel (its loader), of dyld's validation of main programs in its strictest form (that
of programs built with the newest SDK) and of code signing, and what this project promises: a program for arm64, x86_64 or
both, for macOS MIN and later, position independent, that needs libSystem alone and nothing in it that is not in its stub.
Prints PASS and FAIL lines, needs no packages, and knows nothing of how the program was made.

Sources of the forms: <mach-o/loader.h>, <mach-o/fat.h>, <mach-o/nlist.h>, <kern/cs_blobs.h>, and dyld's opcodes.
"""
import argparse
import hashlib
import re
import struct
import sys

CPUS = {0x0100000C: ("arm64", 0, 14), 0x01000007: ("x86_64", 3, 12)}  # name, subtype, page bits
LC_REQ_DYLD = 0x80000000
SYMTAB, DYSYMTAB, LOAD_DYLIB, LOAD_DYLINKER, SEGMENT_64, UUID = 0x2, 0xB, 0xC, 0xE, 0x19, 0x1B
CODE_SIGNATURE, DYLD_INFO_ONLY, FUNCTION_STARTS, MAIN = 0x1D, 0x22 | LC_REQ_DYLD, 0x26, 0x28 | LC_REQ_DYLD
DATA_IN_CODE, SOURCE_VERSION, BUILD_VERSION = 0x29, 0x2A, 0x32
SIZES = {SYMTAB: 24, DYSYMTAB: 80, UUID: 24, CODE_SIGNATURE: 16, DYLD_INFO_ONLY: 48, FUNCTION_STARTS: 16, MAIN: 24, DATA_IN_CODE: 16,
         SOURCE_VERSION: 16}
ONCE = set(SIZES) | {LOAD_DYLINKER, BUILD_VERSION}
READ, WRITE, EXECUTE = 1, 2, 4
PERMISSIONS = {"__PAGEZERO": 0, "__TEXT": READ | EXECUTE, "__DATA_CONST": READ | WRITE, "__DATA": READ | WRITE, "__LINKEDIT": READ}
LIBRARY = "/usr/lib/libSystem.B.dylib"


class Wrong(Exception):
    """What is wrong with the file."""


def must(condition, why):
    if not condition:
        raise Wrong(why)


def text(data):
    return data.split(b"\0", 1)[0].decode()


def version(word):
    return f"{word >> 16}.{word >> 8 & 255}"


class Segment:
    def __init__(self, command):
        self.name = text(command[8:24])
        (self.address, self.size, self.at, self.bytes, self.most, self.first, n, self.flags) = struct.unpack_from("<4Q4I", command, 24)
        must(len(command) == 72 + 80 * n, f"segment {self.name}: the size of its command does not fit {n} sections")
        self.sections = []
        for i in range(n):
            o = 72 + 80 * i
            address, size, at, align = struct.unpack_from("<QQII", command, o + 32)
            kind = struct.unpack_from("<I", command, o + 64)[0]
            self.sections.append((text(command[o:o + 16]), address, size, at, align, kind))


class Program:
    """One processor's program: its commands, taken apart."""

    def __init__(self, data):
        must(len(data) >= 32, "too short")
        self.data = data
        magic, cpu, sub, kind, n, size, self.flags, _ = struct.unpack_from("<8I", data)
        must(magic == 0xFEEDFACF, "no 64-bit Mach-O")
        must(cpu in CPUS, f"processor {cpu:#x} is neither arm64 nor x86_64")
        self.cpu, self.sub = cpu, sub
        self.arch, want, self.page_bits = CPUS[cpu]
        must(sub & 0xFFFFFF == want, f"processor subtype {sub:#x}")
        must(kind == 2, f"file type {kind} is not a program")
        must(32 + size <= len(data), "the load commands go on behind the end of the file")
        self.commands_end = 32 + size
        self.commands, at = [], 32
        for i in range(n):
            must(at + 8 <= self.commands_end, f"load command {i} goes on behind the end of the load commands")
            cmd, length = struct.unpack_from("<II", data, at)
            must(length >= 8 and length % 8 == 0 and at + length <= self.commands_end, f"load command {i} has a size of {length}")
            must(length == SIZES.get(cmd, length), f"load command {i} ({cmd:#x}) has a size of {length}")
            self.commands.append((cmd, data[at:at + length]))
            at += length
        must(at == self.commands_end, "the load commands are shorter than the header says")
        known = ONCE | {SEGMENT_64, LOAD_DYLIB}
        for cmd, _ in self.commands:
            must(cmd in known, f"unexpected load command {cmd:#x}")
            must(cmd not in ONCE or len(self.all(cmd)) == 1, f"load command {cmd:#x} is there twice")
        self.segments = [Segment(c) for c in self.all(SEGMENT_64)]

    def all(self, cmd):
        return [c for k, c in self.commands if k == cmd]

    def one(self, cmd, why):
        found = self.all(cmd)
        must(found, why)
        return found[0]

    def words(self, cmd, why):
        c = self.one(cmd, why)
        return struct.unpack_from(f"<{(len(c) - 8) // 4}I", c, 8)

    def segment(self, name):
        found = [s for s in self.segments if s.name == name]
        must(len(found) == 1, f"{len(found)} segments {name}")
        return found[0]


def check_segments(p):
    """The kernel's and dyld's rules for segments and sections."""
    page, end = 1 << p.page_bits, len(p.data)
    names = [s.name for s in p.segments]
    must(names == [n for n in PERMISSIONS if n in names], f"segments {' '.join(names)}: others, or in another order, than expected")
    for s in p.segments:
        must(s.at % page == 0 and s.address % page == 0, f"{s.name} is not at a multiple of a page of {page} bytes")
        must(s.at + s.bytes <= end, f"{s.name} goes on behind the end of the file")
        must(s.bytes <= s.size, f"{s.name} has more bytes in the file than in memory")
        must(s.first == PERMISSIONS[s.name], f"{s.name} has the permissions {s.first}")
        must(s.most & s.first == s.first and not (s.most & WRITE and s.most & EXECUTE), f"{s.name} may get the permissions {s.most}")
        must(s.name != "__DATA_CONST" or s.flags & 0x10, "__DATA_CONST lacks SG_READ_ONLY")
        for name, address, size, at, align, kind in s.sections:
            must(s.address <= address and address + size <= s.address + s.size, f"section {name} is not inside {s.name}")
            must(address % (1 << align) == 0, f"section {name} is not aligned to {1 << align} bytes")
            kind &= 0xFF
            if kind in (0x9, 0xA, 0x13):  # initializers, terminators, descriptors of thread-local variables
                must(address % 8 == 0 and size % (24 if kind == 0x13 else 8) == 0, f"section {name} does not hold whole, aligned pointers")
                must(kind != 0x13 or p.flags & 0x800000, "thread-local variables, which the header does not announce")
            zero = kind in (1, 0xC, 0x12)
            must(zero or (at - s.at == address - s.address and at + size <= s.at + s.bytes), f"section {name} is elsewhere in the file")
    for a, b in zip(p.segments, p.segments[1:]):
        must(a.address + a.size <= b.address, f"{a.name} and {b.name} overlap in memory, or are out of order")
        must(a.at + a.bytes <= b.at or not a.bytes, f"{a.name} and {b.name} overlap in the file, or are out of order")
    zero, code = p.segment("__PAGEZERO"), p.segment("__TEXT")
    must(zero.address == 0 and zero.size >= 1 << 32 and zero.bytes == 0, "__PAGEZERO does not keep the lowest 4 GiB")
    must(code.at == 0 and code.bytes >= p.commands_end, "__TEXT does not begin with the load commands")
    must(code.sections and code.sections[0][3] >= p.commands_end, "the first section overlaps the load commands")
    link = p.segment("__LINKEDIT")
    must(link.at + link.bytes == end, "__LINKEDIT does not end with the file")


def check_commands(p, least):
    """What the program asks of the system."""
    must(p.flags & 0x200000, "not position independent (MH_PIE)")
    must(p.flags & 0x85 == 0x85 and not p.flags & 0x80000000, f"header flags {p.flags:#x}")
    must(not p.flags & 0x20000, "its stack would be executable")
    platform, minimum, sdk, _ = p.words(BUILD_VERSION, "no LC_BUILD_VERSION")[:4]
    must(platform == 1, f"platform {platform} is not macOS")
    must(version(minimum) == least and minimum & 255 == 0, f"for macOS {version(minimum)} and later, not {least}")
    must(sdk >= minimum, f"built with SDK {version(sdk)}")
    libraries = p.all(LOAD_DYLIB)
    names = [text(c[struct.unpack_from("<I", c, 8)[0]:]) for c in libraries]
    must(names == [LIBRARY], f"libraries {' '.join(names) or 'none'}; only {LIBRARY} is meant to be needed")
    must(struct.unpack_from("<I", libraries[0], 20)[0] <= 1 << 16, "asks for a compatibility version of libSystem above 1.0")
    dyld = p.one(LOAD_DYLINKER, "no LC_LOAD_DYLINKER")
    must(text(dyld[struct.unpack_from("<I", dyld, 8)[0]:]) == "/usr/lib/dyld", "another dynamic linker than /usr/lib/dyld")
    must(any(p.one(UUID, "no LC_UUID; macOS 26 does not start such a program")[8:]), "LC_UUID is all zeros")
    entry = struct.unpack_from("<Q", p.one(MAIN, "no LC_MAIN"), 8)[0]
    code = next((s for s in p.segment("__TEXT").sections if s[0] == "__text"), None)
    must(code and code[3] <= entry < code[3] + code[2], "the entry point is outside of __text")


def check_linkedit(p):
    """Tables for dyld: inside __LINKEDIT, aligned, one behind the other."""
    sym, n_sym, strings, n_strings = p.words(SYMTAB, "no LC_SYMTAB")
    dysym = p.words(DYSYMTAB, "no LC_DYSYMTAB")
    info = p.words(DYLD_INFO_ONLY, "no LC_DYLD_INFO_ONLY (chained fixups are not read here)")
    must(dysym[0] == 0 and dysym[2] == dysym[1] and dysym[4] == dysym[2] + dysym[3] and n_sym == dysym[4] + dysym[5],
         "the parts of the symbol table do not follow one another")
    must(dysym[15] == 0 and dysym[17] == 0, "relocations beside the opcodes")
    parts = [("symbols", 8, sym, 16 * n_sym), ("names", 1, strings, n_strings), ("indirect symbols", 4, dysym[12], 4 * dysym[13])]
    for i, name in enumerate(("rebase", "bind", "weak bind", "lazy bind", "exports")):
        parts.append((name, 8, info[2 * i], info[2 * i + 1]))
    for cmd, name, align in ((FUNCTION_STARTS, "function starts", 8), (DATA_IN_CODE, "data in code", 8), (CODE_SIGNATURE, "signature", 16)):
        if p.all(cmd):
            parts.append((name, align, *p.words(cmd, "")))
    link = p.segment("__LINKEDIT")
    end, before = link.at, "the beginning of __LINKEDIT"
    for name, align, at, size in sorted((x for x in parts if x[3]), key=lambda x: x[2]):
        must(at >= end, f"{name} overlaps {before}")
        must(at % align == 0, f"{name} is at {at}, no multiple of {align}")
        must(at + size <= link.at + link.bytes, f"{name} goes on behind __LINKEDIT")
        end, before = at + size, name


def leb(data, at, signed=False):
    value = shift = 0
    while True:
        must(at < len(data) and shift < 70, "a number in the opcodes does not end")
        b = data[at]
        at += 1
        value |= (b & 127) << shift
        shift += 7
        if not b & 128:
            return (value - (1 << shift) if signed and b & 64 else value), at


def fixups(p, code, is_bind, is_lazy=False):
    """(symbol or None, library, segment, offset, type) of each pointer that dyld fills in."""
    at, kind, segment, offset, symbol, library, out = 0, 1 if is_lazy else None, None, 0, None, None, []

    def put(times, skip):
        nonlocal offset
        must(segment is not None and kind is not None and (symbol is not None or not is_bind), "opcodes that name no place or symbol")
        must(times <= 1 << 20, f"{times} pointers at once")
        for _ in range(times):
            out.append((symbol, library, segment, offset, kind))
            offset += 8 + skip

    while at < len(code):
        op, low = code[at] & 0xF0, code[at] & 15
        at += 1
        if op == 0:
            if not is_lazy:
                must(not any(code[at:]), "opcodes go on behind their end")
                break
        elif is_bind and op == 0x10: library = low
        elif is_bind and op == 0x20: library, at = leb(code, at)
        elif is_bind and op == 0x30: library = low - 16 if low else 0
        elif is_bind and op == 0x40:
            symbol = text(code[at:])
            at += len(symbol) + 1
        elif op == (0x50 if is_bind else 0x10): kind = low
        elif is_bind and op == 0x60: _, at = leb(code, at, True)
        elif op == (0x70 if is_bind else 0x20): segment, (offset, at) = low, leb(code, at)
        elif op == (0x80 if is_bind else 0x30):
            add, at = leb(code, at)
            offset = (offset + add) % 2**64
        elif not is_bind and op == 0x40: offset += 8 * low
        elif op == 0x90 and is_bind: put(1, 0)
        elif op == 0x50 and not is_bind: put(low, 0)
        elif op == 0x60 and not is_bind:
            times, at = leb(code, at)
            put(times, 0)
        elif op == (0xA0 if is_bind else 0x70):
            skip, at = leb(code, at)
            put(1, skip)
        elif op == 0xB0 and is_bind: put(1, 8 * low)
        elif op == (0xC0 if is_bind else 0x80):
            times, at = leb(code, at)
            skip, at = leb(code, at)
            put(times, skip)
        else:
            raise Wrong(f"unknown opcode {op:#x}")
    return out


def check_fixups(p, stub):
    """Pointers that dyld fills in: in data, to libSystem, to what it has; pointers into the program: into the program."""
    info = p.words(DYLD_INFO_ONLY, "no LC_DYLD_INFO_ONLY")
    part = [p.data[info[2 * i]:info[2 * i] + info[2 * i + 1]] for i in range(4)]
    binds = fixups(p, part[1], True) + fixups(p, part[2], True) + fixups(p, part[3], True, is_lazy=True)
    rebases = fixups(p, part[0], False)
    seen = set()
    for symbol, library, segment, offset, kind in binds + rebases:
        must(kind == 1, f"a fixup of type {kind}")
        must(segment < len(p.segments) and p.segments[segment].first == READ | WRITE, "a pointer to fill in that is not in data")
        s = p.segments[segment]
        must(offset + 8 <= s.size, f"a pointer to fill in behind the end of {s.name}")
        must(symbol is None or library == 1, f"{symbol} comes from library {library}")
        must((symbol is None, segment, offset) not in seen, "a pointer that is filled in twice")
        seen.add((symbol is None, segment, offset))
        if symbol is None:
            must(offset + 8 <= s.bytes, "a pointer into the program outside of the file")
            value = struct.unpack_from("<Q", p.data, s.at + offset)[0]
            must(any(t.address <= value <= t.address + t.size for t in p.segments if t.first), f"a pointer to {value:#x}, outside of the program")
    names = {b[0] for b in binds}
    undefined = undefined_symbols(p)
    must(names <= undefined, f"bound and not in the table of symbols: {' '.join(sorted(names - undefined))}")
    missing = sorted(n for n in undefined if n not in stub)
    must(not missing, f"not in the stub of libSystem: {' '.join(missing)}")
    return len(names), len(rebases)


def undefined_symbols(p):
    sym, n, strings, size = p.words(SYMTAB, "no LC_SYMTAB")
    names = p.data[strings:strings + size]
    found = set()
    for i in range(n):
        at, kind, _, description, _ = struct.unpack_from("<IBBHQ", p.data, sym + 16 * i)
        must(at < size, "a symbol without a name")
        if kind & 0xE0 or kind & 0x0E:
            continue
        must(description >> 8 == 1, f"{text(names[at:])} comes from library {description >> 8}")
        found.add(text(names[at:]))
    return found


def check_signature(p):
    """The ad-hoc signature: without a good one the kernel ends an arm64 program at once."""
    if not p.all(CODE_SIGNATURE):
        must(p.arch != "arm64", "no signature")
        return "no signature, which Intel processors do not ask for"
    at, size = p.words(CODE_SIGNATURE, "")
    must(at + size == len(p.data), "the signature is not the end of the file")
    blob = p.data[at:]
    magic, length, n = struct.unpack_from(">III", blob)
    must(magic == 0xFADE0CC0 and length <= size, "no signature where it should be")
    parts = {}
    for i in range(n):
        kind, offset = struct.unpack_from(">II", blob, 12 + 8 * i)
        must(offset + 8 <= length, "a part of the signature is behind its end")
        parts[kind] = blob[offset:offset + struct.unpack_from(">I", blob, offset + 4)[0]]
    must(0 in parts, "no code directory")
    d = parts[0]
    (magic, _, revision, flags, hashes, name, n_special, n_code, limit) = struct.unpack_from(">9I", d)
    hash_size, hash_type, _, page_bits = d[36:40]
    must(magic == 0xFADE0C02 and revision >= 0x20400, f"code directory of version {revision:#x}")
    must(flags & 2, "not signed ad hoc")
    must((hash_size, hash_type) == (32, 2), "hashes other than SHA-256")
    must(limit == at, f"the signature covers {limit} bytes, not the {at} before it")
    must(12 <= page_bits <= p.page_bits, f"pages of {1 << page_bits} bytes")
    page = 1 << page_bits
    must(n_code == -(-limit // page), f"{n_code} hashes for {limit} bytes")
    must(text(d[name:]), "no identifier")
    base, most, kind = struct.unpack_from(">QQQ", d, 64)
    code = p.segment("__TEXT")
    must(base == code.at and most in (code.bytes, -(-code.bytes // page) * page, code.size) and kind & 1, "its code is not __TEXT of a main program")
    for i in range(n_code):
        want = d[hashes + 32 * i:hashes + 32 * i + 32]
        must(hashlib.sha256(p.data[i * page:min((i + 1) * page, limit)]).digest() == want, f"page {i} is not the one that was signed")
    for i in range(1, n_special + 1):
        want = d[hashes - 32 * i:hashes - 32 * i + 32]
        must(not any(want) or hashlib.sha256(parts.get(i, b"")).digest() == want, f"part {i} of the signature is not the one that was signed")
    return f"signed ad hoc, {n_code} pages of {page} bytes"


def stub_symbols(path, arch, least):
    """What libSystem and the libraries in it export for a processor, by a text-based stub (.tbd, version 4)."""
    with open(path, encoding="utf-8") as f:
        stub = f.read()
    symbols, hidden, here = set(), set(), False
    for key, items in re.findall(r"\b(targets|symbols|weak-symbols|thread-local-symbols):\s*\[(.*?)\]", stub, re.S):
        words = [w.strip().strip("'") for w in items.split(",")]
        if key == "targets":
            here = any(w.endswith("-macos") and w.startswith("arm64" if arch == "arm64" else arch) for w in words)
        elif here:
            symbols.update(words)
            hidden.update(w.split("$", 4)[-1] for w in words if w.startswith(f"$ld$hide$os{least}$"))
    must(len(symbols) > 1000, f"{path} is no stub of libSystem")
    return symbols - hidden


def slices(data):
    """The programs of a universal file, or the one program."""
    if data[:4] != b"\xca\xfe\xba\xbe":
        return [data], "one program"
    n = struct.unpack_from(">I", data, 4)[0]
    must(0 < n <= 4 and len(data) >= 8 + 20 * n, f"a universal file of {n} programs")
    found, end = [], 8 + 20 * n
    for cpu, sub, at, size, bits in sorted((struct.unpack_from(">5I", data, 8 + 20 * i) for i in range(n)), key=lambda e: e[2]):
        must(cpu in CPUS and bits >= CPUS[cpu][2] and at % (1 << bits) == 0, f"the program at {at} is not at a multiple of a page")
        must(at >= end and at + size <= len(data), "programs overlap, or go on behind the end of the file")
        must(data[at + 4:at + 12] == struct.pack("<II", cpu, sub), f"the program at {at} is for another processor than its entry says")
        must(all(struct.unpack_from("<I", f, 4)[0] != cpu for f in found), "two programs for one processor")
        found.append(data[at:at + size])
        end = at + size
    must(end == len(data), "bytes behind the last program")
    return found, f"universal, {n} programs"


def check(data, stub, least):
    """Raises Wrong; returns what was found, as lines."""
    parts, what = slices(data)
    lines = [what]
    for part in parts:
        p = Program(part)
        try:
            check_segments(p)
            check_commands(p, least)
            check_linkedit(p)
            n_names, n_rebases = check_fixups(p, stub_symbols(stub, p.arch, least))
            signed = check_signature(p)
        except Wrong as e:
            raise Wrong(f"{p.arch}: {e}") from None
        lines += [f"{p.arch}: load commands and segments, macOS {least} and later, libSystem alone",
                  f"{p.arch}: {n_names} symbols of libSystem, {n_rebases} pointers of its own", f"{p.arch}: {signed}"]
    return lines


def main():
    a = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    a.add_argument("--min", default="13.0")
    a.add_argument("--stub", default="build/zig/ziglang/lib/libc/darwin/libSystem.tbd")
    a.add_argument("program")
    o = a.parse_args()
    try:
        with open(o.program, "rb") as f:
            data = f.read()
        for line in check(data, o.stub, o.min):
            print("PASS", line)
    except (Wrong, struct.error, UnicodeDecodeError) as e:
        print(f"FAIL {o.program}: {e}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
