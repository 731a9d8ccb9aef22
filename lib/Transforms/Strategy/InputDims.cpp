//===- InputDims.cpp - What the dims of an input are ----------------------===//

#include "InputDims.h"

using namespace mlir;
using namespace mlir::dshard;

bool mlir::dshard::isInput(func::FuncOp function, unsigned argument) {
  if (!isa<RankedTensorType>(function.getArgumentTypes()[argument]) ||
      function.getArgAttr(argument, weightAttrName))
    return false;
  auto role = function.getArgAttrOfType<RoleAttr>(argument, roleAttrName);
  return !role || role.getValue() == Role::input ||
         role.getValue() == Role::activation || role.getValue() == Role::cache;
}

static StringRef getDimName(func::FuncOp function, unsigned argument,
                            int64_t dim) {
  auto names = function.getArgAttrOfType<ArrayAttr>(argument, dimNamesAttrName);
  if (!names || dim >= static_cast<int64_t>(names.size()))
    return "";
  auto name = dyn_cast<StringAttr>(names[dim]);
  return name ? name.getValue() : "";
}

/// The dim called `name`; else `fallback`, if the input has it and its own name
/// is not that of another role.
static std::optional<int64_t> findDim(func::FuncOp function, unsigned argument,
                                      StringRef name, StringRef otherName,
                                      int64_t fallback) {
  auto type = cast<RankedTensorType>(function.getArgumentTypes()[argument]);
  for (int64_t dim = 0; dim < type.getRank(); ++dim)
    if (getDimName(function, argument, dim) == name)
      return dim;
  StringRef own = getDimName(function, argument, fallback);
  if (fallback >= type.getRank() || own == otherName || own == "none")
    return std::nullopt;
  return fallback;
}

std::optional<int64_t> mlir::dshard::findBatchDim(func::FuncOp function,
                                                  unsigned argument) {
  return findDim(function, argument, "batch", "seq", 0);
}

std::optional<int64_t> mlir::dshard::findSequenceDim(func::FuncOp function,
                                                     unsigned argument) {
  auto type = cast<RankedTensorType>(function.getArgumentTypes()[argument]);
  bool isInteger = type.getElementType().isInteger();
  return findDim(function, argument, "seq", "batch",
                 isInteger ? 1 : type.getRank());
}

std::string mlir::dshard::describeInput(func::FuncOp function,
                                        unsigned argument) {
  if (auto name = function.getArgAttrOfType<StringAttr>(argument, nameAttrName))
    return "input '" + name.str() + "'";
  return "argument " + std::to_string(argument);
}
