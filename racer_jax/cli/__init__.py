"""The `racer-jax` command: one module for each family of commands, the parser beside the action.

`main` ends every command, `options` and `output` hold what several commands share; `tables`,
`artefacts`, `use`, `checks`, `system` and `demo` are the families. May use: everything but
`studies`.
"""
