"""
Launch scripts: parse, build, train, save, push. `gpm-hf train` and the files in `trainers/` start them.

Libraries are silenced here, before the scripts import them: some read it when they are imported.
"""

from gpm_hf.screens import quiet_libraries

quiet_libraries()
