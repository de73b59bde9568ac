"""Makes tables of three public corpora, a text a row, for the runs of docs/QUALITY.md (A whole corpus).

    bench/quality/corpora.py PACKAGES OUT

PACKAGES holds sentence_polarity.zip, inaugural.zip, state_union.zip and udhr2.zip as NLTK gives them out (repository
nltk/nltk_data, packages/corpora; `python3 -m nltk.downloader -d DIR sentence_polarity inaugural state_union udhr2` puts
them into DIR/corpora). Written are

OUT/reviews.csv   10,662 sentences of film reviews (id, gold, text), positive and negative by turns
OUT/speeches.csv  the paragraphs of 124 inaugural addresses and State of the Union messages (id, kind, year, speaker, text)
OUT/rights.csv    the paragraphs of the Universal Declaration of Human Rights in 37 languages (id, language, text)

A paragraph is a line that is not blank, without the white space around it; nothing else is changed.
"""
import csv, os, re, sys, zipfile

LANGUAGES = {
    "eng": "English", "fra": "French", "spa": "Spanish", "deu": "German", "ita": "Italian", "por_PT": "Portuguese", "nld": "Dutch",
    "pol": "Polish", "rus": "Russian", "ukr": "Ukrainian", "tur": "Turkish", "fin": "Finnish", "hun": "Hungarian", "vie": "Vietnamese",
    "ind": "Indonesian", "swh": "Swahili", "cmn_hans": "Chinese", "cmn_hant": "Chinese", "jpn": "Japanese", "kor": "Korean",
    "arb": "Arabic", "heb": "Hebrew", "pes_1": "Persian", "hin": "Hindi", "ben": "Bengali", "tam": "Tamil", "tha": "Thai", "khm": "Khmer",
    "mya": "Burmese", "ell_monotonic": "Greek", "kat": "Georgian", "hye": "Armenian", "amh": "Amharic", "chr": "Cherokee", "mlt": "Maltese",
    "yor": "Yoruba", "isl": "Icelandic"}


def texts(packages, name):
    """{name of the file: its text}; a few speeches are in windows-1252."""
    out = {}
    with zipfile.ZipFile(f"{packages}/{name}.zip") as z:
        for entry in sorted(z.namelist()):
            if entry.endswith("/"):
                continue
            raw = z.read(entry)
            try:
                out[os.path.basename(entry)] = raw.decode("utf-8-sig")
            except UnicodeDecodeError:
                out[os.path.basename(entry)] = raw.decode("windows-1252")
    return out


def paragraphs(text):
    return [p.strip() for p in re.split(r"[\r\n]+", text) if p.strip()]


def write(path, header, rows):
    with open(path, "w", encoding="utf-8", newline="") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow(header)
        out.writerows(rows)
    print(f"{path}: {len(rows)} rows")


def reviews(packages):
    files = texts(packages, "sentence_polarity")
    sides = [[s.strip() for s in files[f"rt-polarity.{side}"].split("\n") if s.strip()] for side in ("pos", "neg")]
    for i, (pos, neg) in enumerate(zip(*sides, strict=True)):
        yield 2 * i, "positive", pos
        yield 2 * i + 1, "negative", neg


def speeches(packages):
    for kind in ("inaugural", "state_union"):
        for name, text in texts(packages, kind).items():
            m = re.fullmatch(r"(\d{4})-([A-Za-z]+)(-\d)?\.txt", name)
            for i, p in enumerate(paragraphs(text) if m else ()):
                yield f"{kind}/{name[:-4]}/{i + 1}", kind, m[1], m[2], p


def rights(packages):
    files = texts(packages, "udhr2")
    for lang, language in LANGUAGES.items():
        for i, p in enumerate(paragraphs(files[f"{lang}.txt"])):
            yield f"{lang}/{i + 1}", language, p


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    packages, out = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    write(f"{out}/reviews.csv", ("id", "gold", "text"), list(reviews(packages)))
    write(f"{out}/speeches.csv", ("id", "kind", "year", "speaker", "text"), list(speeches(packages)))
    write(f"{out}/rights.csv", ("id", "language", "text"), list(rights(packages)))


if __name__ == "__main__":
    main()
