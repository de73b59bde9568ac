"""Writes sill/_abi.py from include/sill.h: structs, constants and functions for ctypes.

The header is regular (one declaration a construct, no macros but SILL_API, SILL_USE_RESULT and the list of statuses), so a page
of regular expressions reads it; what they do not understand is an error, never a guess. tests/python/test_abi.py compares sizes
and offsets with what a C compiler says.
"""
import re

SCALARS = {
    "int": "c_int", "int32_t": "c_int32", "uint32_t": "c_uint32", "int64_t": "c_int64", "uint64_t": "c_uint64",
    "uint8_t": "c_uint8", "size_t": "c_size_t", "float": "c_float", "double": "c_double",
}


class Header:
    def __init__(self, text):
        self.constants, self.structs, self.callbacks, self.functions, self.statuses = {}, {}, {}, {}, []
        self.opaque, self.enums = set(), set()
        self.version = re.search(r'SILL_VERSION_STRING "([^"]*)"', text).group(1)
        text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
        listed = re.search(r"#define SILL_STATUS_LIST\(X\)((?:.*\\\n)*.*)", text).group(1)
        for name, value in re.findall(r"X\((\w+), (\d+), \"[^\"]*\"\)", listed):
            self.statuses.append((name, int(value)))
            self.constants["SILL_" + name] = int(value)
        text = text.replace("\\\n", " ")
        text = re.sub(r"typedef enum sill_status \{.*?\} sill_status;", "", text, flags=re.S)
        text = re.sub(r"^\s*#.*$", "", text, flags=re.M)
        text = re.sub(r'extern "C" \{', "", text)
        text = text.replace("SILL_API", "").replace("SILL_USE_RESULT", "")
        self.enums.add("sill_status")
        for declaration in self.declarations(text):
            self.read(declaration)

    @staticmethod
    def declarations(text):
        """The text cut at semicolons outside of braces."""
        depth, start = 0, 0
        for i, c in enumerate(text):
            depth += (c == "{") - (c == "}")
            if c == ";" and depth <= 0:
                yield re.sub(r"\s+", " ", text[start:i]).strip().lstrip("} ")
                start, depth = i + 1, 0

    def read(self, d):
        if not d:
            return
        if m := re.fullmatch(r"typedef struct (\w+) (\w+)", d):
            self.opaque.add(m.group(2))
        elif m := re.fullmatch(r"(?:typedef )?enum ?(\w*) ?\{(.*)\} ?(\w*)", d):
            self.read_enum(m.group(2), m.group(3))
        elif m := re.fullmatch(r"typedef struct (\w+) \{(.*)\} (\w+)", d):
            fields = [f for part in m.group(2).split(";") if part.strip() for f in self.fields(part.strip())]
            self.structs[m.group(3)] = fields
        elif m := re.fullmatch(r"typedef (.+?) ?\(\*(\w+)\)\((.*)\)", d):
            self.callbacks[m.group(2)] = self.signature(m.group(1), m.group(3))
        elif m := re.fullmatch(r"(.+?)(\w+)\((.*)\)", d):
            self.functions[m.group(2)] = self.signature(m.group(1).strip(), m.group(3))
        else:
            raise ValueError(f"sill.h: not understood: {d[:200]}")

    def read_enum(self, body, name):
        value = 0
        for item in filter(None, (x.strip() for x in body.split(","))):
            key, _, given = (x.strip() for x in item.partition("="))
            value = int(given, 0) if given else value
            self.constants[key] = value
            value += 1
        if name:
            self.enums.add(name)

    def signature(self, result, parameters):
        names = [] if parameters.strip() == "void" else self.split(parameters)
        return self.type_of(result, False), [self.parameter(p) for p in names]

    @staticmethod
    def split(text):
        parts, depth = [""], 0
        for c in text:
            depth += (c == "(") - (c == ")")
            if c == "," and depth == 0:
                parts.append("")
            else:
                parts[-1] += c
        return [p.strip() for p in parts]

    def parameter(self, text):
        if m := re.fullmatch(r"(.+?)\(\*\w+\)\((.*)\)", text):
            return self.function_type(m.group(1).strip(), m.group(2))
        m = re.fullmatch(r"(.*?)(\w+)", text)
        return self.type_of(m.group(1).strip(), False)

    def function_type(self, result, parameters):
        r, args = self.signature(result, parameters)
        return f"CFUNCTYPE({', '.join([r, *args])})"

    def fields(self, text):
        """One declaration of a struct: (name, type) for each declarator."""
        if m := re.fullmatch(r"(.+?)\(\*(\w+)\)\((.*)\)", text):
            return [(m.group(2), self.function_type(m.group(1).strip(), m.group(3)))]
        m = re.fullmatch(r"((?:const )?\w+) ?(.*)", text)
        base, out = m.group(1), []
        for declarator in m.group(2).split(","):
            stars, name, length = re.fullmatch(r"((?:\*| |const )*)(\w+)(?:\[(\d+)\])?", declarator.strip()).groups()
            kind = self.type_of(f"{base} {stars}".strip(), True)
            if length:
                kind = f"{'c_char' if base == 'char' else kind} * {length}"
            out.append((name, kind))
        return out

    def type_of(self, text, in_struct):
        """TEXT is a type without a name. Bytes that a struct points to have a length of their own, so they are addresses."""
        base = re.sub(r"\bconst\b|\*", " ", text).split()
        stars = text.count("*")
        if len(base) != 1:
            raise ValueError(f"sill.h: not a type: {text}")
        name = base[0]
        if name == "void":
            return ["None", "c_void_p", "POINTER(c_void_p)"][stars]
        if name == "char":
            if stars == 0:
                return "c_char"
            if stars == 1:
                return "c_void_p" if in_struct or "const" not in text else "c_char_p"
            return "POINTER(c_char_p)" if "const" in text else "POINTER(c_void_p)"
        if name in self.opaque:
            return ["", "c_void_p", "POINTER(c_void_p)"][stars]
        kind = SCALARS.get(name) or ("c_int" if name in self.enums else name)
        if kind == name and name not in self.structs and name not in self.callbacks:
            raise ValueError(f"sill.h: unknown type {text}")
        for _ in range(stars):
            kind = f"POINTER({kind})"
        return kind


