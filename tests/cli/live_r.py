#!/usr/bin/env python3
"""examples/R: data frames through sill, in and out, compared with what the program itself writes. In the C locale too, where R
holds texts in UTF-8 but prints them in ASCII.

A part of `make test-all` (suite live). Needs Rscript (Debian's r-base-core)."""
import shutil
from clitest import *

R = os.path.abspath(os.path.join(os.path.dirname(__file__), "../../examples/R"))
TEXTS = ["Once upon a time, there was a dog.", 'Lily said "hello, you" and ran.', "Zoë & Łukasz, 語: \\n it's $HOME `x`", None, "two\nlines\t", "NA", ""]

# Prints a data frame as a CSV with numbers in full, whatever the locale.
SHOW = r'''
show <- function(d, file) {
  cell <- function(x) if (is.numeric(x)) sprintf("%.17g", x) else paste0("\"", gsub("\"", "\"\"", enc2utf8(as.character(x)), fixed = TRUE), "\"")
  lines <- do.call(paste, c(lapply(d, function(x) ifelse(is.na(x), "", cell(x))), sep = ","))
  con <- file(file, "wb"); on.exit(close(con))
  writeLines(c(paste(sill_quoted(names(d)), collapse = ","), lines), con, useBytes = TRUE)
}
'''


def run_r(code, locale="C.UTF-8", status=0):
    write("t.R", 'source("%s/sill.R")\n' % R + SHOW + code)
    env = {**os.environ, "SILL": SILL, "LC_ALL": locale}
    p = subprocess.run(["Rscript", "--vanilla", path("t.R")], capture_output=True, timeout=120, env=env, cwd=work.name)
    said = p.stderr.decode("utf-8", "replace")
    assert p.returncode == status, said
    return said


def frame():
    """The texts as a data frame d, by escapes, so that the script is ASCII."""
    def text(t):
        return "NA" if t is None else '"' + "".join(c if " " <= c <= "~" and c not in '"\\' else f"\\u{ord(c):04x}" for c in t) + '"'
    return f"d <- data.frame(n = {len(TEXTS)}:1, text = c({', '.join(map(text, TEXTS))}), stringsAsFactors = TRUE)\nm <- \"{STORIES}\"\n"


def table(name):
    return list(csv.DictReader(io.StringIO(read(name).decode("utf-8"), newline="")))


def equal(got, want, skip=()):
    """GOT: of R, with all rows; WANT: the program's own for the rows that have a text."""
    want = iter(want)
    for row, text in zip(got, TEXTS):
        w = next(want) if text is not None else None
        for key in (got[0].keys() if w is None else w.keys()):
            if key in ("text", "n") or key in skip:
                continue
            a, b = row[key], "" if w is None else w[key]
            if key == "needs_human" and b:
                b = "TRUE" if b == "1" else "FALSE"
            try:
                assert a == b or float(a) == float(b), (key, a, b)
            except ValueError:
                raise AssertionError((key, a, b))


def whole(command, *options):
    f = write("in.csv", "")
    with open(f, "w", newline="", encoding="utf-8") as out:
        w = csv.writer(out, quoting=csv.QUOTE_ALL)
        w.writerow(["n", "text"])
        w.writerows([len(TEXTS) - i, t] for i, t in enumerate(TEXTS) if t is not None)
    return sill(command, *(("-f",) if command == "generate" else ()), f, "--text", "text", "-m", STORIES, *options, status=None).rows()


def labels_and_scores(locale):
    run_r(frame() + '''
show(sill_classify(d, labels = c("T", "\\u00e9t\\u00e9, \\"01\\""), model = m), "c.csv")
show(sill_score(d, model = m, bos = TRUE), "s.csv")
show(sill_score(cbind(d, before = "One day,"), context = "before", model = m), "x.csv")''', locale)
    got = table("c.csv")
    equal(got, whole("classify", "--labels", 'T,"été, ""01"""'))
    assert {r["label"] for r in got} == {"T", 'été, "01"', ""} or {r["label"] for r in got} == {"T", ""}, got
    assert [r["n"] for r in got] == [str(len(TEXTS) - i) for i in range(len(TEXTS))] and got[1]["text"] == TEXTS[1] and got[2]["text"] == TEXTS[2]
    equal(table("s.csv"), whole("score", "--bos"))
    f = write("x-in.csv", "before,text\n" + "".join('"One day,","%s"\n' % t.replace('"', '""') for t in TEXTS if t is not None))
    equal(table("x.csv"), sill("score", f, "--text", "text", "--context", "before", "-m", STORIES, status=None).rows(), skip=("before",))


