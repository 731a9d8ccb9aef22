//===- CommandLine.h - The compiler's command line --------------*- C++ -*-===//
#ifndef DSHARD_TOOLS_DSHARD_OPT_COMMANDLINE_H
#define DSHARD_TOOLS_DSHARD_OPT_COMMANDLINE_H

#include "dshard/Pipelines/Pipelines.h"

namespace dshard::tool {

struct CommandLine {
  mlir::dshard::CompileOptions compile;
  std::string
      output; ///< empty: standard output for IR, MODEL.dsplan for a plan
  bool emitPlan = true; ///< else MLIR
  bool explain = false;
  bool remarks = true;
};

enum class Parsed {
  compile,  ///< the command line is a compilation
  passes,   ///< no .onnx and no --to/--from: hand everything to MlirOptMain
  help,     ///< asked for
  badUsage, ///< said why on standard error: exit status 2
  badValue, ///< said why on standard error: exit status 1
};

Parsed parseCommandLine(int argc, char **argv, CommandLine &commandLine);
void printHelp();

} // namespace dshard::tool

#endif // DSHARD_TOOLS_DSHARD_OPT_COMMANDLINE_H
