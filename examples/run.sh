#!/usr/bin/env bash
# The main job on real text: label the rows of a CSV, compare with what people said, continue a prompt.
set -eu
cd "$(dirname "$0")/.."
: "${BUILD:=build/release}"
sill=$BUILD/sill
out=${1:-build/reviews.labelled.csv}
mkdir -p "$(dirname "$out")"

echo "\$ sill classify examples/reviews.csv --text text --labels negative,positive -o $out"
"$sill" classify examples/reviews.csv --text text --labels negative,positive --overwrite -o "$out"
echo

# The columns that sill adds come after the text and hold no commas, so they are counted from the right.
awk -F, '
NR == 1 {
    for (i = 1; i <= NF; i++) {
        if ($i == "label") label = NF - i
        if ($i == "prob_negative") negative = NF - i
        if ($i == "prob_positive") positive = NF - i
        if ($i == "gold") gold = i
    }
    printf "%-9s %-9s %8s %8s  %s\n", "gold", "label", "negative", "positive", "text"
    next
}
{
    n++; right += $gold == $(NF - label)
    if (n <= 8) {
        text = $0
        sub(/^[^,]*,[^,]*,"?/, "", text)
        printf "%-9s %-9s %8.3f %8.3f  %.60s\n", $gold, $(NF - label), $(NF - negative), $(NF - positive), text
    }
}
END {
    printf "...\n%d of %d labels agree with the reviewers (%.0f %%)\n", right, n, 100 * right / n
    if (n != 60) exit 1
}' "$out"
echo
echo '$ sill generate --max-new-tokens 40 "The most important thing about a good film is"'
"$sill" generate --max-new-tokens 40 "The most important thing about a good film is"
