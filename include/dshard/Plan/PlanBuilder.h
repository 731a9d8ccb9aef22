//===- PlanBuilder.h - Writing a plan ---------------------------*- C++ -*-===//
//
// `Builder` fills the object form of plan.fbs (`PlanT`) and writes the file.
//
//   Builder builder;
//   builder.addAxis("tp", 2);
//   uint32_t state = builder.addState(...);
//   ProgramAssembler run = builder.beginProgram("run");
//   uint32_t x = run.addBuffer({"x", DataType::f32, {16, 64}, /*offset=*/0});
//   run.append(0, InstructionKind::ALL_REDUCE, {read(x), write(x)},
//              {literal(group), literal(1), literal(0)}, {path, part, ...});
//   run.finish();                        // blocks, sizes and live ranges
//   Status status = builder.finish("model.dsplan");
//
// The builder decides nothing: offsets in the arena are the caller's, and what
// is wrong with the result is found by the reader's checks and the verifier.
// Everything returned is an index into the vector of the schema. What has no
// helper is written to `plan` directly. Not thread safe.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_PLAN_PLANBUILDER_H
#define DSHARD_PLAN_PLANBUILDER_H

#include "dshard/Plan/Format.h"
#include "dshard/Plan/Instructions.h"

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace dshard::plan {

class Builder;

// Uses, written shortly. The slot is taken modulo the buffer's slots.
inline BufferUse read(uint32_t buffer, Value slot = literal(0)) {
  return BufferUse(buffer, Access::read, slot);
}
inline BufferUse write(uint32_t buffer, Value slot = literal(0)) {
  return BufferUse(buffer, Access::write, slot);
}
inline BufferUse readWrite(uint32_t buffer, Value slot = literal(0)) {
  return BufferUse(buffer, Access::read_write, slot);
}
/// An optional use that is not there.
inline BufferUse absent() {
  return BufferUse(absentBuffer, Access::read, literal(0));
}

/// A place to be added to a program.
struct BufferSpec {
  std::string_view name = {};
  DataType dtype = DataType::f32;
  std::vector<int64_t> dims = {};
  /// Bytes: in the arena, or inside the state, or inside the base of a view.
  uint64_t offset = 0;
  /// Bytes of one slot; 0: elements times their size.
  uint64_t size = 0;
  uint32_t slots = 1;
  /// Bytes from slot to slot; 0: the size rounded up to 64.
  uint64_t slotStride = 0;
};

/// What an instruction says about itself. Strings are interned.
struct InstructionOrigin {
  std::string_view path = {};
  std::string_view node = {};
  std::string_view why = {};
  Part part = Part::forward;
  uint16_t stream = 0;
};

/// Fills one program. Valid until the next beginProgram.
class ProgramAssembler {
public:
  uint32_t index() const { return programIndex; }

  /// A place in the arena; the arena grows to hold it.
  uint32_t addBuffer(const BufferSpec &spec);
  /// A place in a state (all of it by default: size 0 and no dims take the
  /// state's local type and size).
  uint32_t addStateBuffer(uint32_t state, BufferSpec spec = {});
  /// The word of a scalar, read only.
  uint32_t addScalarBuffer(uint32_t scalar);
  /// Bytes inside another buffer, with another type: reshapes and slices. Slots
  /// are the base's.
  uint32_t addView(uint32_t base, const BufferSpec &spec);

  /// Block 0, the root, exists from the start.
  uint32_t addBlock();
  /// Appends to a block; blocks may be filled in any order. Events and streams
  /// are counted from what is used.
  void append(uint32_t block, InstructionKind kind,
              const std::vector<BufferUse> &uses,
              const std::vector<Value> &values,
              const InstructionOrigin &origin = {});

  // The control instructions.
  void call(uint32_t block, Value callee, const InstructionOrigin &origin = {});
  void repeat(uint32_t block, uint32_t body, Value count,
              const InstructionOrigin &origin = {});
  /// An empty branch is an empty block.
  void branch(uint32_t block, Value condition, uint32_t thenBlock,
              uint32_t elseBlock, const InstructionOrigin &origin = {});

  /// Bytes that every worker thread needs; the largest request counts.
  void needThreadScratch(uint64_t bytes);

  /// Lays the blocks one behind another. Call once; append no more. Live ranges
  /// are filled in by Builder::finish, when the entries are known.
  void finish();

private:
  friend class Builder;
  ProgramAssembler(Builder &builder, uint32_t index);
  ProgramT &program();

  Builder &builder;
  uint32_t programIndex;
  std::vector<std::vector<Instruction>> blocks;
};

/// One input or output of an entry point.
struct PortSpec {
  std::string_view name = {};
  uint32_t program = 0;
  uint32_t buffer = 0;
  DataType dtype = DataType::f32;
  std::vector<int64_t> global = {};
  std::vector<int64_t> local = {};
  /// One list of axes per dim; empty: replicated.
  std::vector<std::vector<AxisRef>> sharding = {};
  std::vector<std::string> dimNames = {};
  /// [min, max] or [min, max, also allowed]; empty: any.
  std::vector<int64_t> range = {};
  /// Names of the elements, each of which must be finite.
  std::vector<std::string> finite = {};
  SequenceLayout layout = SequenceLayout::contiguous;
  int layoutDim = -1;
  uint32_t layoutParts = 0;
};

class Builder {
public:
  Builder();

  PlanT plan;
  /// Of states and of the slots of buffers.
  uint64_t alignment = bufferAlignment;

  /// Index of a string; equal strings share one. "" is 0.
  uint32_t intern(std::string_view text);

  /// Mesh axes, slowest first.
  uint32_t addAxis(std::string_view name, uint32_t size);
  /// The whole axis, as an AxisRef.
  AxisRef wholeAxis(uint32_t axis) const;
  /// Groups and tables that are equal share one index.
  uint32_t addGroup(const std::vector<AxisRef> &axes);
  /// `values` is row-major over the coordinates of the axes, in their order.
  uint32_t addTable(const std::vector<uint32_t> &axes,
                    const std::vector<int64_t> &values);
  /// A literal when all values are equal, else a table.
  Value rankValue(const std::vector<uint32_t> &axes,
                  const std::vector<int64_t> &values);

  uint32_t addScalar(std::string_view name, DataType dtype, double initial);
  /// `path` relative to the model's folder; equal paths share one index.
  uint32_t addFile(std::string_view path, uint64_t size);
  uint32_t addSource(WeightSourceT source);

  /// Appends to the rank's state region, aligned to 64 bytes, behind the states
  /// that a rank of its stage holds as well (`stage` -1: behind all). `size` 0:
  /// local elements times their size; a packed state says its own.
  uint32_t addState(std::string_view name, StateRole role,
                    InitializerKind initializer, DataType dtype,
                    const std::vector<int64_t> &global,
                    const std::vector<int64_t> &local,
                    const std::vector<std::vector<AxisRef>> &sharding = {},
                    StateLayout layout = StateLayout::plain, uint64_t size = 0,
                    int32_t stage = -1);

  ProgramAssembler beginProgram(std::string_view name, uint32_t stage = 0);

  /// Index of plan.entries. One program; one action list with one forward
  /// action (per pp coordinate). Edit plan.entries for more.
  uint32_t addEntry(std::string_view name, uint32_t program);
  /// One program per stage, stage i on pp coordinate i, and the gpipe schedule:
  /// each runs all micro-batches in order.
  uint32_t addPipeline(std::string_view name,
                       const std::vector<uint32_t> &programs,
                       uint32_t microBatches);
  uint32_t addInput(uint32_t entry, const PortSpec &port);
  uint32_t addOutput(uint32_t entry, const PortSpec &port);

  /// Page-aligned bytes outside the metadata; returns their offset there.
  uint64_t addSection(const void *data, uint64_t size);
  uint32_t addImage(ImageKind kind, const void *data, uint64_t size);
  /// entry: offset of the code in the loaded image. extent, grain: iterations
  /// that threads may split, and the smallest useful piece of them.
  uint32_t addKernel(std::string_view name, uint32_t image, uint64_t entry,
                     int64_t extent, int64_t grain, uint32_t buffers);
  /// The entry `name` of a ptx image: thread blocks, threads of each, and bytes
  /// of dynamic shared memory of each.
  uint32_t addGpuKernel(std::string_view name, uint32_t image, uint32_t grid,
                        uint32_t block, uint32_t shared, uint32_t buffers);

  static std::unique_ptr<TensorTypeT>
  tensorType(DataType dtype, const std::vector<int64_t> &dims);
  static std::unique_ptr<ShardingT>
  sharding(const std::vector<std::vector<AxisRef>> &dims);

  /// Computes live ranges, serialises and checksums. The reader's checks are
  /// the caller's to run (Reader::fromBytes).
  std::vector<uint8_t> finish();
  /// The same, written to a temporary file beside `path` and renamed.
  Status finish(const std::string &path);

private:
  std::unordered_map<std::string, uint32_t> strings;
  std::unordered_map<std::string, uint32_t> groups;
  std::unordered_map<std::string, uint32_t> tables;
  std::unordered_map<std::string, uint32_t> files;
  std::vector<uint8_t> sections;
};

/// Fills live_begin and live_end of every buffer of every program; see
/// plan.fbs.
void computeLiveRanges(PlanT &plan);

} // namespace dshard::plan

#endif // DSHARD_PLAN_PLANBUILDER_H