def generate(text):
    """The text of _abi.py for the text of sill.h."""
    h = Header(text)
    lines = ['"""Made from sill.h by backend/abi.py; not to be edited."""',
             "# ruff: noqa", "from ctypes import (CFUNCTYPE, POINTER, Structure, c_char, c_char_p, c_double, c_float, c_int, c_int32,",
             "                    c_int64, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p)", "from typing import Any", "",
             f'VERSION = "{h.version}"', f"STATUSES = {h.statuses!r}"]
    lines += [f"{name} = {value}" for name, value in h.constants.items()]
    order = re.findall(r"typedef [^;{]*\(\*(\w+)\)|\} (\w+);", re.sub(r"/\*.*?\*/", " ", text, flags=re.S))
    for callback, struct in order:
        if callback in h.callbacks:
            result, args = h.callbacks[callback]
            lines.append(f"{callback} = CFUNCTYPE({', '.join([result, *args])})")
        elif struct in h.structs:
            lines += ["", "", f"class {struct}(Structure):", "    _fields_ = ["]
            lines += [f'        ("{name}", {kind}),' for name, kind in h.structs[struct]]
            lines += ["    ]", "", ""]
    lines += ["", f"STRUCTS = [{', '.join(h.structs)}]", "FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {"]
    for name, (result, args) in h.functions.items():
        lines.append(f'    "{name}": ({result}, [{", ".join(args)}]),')
    return "\n".join([*lines, "}", ""])


if __name__ == "__main__":
    import sys

    with open(sys.argv[1], encoding="utf-8") as f:
        sys.stdout.write(generate(f.read()))
