"""One folder per data set: data sheet, small files, load()."""
