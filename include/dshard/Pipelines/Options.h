//===- Options.h - Compile options by name ----------------------*- C++ -*-===//
//
// The flags of dshard-opt that say what to compile, by their names; the C API
// takes the same. And the text of a diagnostic, alike in both.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_PIPELINES_OPTIONS_H
#define DSHARD_PIPELINES_OPTIONS_H

#include "dshard/Pipelines/Pipelines.h"

namespace mlir {
class Diagnostic;
} // namespace mlir

namespace mlir::dshard {

/// What became of an option.
enum class OptionStatus {
  set,
  unknown,  ///< no such option
  badUsage, ///< the value is not of its form
  badValue, ///< understood, but not built
};

/// Whether the option exists and whether it takes a value (`sequence-parallel`
/// does not).
bool isOption(llvm::StringRef name, bool &takesValue);

/// Sets one option, named as its flag without dashes ("mesh", "dim", ...);
/// `dim`, `dims` and `const` add to what there is. Otherwise `error` says why
/// not, in one line that begins with the flag.
OptionStatus setOption(CompileOptions &options, llvm::StringRef name,
                       llvm::StringRef value, std::string &error);

/// "error: FILE:LINE:COL: node 'NAME': MESSAGE": where it happened, in a user's
/// words. Without its notes.
std::string describe(const Diagnostic &diagnostic);

} // namespace mlir::dshard

#endif // DSHARD_PIPELINES_OPTIONS_H