def in_utf_8():
    labels_and_scores("C.UTF-8")


def in_the_c_locale():
    labels_and_scores("C")


def vectors_and_texts():
    said = run_r(frame() + '''
e <- sill_embed(d, model = m, normalize = TRUE)
stopifnot(nrow(e) == nrow(d), is.na(e[4, 1]), !anyNA(e[1, ]), abs(sum(e[1, ]^2) - 1) < 1e-5)
show(as.data.frame(e), "e.csv")
show(sill_generate(d, model = m, max_new_tokens = 6, do_sample = TRUE, seed = 3), "g.csv")''')
    got, want = table("e.csv"), [r for r in whole("embed", "--normalize")]
    want = iter(want)
    for row, text in zip(got, TEXTS):
        if text is None:
            continue
        w = next(want)
        for i, value in enumerate(row.values()):
            b = w[f"embedding_{i}"]
            assert (not value and not b) or abs(float(value) - float(b)) < 1e-6, (i, value, b)
    assert not said, said
    # GPT-2's tokenizer puts nothing in front: the empty text has no token.
    said = run_r(frame() + 'stopifnot(is.na(sill_embed(d, model = "%s/task/gpt2")[7, ]))' % FIXTURES)
    assert "some rows have no vector" in said, said
    # The id of a row is its number in the data frame, so that a row's draws do not depend on the rows without a text.
    got = table("g.csv")
    f = write("g-in.csv", "row,input\n" + "".join('%d,"%s"\n' % (i + 1, t.replace('"', '""')) for i, t in enumerate(TEXTS) if t is not None))
    want = sill("generate", "-f", f, "--text", "input", "--id", "row", "-m", STORIES, "--max-new-tokens", 6, "--do-sample", "--seed", 3, status=None).rows()
    assert [r["sill_text"] for r in got if r["ids"]] == [r["text"] for r in want], (got, want)


def goes_on():
    """With output= the results stay, and the same call takes them up again."""
    run_r(frame() + '''
a <- sill_score(d, model = m, output = "kept.csv"); before <- file.mtime("kept.csv")
b <- sill_score(d, model = m, output = "kept.csv")
stopifnot(identical(a, b), before == file.mtime("kept.csv"))''')
    assert os.path.exists(path("kept.csv.run.json"))


def errors():
    cases = {
        'sill_score(d, text = "txt", model = m)': "no column txt; it has n, text",
        'sill_score(d, model = "/nonexistent")': "/nonexistent",
        'sill_generate(d, bad_words = c("a,b", "c"), model = m)': "a value with a comma",
        'sill_score(d, model = m, no_such_option = TRUE)': "--no-such-option",
        'sill_score(d, "text", NULL, m)': "need names",
        'options(sill = "/nonexistent/sill"); sill_score(d, model = m)': "/nonexistent/sill is not there",
        'sill_score(data.frame(text = NA_character_), model = m)': "no row has a text",
    }
    for code, message in cases.items():
        said = run_r(frame() + code, status=1)
        assert message in said, (code, said)
    # Rows that fail are a warning, and their error is in the frame.
    said = run_r(frame() + '''d$text <- ifelse(d$n == 7, strrep("a long story. ", 2000), as.character(d$text))
x <- sill_classify(d, labels = c("a", "b"), model = m); stopifnot(nzchar(x$error[1]), !nzchar(x$error[2]), is.na(x$label[1]) || x$label[1] == "")''')
    assert "1 of 6 rows failed" in said and "row 1:" in said, said


def the_example():
    p = subprocess.run(["Rscript", "--vanilla", "example.R", "8"], capture_output=True, text=True, timeout=120, cwd=R, env={**os.environ, "SILL": SILL})
    assert p.returncode == 0 and "agree" in p.stdout and "perplexity" in p.stdout, p.stdout + p.stderr


if not shutil.which("Rscript"):
    def r_is_there():
        raise Skip("no Rscript; tools/deps.sh --test")
    test(r_is_there)
else:
    for t in (in_utf_8, in_the_c_locale, vectors_and_texts, goes_on, errors, the_example):
        test(t)
end()
