"""Launch scripts: parse, build, train, save, push. `gpm-hf train` and the files in `trainers/` start them."""
