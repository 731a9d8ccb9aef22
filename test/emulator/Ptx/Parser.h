//===- Parser.h - PTX text to a decoded module ------------------*- C++ -*-===//
#ifndef DSHARD_EMULATOR_PTX_PARSER_H
#define DSHARD_EMULATOR_PTX_PARSER_H

#include "Ptx/Module.h"

#include <functional>
#include <memory>
#include <string>

namespace dshard::emulator {

/// Addresses of shared and local variables when they are seen through generic
/// pointers: windows far from any host address.
constexpr uint64_t sharedWindow = 1ull << 56;
constexpr uint64_t localWindow = 2ull << 56;
constexpr uint64_t windowMask = 0xffull << 56;
/// Bytes between two shared variables that belong to nobody.
constexpr uint32_t sharedRedZone = 64;

/// Gives a global or constant variable its memory; returns its address.
using VariableAllocator = std::function<uint64_t(const Variable &)>;

/// Decodes `text`; null with `error` ("ptx line 12: ...") when anything in it
/// is not known here. Nothing is skipped silently but debug information and
/// device functions that no kernel can call (`call` is refused).
std::unique_ptr<Module> parseModule(const std::string &text,
                                    const VariableAllocator &allocate,
                                    std::string &error);

} // namespace dshard::emulator

#endif // DSHARD_EMULATOR_PTX_PARSER_H
