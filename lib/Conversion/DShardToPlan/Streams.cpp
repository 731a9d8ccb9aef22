//===- Streams.cpp - Which stream an instruction runs on ------------------===//

#include "Streams.h"
#include "dshard/Plan/Format.h"
#include "llvm/ADT/STLExtras.h"
#include "llvm/ADT/SmallSet.h"

using namespace mlir;
using namespace mlir::dshard;
using ::dshard::plan::InstructionInfo;
using ::dshard::plan::InstructionKind;

namespace {
/// Bytes of the arena (state -1) or of a state.
struct Access {
  int64_t state, begin, end;
  bool written;
};

/// A collective that stream 0 has not waited for.
struct Pending {
  int64_t stream, event;
  SmallVector<Access> accesses;
};

class Assigner {
public:
  explicit Assigner(plan::ProgramOp program) : program(program) {}
  void run() {
    Block &body = program.getBody().front();
    block(body);
    // The next run of the program, or of another one, begins behind all of it.
    if (!pending.empty()) {
      OpBuilder end = OpBuilder::atBlockEnd(&body);
      waitForAll(end, &body.back());
    }
  }

private:
  void block(Block &block);
  void collective(Operation *op, const InstructionInfo &info);
  void event(OpBuilder &builder, Operation *origin, InstructionKind kind,
             int64_t number, int64_t stream);
  SmallVector<Access> accessesOf(Operation *op, const InstructionInfo &info);
  /// Lets stream 0 wait for those that `op` must not overtake.
  void waitFor(Operation *op, ArrayRef<Access> accesses);
  void waitForAll(OpBuilder &builder, Operation *origin);

  plan::ProgramOp program;
  SmallVector<Pending> pending;
  int64_t events = 0;
};
} // namespace

static bool conflict(ArrayRef<Access> some, ArrayRef<Access> others) {
  return llvm::any_of(some, [&](const Access &a) {
    return llvm::any_of(others, [&](const Access &b) {
      return (a.written || b.written) && a.state == b.state &&
             a.begin < b.end && b.begin < a.end;
    });
  });
}

SmallVector<Access> Assigner::accessesOf(Operation *op,
                                         const InstructionInfo &info) {
  SmallVector<Access> accesses;
  auto segments = op->getAttrOfType<DenseI32ArrayAttr>("segments");
  unsigned operand = 0;
  for (auto [use, count] : llvm::zip_equal(info.uses, segments.asArrayRef()))
    for (int32_t i = 0; i < count; ++i) {
      auto buffer = op->getOperand(operand++).getDefiningOp<plan::BufferOp>();
      int64_t begin = buffer.getOffset(),
              copies = buffer.getCopies().value_or(1);
      int64_t size = copies == 1
                         ? buffer.getSize()
                         : copies * ::dshard::plan::alignTo(
                                        buffer.getSize(),
                                        ::dshard::plan::gpuBufferAlignment);
      while (auto base = buffer.getBase()) {
        buffer = base.getDefiningOp<plan::BufferOp>();
        begin += buffer.getOffset();
      }
      if (buffer.getScalar())
        continue; // only the host writes it, between runs
      auto state = buffer.getState();
      accesses.push_back({state ? static_cast<int64_t>(*state) : -1, begin,
                          begin + size, use.written});
    }
  return accesses;
}

void Assigner::event(OpBuilder &builder, Operation *origin,
                     InstructionKind kind, int64_t number, int64_t stream) {
  plan::Origin from;
  from.path = origin->getAttrOfType<StringAttr>("path");
  from.part = origin->getAttrOfType<PartAttr>("part");
  Operation *op =
      plan::createInstruction(builder, origin->getLoc(), kind, {},
                              {builder.getI64IntegerAttr(number)}, from);
  if (stream)
    op->setAttr("stream", builder.getI64IntegerAttr(stream));
}

void Assigner::waitFor(Operation *op, ArrayRef<Access> accesses) {
  OpBuilder builder(op);
  for (size_t i = pending.size(); i-- > 0;) {
    if (i >= pending.size() || !conflict(pending[i].accesses, accesses))
      continue;
    int64_t stream = pending[i].stream;
    event(builder, op, InstructionKind::WAIT, pending[i].event, 0);
    // With it all that its stream did before is done.
    for (size_t j = i + 1; j-- > 0;)
      if (pending[j].stream == stream)
        pending.erase(pending.begin() + j);
  }
}

void Assigner::waitForAll(OpBuilder &builder, Operation *origin) {
  llvm::SmallSet<int64_t, 4> done;
  for (const Pending &each : llvm::reverse(pending))
    if (done.insert(each.stream).second)
      event(builder, origin, InstructionKind::WAIT, each.event, 0);
  pending.clear();
}

void Assigner::collective(Operation *op, const InstructionInfo &info) {
  auto values = op->getAttrOfType<ArrayAttr>("values");
  int64_t group = cast<IntegerAttr>(values[0]).getInt();
  int64_t stream = 1 + group % (::dshard::plan::maxStreams - 1);
  SmallVector<Access> accesses = accessesOf(op, info);
  OpBuilder builder(op);
  event(builder, op, InstructionKind::RECORD, events, 0);
  event(builder, op, InstructionKind::WAIT, events++, stream);
  for (const Pending &each : pending)
    if (each.stream != stream && conflict(each.accesses, accesses))
      event(builder, op, InstructionKind::WAIT, each.event, stream);
  op->setAttr("stream", builder.getI64IntegerAttr(stream));
  builder.setInsertionPointAfter(op);
  event(builder, op, InstructionKind::RECORD, events, stream);
  pending.push_back({stream, events++, std::move(accesses)});
}

void Assigner::block(Block &block) {
  for (Operation &op : llvm::make_early_inc_range(block)) {
    if (isa<plan::BufferOp>(op))
      continue;
    if (op.getNumRegions()) {
      OpBuilder builder(&op);
      waitForAll(builder, &op);
      for (Region &region : op.getRegions())
        for (Block &inner : region) {
          this->block(inner);
          if (inner.empty())
            continue;
          OpBuilder end = OpBuilder::atBlockEnd(&inner);
          waitForAll(end, &inner.back());
        }
      continue;
    }
    const InstructionInfo *info = plan::getInstructionInfo(&op);
    if (!info)
      continue;
    if (info->isCollective())
      collective(&op, *info);
    else
      waitFor(&op, accessesOf(&op, *info));
  }
}

void mlir::dshard::assignStreams(plan::ProgramOp program) {
  Assigner(program).run();
}
