# Rscript example.R [ROWS]: film reviews labelled by the default model, and how far that agrees with what people said.
# To be run in this directory, with `sill` on the PATH or SILL naming it.
source("sill.R")
d <- read.csv("../reviews.csv")
rows <- commandArgs(TRUE)
if (length(rows)) d <- head(d, as.integer(rows[1]))
d <- sill_classify(d, labels = c("negative", "positive"))
print(table(people = d$gold, machine = d$label))
cat(sprintf("%.0f %% agree\n", 100 * mean(d$gold == d$label)))
d <- sill_score(d)
print(aggregate(perplexity ~ gold, d, median))
