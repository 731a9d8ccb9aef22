//===- HostTensors.h - The global inputs and outputs ------------*- C++ -*-===//
//
// Reads or draws the inputs, holds the outputs, compares and writes them. All
// of it is memory of the caller, outside of the plan's.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_TOOLS_DSHARD_RUN_HOSTTENSORS_H
#define DSHARD_TOOLS_DSHARD_RUN_HOSTTENSORS_H

#include "CommandLine.h"
#include "dshard/Runtime/Npy.h"
#include "dshard/Runtime/Session.h"

namespace dshard::run {

struct HostTensor {
  std::string name;
  const plan::Port *port = nullptr;
  plan::DataType type = plan::DataType::none;
  std::vector<int64_t> dims; // with the leading step dim, if any
  AlignedBuffer data;
  uint64_t stepBytes = 0; // of one step
};

struct Statistics {
  double minimum = 0, maximum = 0, mean = 0;
  uint64_t notFinite = 0;
};

/// The file of one --expected.
struct Expected {
  const HostTensor *output;
  std::string file;
  NpyArray array;
};

struct Comparison {
  std::string name;
  double largest = 0;
  std::vector<int64_t> place; // of the largest
  double ours = 0, theirs = 0;
  bool within = true;
};

/// Reads and draws every input, and checks them all (Session::checkInputs).
Result<std::vector<HostTensor>> readInputs(const Session &session,
                                           const std::string &entryName,
                                           const CommandLine &line);
/// The tensors of one step, for the session.
Session::NamedTensors viewsOf(const std::vector<HostTensor> &tensors,
                              int64_t step);

/// Room for every output of the entry point, touched; outputs that are checks
/// (Port.finite) only where the command line names them.
Result<std::vector<HostTensor>> makeOutputs(const Session &session,
                                            const plan::Entry &entry,
                                            const CommandLine &line);

/// --output and --expected name outputs, and what is to be written can be.
Status checkOutputs(const Session &session, const std::string &entryName,
                    const CommandLine &line);

/// The files of --expected, of the shapes of the outputs, which outlive them.
Result<std::vector<Expected>>
readExpected(const std::vector<HostTensor> &outputs, const CommandLine &line);

Statistics statisticsOf(const HostTensor &tensor);

/// |ours - theirs| <= atol + rtol |theirs|; NaNs are equal to each other.
Comparison compare(const Expected &expected, double rtol, double atol);

} // namespace dshard::run

#endif // DSHARD_TOOLS_DSHARD_RUN_HOSTTENSORS_H
