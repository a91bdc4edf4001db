"""One folder per data set: data sheet, how its files are read, and small files themselves."""
