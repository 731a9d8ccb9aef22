//===- Reports.cpp - What the checks found in one launch ------------------===//
#include "Execution/Reports.h"

namespace dshard::emulator {

const char *faultName(Fault fault) {
  switch (fault) {
  case Fault::sharedRace:
    return "race in shared memory";
  case Fault::sharedUnwritten:
    return "shared memory read before it is written";
  case Fault::sharedBounds:
    return "out of bounds of shared memory";
  case Fault::globalBounds:
    return "out of bounds of global memory";
  case Fault::globalRace:
    return "race in global memory between two blocks";
  case Fault::globalTwoWriters:
    return "two threads write one word";
  case Fault::readOnlyWritten:
    return "read-only load of memory that the launch writes";
  case Fault::localBounds:
    return "out of bounds of local memory";
  case Fault::parameterBounds:
    return "out of bounds of the parameters";
  case Fault::misaligned:
    return "misaligned access";
  case Fault::barrierDivergence:
    return "divergent barrier";
  case Fault::shuffleInactive:
    return "warp operation with an inactive lane";
  case Fault::blockSize:
    return "block size";
  case Fault::budget:
    return "instruction budget spent";
  case Fault::deadlock:
    return "nothing can run";
  case Fault::badInstruction:
    return "instruction used wrongly";
  }
  return "fault";
}

void Reports::add(Fault fault, const Instruction *instruction,
                  const std::string &where, const std::string &detail) {
  if (!seen.insert({fault, instruction}).second ||
      counts[static_cast<unsigned>(fault)]++ >= cap)
    return;
  std::string line = "kernel " + kernel.name + ": " + faultName(fault);
  if (!detail.empty())
    line += ": " + detail;
  if (!where.empty())
    line += " (" + where + ")";
  if (instruction) {
    std::string text = module.lineText(instruction->line);
    size_t begin = text.find_first_not_of(" \t");
    line += " at ptx line " + std::to_string(instruction->line);
    if (begin != std::string::npos)
      line += ": " + text.substr(begin);
  }
  lines.push_back(line);
}

std::string Reports::text() const {
  std::string all;
  for (const std::string &line : lines)
    all += (all.empty() ? "" : "\n") + line;
  return all;
}

} // namespace dshard::emulator
