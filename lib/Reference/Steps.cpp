//===- Steps.cpp - Run a function step by step ----------------------------===//
#include "dshard/Reference/Steps.h"
#include "dshard/Reference/Inputs.h"

using namespace mlir;
using namespace mlir::dshard;

/// Element `index` of the leading dim.
static HostTensor takeStep(const HostTensor &tensor, int64_t index) {
  HostTensor result(tensor.type.clone(tensor.shape().drop_front()));
  auto *begin = tensor.data.data() + index * result.size();
  result.data.assign(begin, begin + result.size());
  return result;
}

static StringAttr getState(Attribute attribute) {
  return dyn_cast_if_present<StringAttr>(attribute);
}

/// Argument index by state name.
static llvm::DenseMap<StringAttr, unsigned> findStates(func::FuncOp function) {
  llvm::DenseMap<StringAttr, unsigned> states;
  for (unsigned i = 0; i < function.getNumArguments(); ++i)
    if (StringAttr name = getState(function.getArgAttr(i, stateAttrName)))
      states[name] = i;
  return states;
}

LogicalResult mlir::dshard::interpretSteps(
    func::FuncOp function, ArrayRef<HostTensor> arguments, int64_t steps,
    Precision precision, SmallVectorImpl<HostTensor> &results) {
  llvm::DenseMap<StringAttr, unsigned> states = findStates(function);
  SmallVector<HostTensor> current(arguments);
  for (int64_t step = 0; step < steps; ++step) {
    for (unsigned i = 0; i < function.getNumArguments(); ++i)
      if (!function.getArgAttr(i, stateAttrName) &&
          !function.getArgAttr(i, weightAttrName) &&
          !function.getArgAttr(i, scalarAttrName))
        current[i] = takeStep(arguments[i], step);
    SmallVector<HostTensor> given;
    if (failed(interpret(function, current, precision, given)))
      return failure();
    for (auto [i, result] : llvm::enumerate(given)) {
      StringAttr state = getState(function.getResultAttr(i, stateAttrName));
      auto target = state ? states.find(state) : states.end();
      if (target != states.end())
        current[target->second] = result;
      if (step == 0)
        results.push_back(state ? result
                                : HostTensor(withSteps(result.type, steps)));
      if (state)
        results[i] = result;
      else
        llvm::copy(result.data, results[i].data.begin() + step * result.size());
    }
  }
  return success();
}
