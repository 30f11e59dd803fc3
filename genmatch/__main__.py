"""`python -m genmatch` is `genmatch`: what `torchrun --nproc-per-node=N -m genmatch train run.toml` starts."""

from genmatch.cli import main

if __name__ == "__main__":
    main(prog_name="genmatch")
