//===- Module.h - A decoded PTX module --------------------------*- C++ -*-===//
//
// Text is decoded once, at load: an instruction is a function pointer and the
// offsets of its operands in the warp's register file. Immediates and special
// registers are ordinary registers that the file's image or the launch fills.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_EMULATOR_PTX_MODULE_H
#define DSHARD_EMULATOR_PTX_MODULE_H

#include "Ptx/Types.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace dshard::emulator {

class Warp;
struct Instruction;
/// Runs one instruction for the lanes of `mask` (never 0).
using Handler = void (*)(Warp &warp, const Instruction &instruction,
                         uint32_t mask);

/// What the scheduler does instead of, or before, calling the handler.
enum class Control : uint8_t {
  none,
  branch,  // to `target`
  exit,    // the lanes are done
  barrier, // waits for the block
  meet     // waits for the lanes of its member mask (operand `members`)
};

enum class Space : uint8_t { generic, global, shared, local, constant, param };

struct Instruction {
  Handler handler = nullptr;
  uint32_t operand[10] = {}; // byte offsets in the register file
  uint32_t guard = ~0u;      // offset of the predicate, ~0: none
  bool guardNegated = false;
  Control control = Control::none;
  bool readOnly = false;     // ld.global.nc
  bool isSigned = false;     // of a narrow load
  bool wideAddress = false;  // the address register has 64 bits
  bool flag = false;         // meaning is the opcode's
  uint8_t count = 1;         // vector elements
  uint8_t bytes = 0;         // of one element in memory
  uint8_t registerBytes = 0; // of one element's register
  Type type = Type::none;
  uint32_t target = 0;   // branch
  uint32_t members = 0;  // operand offset of the member mask
  int64_t immediate = 0; // added to the address; or a selector
  uint32_t line = 0;     // in the PTX text, from 1
};

enum class Special : uint8_t {
  tidX,
  tidY,
  tidZ,
  ntidX,
  ntidY,
  ntidZ,
  ctaidX,
  ctaidY,
  ctaidZ,
  nctaidX,
  nctaidY,
  nctaidZ,
  laneid,
  warpid,
  nwarpid,
  lanemaskEq,
  lanemaskLe,
  lanemaskLt,
  lanemaskGe,
  lanemaskGt,
  smid,
  dynamicSharedSize
};

/// A variable of the module, or of a kernel's shared or local space.
struct Variable {
  std::string name;
  Space space = Space::global;
  uint64_t size = 0; // bytes; 0 for `.extern .shared x[]`
  uint64_t align = 1;
  uint64_t offset = 0; // in its window; global: the address once allocated
  std::vector<uint8_t> data;
};

struct Parameter {
  std::string name;
  uint32_t offset = 0, size = 0;
};

struct Kernel {
  std::string name;
  std::vector<Instruction> code;
  std::vector<Parameter> parameters;
  uint32_t parameterBytes = 0;
  std::vector<uint8_t> image; // the register file with its constants
  struct SpecialRegister {
    Special what;
    uint32_t offset;
  };
  std::vector<SpecialRegister> specials;
  uint32_t sharedBytes = 0;    // static, with red zones between variables
  uint32_t sharedDeclared = 0; // without them: what the GPU counts
  std::vector<Variable> shared;
  bool dynamicShared = false;
  uint32_t dynamicOffset = 0; // where dynamic shared memory begins
  uint32_t localBytes = 0;
  uint32_t maxThreads[3] = {0, 0, 0}; // .maxntid, 0: not given
  uint32_t requiredThreads[3] = {0, 0, 0};
  uint8_t sharedGranule = 4; // bytes per shadow entry: the smallest access
  uint8_t globalGranule = 4;
};

struct Module {
  std::string text;                          // the PTX
  std::vector<std::string> lines;            // for reports
  std::map<std::string, Variable> variables; // global and constant
  std::map<std::string, std::unique_ptr<Kernel>> kernels;
  /// ".target": 90 for sm_90a.
  unsigned target = 0;
  std::string lineText(uint32_t line) const {
    return line && line <= lines.size() ? lines[line - 1] : std::string();
  }
};

} // namespace dshard::emulator

#endif // DSHARD_EMULATOR_PTX_MODULE_H
