# sill from R: a data frame in, the same data frame with the results behind it out. Base R and the program `sill`, nothing else.
#
#   source("sill.R")
#   d <- read.csv("reviews.csv")
#   d <- sill_classify(d, labels = c("negative", "positive"))
#
# Every function takes the data frame and the name of its text column; other arguments are the options of the command
# (`sill classify --help`), with underscores for dashes: max_new_tokens = 40, multi_label = TRUE. A vector becomes a list
# with commas, TRUE an option without a value, FALSE and NULL none.
#
# output = "FILE.csv": the results are kept in FILE.csv as well (the texts in FILE.csv.texts.csv), and the same call goes on
# where a run ended that was interrupted. Without it both are temporary.
#
# The program is `sill` on the PATH, or what options(sill = ) or the environment variable SILL names.

sill_program <- function() getOption("sill", Sys.getenv("SILL", "sill"))

# Arguments of the command line from named R values.
sill_arguments <- function(options) {
  out <- character()
  if (length(options) && (is.null(names(options)) || any(names(options) == "")))
    stop("options of sill need names, as in labels = c(\"a\", \"b\")")
  for (name in names(options)) {
    value <- options[[name]]
    flag <- paste0("--", gsub("_", "-", name, fixed = TRUE))
    if (is.null(value) || identical(value, FALSE)) next
    if (identical(value, TRUE)) { out <- c(out, flag); next }
    if (anyNA(value)) stop(name, " is NA")
    value <- if (is.numeric(value)) format(value, digits = 15, scientific = FALSE, trim = TRUE) else enc2utf8(as.character(value))
    if (name == "labels") value <- sill_quoted(value)
    else if (length(value) > 1 && any(grepl(",", value, fixed = TRUE)))
      stop(name, ": a value with a comma in it cannot stand in a list")
    out <- c(out, flag, paste(value, collapse = ","))
  }
  out
}

# Ends with an error, or says in a warning how many rows failed.
sill_run <- function(arguments, quiet) {
  said <- tempfile()
  on.exit(unlink(said))
  if (quiet) arguments <- c(arguments, "--quiet")
  # UTF-8 whatever the locale is: what R does not take for UTF-8 it hands on as it is.
  arguments <- vapply(arguments, shQuote, "")
  Encoding(arguments) <- "unknown"
  status <- suppressWarnings(system2(sill_program(), arguments, stdout = FALSE, stderr = if (quiet) said else ""))
  message <- if (quiet && file.exists(said)) paste(readLines(said, warn = FALSE, encoding = "UTF-8"), collapse = "\n") else ""
  if (status == 127) stop("the program ", sill_program(), " is not there; install sill, or name it with options(sill = \"...\")")
  if (!status %in% c(0, 3)) stop("sill ended with status ", status, if (nzchar(message)) paste0(":\n", message) else ", see above")
  status
}

sill_quoted <- function(x) paste0("\"", gsub("\"", "\"\"", enc2utf8(x), fixed = TRUE), "\"")

# Writes the texts, runs COMMAND on them and reads the results: a list of rows (those with a text) and columns.
sill_command <- function(command, data, columns, options, output, quiet, extension = "csv") {
  stopifnot(is.data.frame(data))
  for (column in columns)
    if (!column %in% names(data)) stop("the data frame has no column ", column, "; it has ", paste(names(data), collapse = ", "))
  texts <- lapply(columns, function(column) as.character(data[[column]]))
  rows <- which(Reduce(`&`, lapply(texts, function(x) !is.na(x))))
  if (!length(rows)) stop("no row has a text")
  kept <- !is.null(output)
  if (!kept) output <- tempfile(fileext = paste0(".", extension))
  input <- paste0(output, ".texts.csv")
  if (!kept) on.exit(unlink(paste0(output, c("", ".texts.csv", ".run.json", ".journal", ".lock"))))
  file <- file(input, "wb")
  cells <- c(list(rows), lapply(texts, function(x) sill_quoted(x[rows])))
  writeLines(c(paste(c("row", names(columns)), collapse = ","), do.call(paste, c(cells, sep = ","))), file, useBytes = TRUE)
  close(file)
  arguments <- c(command, if (command == "generate") "--file", input, "--text", "input", "--id", "row",
                 if ("context" %in% names(columns)) c("--context", "context"), sill_arguments(options), "--output", output)
  status <- sill_run(arguments, quiet)
  list(rows = rows, status = status, results = if (extension == "npy") sill_read_npy(output) else sill_read(output, 1 + length(columns)))
}

