//===- Validate.h - The reader's bounds checks ------------------*- C++ -*-===//
//
// One method per part of the schema; each returns the first error. Order
// matters: a part is checked before others index it. Internal to lib/Plan.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_PLAN_VALIDATE_H
#define DSHARD_LIB_PLAN_VALIDATE_H

#include "ProgramView.h"
#include "dshard/Plan/Format.h"
#include "dshard/Plan/PlanReader.h"

#include <string>

namespace dshard::plan {

class Validator {
public:
  explicit Validator(const Plan &plan) : plan(plan) {}
  Status run(uint64_t sectionsSize);

private:
  // Validate.cpp
  Status mesh();
  Status weights();
  Status states();
  Status code(uint64_t sectionsSize);
  Status entries();
  /// `microBatches` of its entry.
  Status port(const Port &port, uint32_t microBatches,
              const std::string &what) const;
  Status require(const void *table, const char *what) const;
  /// The vector is there and its elements lie at multiples of their alignment
  /// (the FlatBuffers verifier looks at the length word only).
  template <typename Vector>
  Status aligned(const Vector *items, const char *what) const {
    if (Status s = require(items, what); !s)
      return s;
    return items->size() == 0 ||
                   reinterpret_cast<uintptr_t>(items->Data()) % 8 == 0
               ? Status()
               : Status::error(std::string("metadata: ") + what +
                               " is not aligned");
  }
  Status string(uint32_t index, const std::string &what) const;
  Status inside(uint64_t index, uint64_t count, const std::string &what) const;
  Status range(uint64_t begin, uint64_t count, uint64_t limit,
               const std::string &what) const;
  Status type(DataType dtype, const std::string &what) const;
  Status bytes(DataType dtype, const int64_t *dims, size_t count,
               const std::string &what, uint64_t &result) const;
  Status tensor(const TensorType *tensor, const std::string &what) const;
  Status axes(const flatbuffers::Vector<const AxisRef *> *refs,
              const std::string &what) const;
  Status sharding(const Sharding *sharding, const TensorType &tensor,
                  const std::string &what) const;

  // ValidateProgram.cpp
  Status program(uint32_t index);
  Status buffers(const Program &program, const std::string &what) const;
  Status blocks(const Program &program, const std::string &what);
  Status instruction(const Program &program, const ProgramView &view,
                     uint32_t index, const std::string &what) const;
  Status value(const Program &program, const InstructionInfo &info,
               const InstructionLayout &layout, Slice<Value> values,
               uint32_t which, const Value &value,
               const std::string &what) const;
  /// Literal or table, all of whose entries lie in [low, high].
  Status fixed(const Value &value, int64_t low, int64_t high,
               const std::string &what) const;

  const Plan &plan;
  /// Of buffers and states; set before them.
  uint64_t alignment = bufferAlignment;
  /// Per block of the program at hand: the fewest repeats around it.
  std::vector<uint32_t> loopDepth;
};

} // namespace dshard::plan

#endif // DSHARD_LIB_PLAN_VALIDATE_H
