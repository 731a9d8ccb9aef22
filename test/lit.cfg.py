"""lit configuration: `lit build/test`, or `ninja -C build check-dshard`."""

import os

import lit.formats

config.name = "dshard"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir", ".test"]
config.excludes = ["CMakeLists.txt", "EndToEnd", "models", "Inputs"]
config.test_source_root = os.path.dirname(__file__)
config.test_exec_root = os.path.join(config.dshard_build_dir, "test")

# %models: the committed graphs, without weights; read-only for tests.
config.substitutions.append(("%models", os.path.join(config.test_source_root, "models")))
config.substitutions.append(("%scripts", os.path.join(config.dshard_source_dir, "scripts")))
config.substitutions.append(("%python", config.python))

# dshard's own tools by full path, so that an installed one is never tested by
# accident; a test that needs a tool that was not built says so by failing.
bin_dir = os.path.join(config.dshard_build_dir, "bin")
for tool in sorted(os.listdir(bin_dir)) if os.path.isdir(bin_dir) else []:
    if tool.startswith("dshard-"):
        path = os.path.join(bin_dir, tool)
        # Not after / or - (paths, flags like --dshard-cse), not before - or a letter.
        config.substitutions.append((rf"(?<![\w/.-]){tool}(?![\w-])", path))

config.environment["PATH"] = os.pathsep.join(
    [bin_dir, config.llvm_tools_dir, os.environ.get("PATH", "")]
)
for name in ("HOME", "TMPDIR", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS"):
    if name in os.environ:
        config.environment[name] = os.environ[name]
# A variable of one case must not leak into the next.
config.environment["FILECHECK_OPTS"] = "-enable-var-scope --dump-input-filter=error"