# The columns behind the first SKIP. Numbers and truth values by what they are called, the rest as text: a label "T" or "01" stays.
sill_read <- function(file, skip) {
  x <- utils::read.csv(file, check.names = FALSE, colClasses = "character", encoding = "UTF-8", na.strings = NULL)
  x <- x[, -seq_len(skip), drop = FALSE]
  for (name in names(x)) {
    if (name %in% c("label", "labels", "text", "prompt", "ids", "words", "tokens", "finish_reason")) next
    if (name == "error") next
    value <- x[[name]]
    value[value == ""] <- NA
    if (name == "needs_human") x[[name]] <- value == "1" | value == "true"
    else if (!any(grepl("[", value, fixed = TRUE), na.rm = TRUE)) x[[name]] <- as.numeric(value)
  }
  x
}

# numpy's format 1.0 and 2.0: a header that tells type and shape, then the numbers, a row after the other.
sill_read_npy <- function(file) {
  con <- file(file, "rb")
  on.exit(close(con))
  magic <- readBin(con, "raw", 8)
  if (length(magic) < 8 || !identical(magic[1:6], as.raw(c(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59)))) stop(file, " is no .npy file")
  length <- readBin(con, "integer", 1, size = if (magic[7] == 1) 2 else 4, signed = magic[7] != 1, endian = "little")
  header <- rawToChar(readBin(con, "raw", length))
  shape <- as.numeric(regmatches(header, regexec("\\(([0-9]+), *([0-9]+)\\)", header))[[1]][2:3])
  if (!grepl("'<f4'", header, fixed = TRUE) || grepl("'fortran_order': True", header, fixed = TRUE) || anyNA(shape))
    stop(file, " holds no matrix of 32-bit numbers")
  matrix(readBin(con, "numeric", prod(shape), size = 4, endian = "little"), shape[1], shape[2], byrow = TRUE)
}

# The data frame with the results behind its columns; rows without a text (NA) have none.
sill_bind <- function(data, run) {
  results <- run$results
  if (run$status == 3) {
    failed <- which(results$error != "")
    warning(length(failed), " of ", length(run$rows), " rows failed, see the column error; row ", run$rows[failed[1]], ": ", results$error[failed[1]], call. = FALSE)
  }
  results <- results[match(seq_len(nrow(data)), run$rows), , drop = FALSE]
  clash <- names(results) %in% names(data)
  names(results)[clash] <- paste0("sill_", names(results)[clash])
  rownames(results) <- NULL
  out <- cbind(data, results)
  rownames(out) <- rownames(data)
  out
}

# Labels and their probabilities: labels = c(...), or codebook = "FILE", or neither with a model that has a head of its own.
sill_classify <- function(data, text = "text", ..., output = NULL, quiet = TRUE)
  sill_bind(data, sill_command("classify", data, c(input = text), list(...), output, quiet))

# Log-probabilities and perplexity; context = "COLUMN" scores a text given what stands before it.
sill_score <- function(data, text = "text", context = NULL, ..., output = NULL, quiet = TRUE)
  sill_bind(data, sill_command("score", data, c(input = text, context = context), list(...), output, quiet))

# Continuations of prompts: text (the continuation), finish_reason, ...
sill_generate <- function(data, text = "text", ..., output = NULL, quiet = TRUE)
  sill_bind(data, sill_command("generate", data, c(input = text), list(...), output, quiet))

# A matrix with a vector a row, NA where a row has no text or failed.
sill_embed <- function(data, text = "text", ..., output = NULL, quiet = TRUE) {
  run <- sill_command("embed", data, c(input = text), list(...), output, quiet, "npy")
  if (run$status == 3) warning("some rows have no vector", call. = FALSE)
  out <- matrix(NA_real_, nrow(data), ncol(run$results))
  out[run$rows, ] <- run$results
  out[is.nan(out)] <- NA
  out
}
