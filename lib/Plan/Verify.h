//===- Verify.h - Parts of the plan verifier --------------------*- C++ -*-===//
//
// One source per question; PlanVerifier.h names the constraints. Internal to
// lib/Plan.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_LIB_PLAN_VERIFY_H
#define DSHARD_LIB_PLAN_VERIFY_H

#include "ProgramView.h"
#include "dshard/Plan/Format.h"
#include "dshard/Plan/PlanVerifier.h"
#include "dshard/Plan/Topology.h"

#include <map>
#include <set>
#include <string>

namespace dshard::plan {

/// The plan, and the words for its errors.
struct VerifyContext {
  const Plan &plan;
  Topology topology;
  std::vector<ProgramView> programs;

  explicit VerifyContext(const Plan &plan);

  std::string text(uint32_t index) const {
    return plan.strings()->Get(index)->str();
  }
  /// "[plan_v1] program 'run', instruction 7 (matmul, node 'fc1'): ".
  std::string where(const char *label, uint32_t program,
                    uint32_t instruction) const;
  /// "buffer 3 'h'".
  std::string name(uint32_t program, uint32_t buffer) const;
  std::vector<int64_t> table(uint32_t index) const;

  /// A value that the reader accepted as literal or table, for a rank.
  int64_t number(const Value &value, uint32_t rank) const {
    return topology.resolve(value, rank).value();
  }

  /// One rank of each set of ranks that these tables, and with `byStage` their
  /// pp coordinates, cannot tell apart.
  const std::vector<uint32_t> &representatives(const std::set<uint32_t> &tables,
                                               bool byStage = false) const;

  /// Elements by the buffer's dims.
  int64_t elements(uint32_t program, uint32_t buffer) const;

private:
  /// Found once per set of tables: looking at every rank takes time.
  mutable std::map<std::pair<std::set<uint32_t>, bool>, std::vector<uint32_t>>
      knownRepresentatives;
};

/// The value says where in its file a load_slice begins. That differs between
/// all ranks, and neither sizes nor memory depend on it.
bool isFileOrigin(const InstructionInfo &info, const InstructionLayout &layout,
                  size_t value);

/// An instruction with its names resolved, for one rank.
class InstructionView {
public:
  InstructionView(const VerifyContext &context, uint32_t program,
                  uint32_t index, uint32_t rank);

  const InstructionInfo &info;
  Slice<BufferUse> uses;
  Slice<Value> values;
  InstructionLayout layout;

  /// The value `name`, or its `at`-th repetition.
  int64_t operator()(const char *name, uint32_t at = 0) const;
  const Value &raw(const char *name) const;
  /// Index into `uses` of an operand or result that is there once, or -1 when
  /// it is absent.
  int use(const char *name) const;
  /// The ValueInfo-like role of a use.
  const UseInfo &role(uint32_t use) const;

private:
  const VerifyContext &context;
  uint32_t rank;
};

/// Bytes [begin, end) that a use touches, from the start of its slot: the
/// bounding interval for strided kinds, all elements otherwise.
struct ByteRange {
  __int128 begin = 0;
  __int128 end = 0;
};
ByteRange touchedBytes(const VerifyContext &context, uint32_t program,
                       const InstructionView &instruction, uint32_t use);

Status verifySizes(const VerifyContext &context);       // plan_v4
Status verifyMemory(const VerifyContext &context);      // plan_v1, v2, v3
Status verifyStates(const VerifyContext &context);      // plan_v5
Status verifyCollectives(const VerifyContext &context); // plan_v6, v7
Status verifyLiveRanges(const VerifyContext &context);  // plan_v8
Status verifyEntries(const VerifyContext &context);     // plan_v9

} // namespace dshard::plan

#endif // DSHARD_LIB_PLAN_VERIFY_H
