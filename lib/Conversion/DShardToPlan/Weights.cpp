//===- Weights.cpp - States of parameters, and their loading --------------===//

#include "Weights.h"
#include "dshard/Runtime/Cpu/Gemm.h"
#include "dshard/Transforms/Local/Calls.h"

using namespace mlir;
using namespace mlir::dshard;

/// What is staged in the arena at a time.
static constexpr int64_t bandBytes = int64_t(4) << 20;

static ::dshard::plan::DataType gemmType(Type type) {
  return type.isF32()    ? ::dshard::plan::DataType::f32
         : type.isBF16() ? ::dshard::plan::DataType::bf16
                         : ::dshard::plan::DataType::f16;
}

/// How a use of a parameter can read a packed operand, if it can.
static std::optional<PackedForm> packedForm(OpOperand &use) {
  auto fused = dyn_cast<FusedOp>(use.getOwner());
  if (!fused || fused->getAttr(callAttrName) !=
                    StringAttr::get(fused.getContext(), "matmul"))
    return std::nullopt;
  Block &body = fused.getBody().front();
  Value inside = body.getArgument(use.getOperandNumber());
  auto local = cast<RankedTensorType>(inside.getType());
  auto matmul = *body.getOps<MatMulOp>().begin();
  FailureOr<MatMulCall> call = matchMatMul(matmul);
  if (failed(call) || call->rhs.root != inside || call->lhs.root == inside ||
      !inside.hasOneUse() || call->batch != 1 || local.getRank() != 2)
    return std::nullopt;
  ArrayRef<int64_t> shape = local.getShape();
  PackedForm form{call->k, call->n, call->transposeRhs};
  bool suits = form.transposed ? shape[0] == form.n && shape[1] == form.k &&
                                     (call->ldb == form.k || form.n == 1)
                               : shape[0] == form.k && shape[1] == form.n &&
                                     (call->ldb == form.n || form.k == 1);
  return suits ? std::optional(form) : std::nullopt;
}

bool Weights::isParameter(Value value) const {
  auto argument = dyn_cast<BlockArgument>(value);
  return argument && func::FuncOp(function).getArgAttr(argument.getArgNumber(),
                                                       weightAttrName);
}

LogicalResult Weights::addStates() {
  for (BlockArgument argument : function.getArguments()) {
    unsigned number = argument.getArgNumber();
    auto weight = function.getArgAttrOfType<WeightAttr>(number, weightAttrName);
    if (!weight || argument.use_empty())
      continue;
    auto local = cast<RankedTensorType>(argument.getType());
    auto globalAttr =
        function.getArgAttrOfType<TypeAttr>(number, globalAttrName);
    auto global =
        globalAttr ? cast<RankedTensorType>(globalAttr.getValue()) : local;
    auto sharding =
        function.getArgAttrOfType<ShardingAttr>(number, shardingAttrName);
    if (sharding && sharding.isPartial())
      return function.emitError("parameter '")
             << weight.getName().getValue() << "' is partial";
    std::optional<PackedForm> form;
    bool anyPlain = false, anyPacked = false;
    for (OpOperand &use : argument.getUses()) {
      std::optional<PackedForm> here = packedForm(use);
      bool same = here && (!form || (form->transposed == here->transposed &&
                                     form->n == here->n));
      if (same)
        form = here;
      anyPacked |= same;
      anyPlain |= !same;
    }
    std::string name = weight.getName().str();
    auto add = [&](bool packed) {
      WeightState state;
      state.argument = number;
      state.packed = packed;
      state.local = local;
      state.name = packed && anyPlain ? name + " (packed)" : name;
      state.size = bytesOf(local);
      if (packed) {
        state.form = *form;
        state.size = ::dshard::cpu::packedBytes(
            form->k, form->n, gemmType(local.getElementType()));
      }
      state.index = plan.addState(argument.getLoc(), state.name, "parameter",
                                  "load", packed, /*written=*/false, global,
                                  local, sharding, state.size);
      states.push_back(state);
    };
    if (anyPlain)
      add(false);
    if (anyPacked)
      add(true);
  }
  return success();
}

const WeightState *Weights::find(OpOperand &use) const {
  auto argument = cast<BlockArgument>(use.get());
  std::optional<PackedForm> form = packedForm(use);
  for (const WeightState &state : states)
    if (state.argument == argument.getArgNumber() && state.packed && form &&
        form->transposed == state.form.transposed && form->n == state.form.n)
      return &state;
  for (const WeightState &state : states)
    if (state.argument == argument.getArgNumber() && !state.packed)
      return &state;
  return nullptr;
}

LogicalResult Weights::buildOne(OpBuilder &builder, const WeightState &state) {
  auto argument = function.getArgument(state.argument);
  auto weight =
      function.getArgAttrOfType<WeightAttr>(state.argument, weightAttrName);
  auto sharding =
      function.getArgAttrOfType<ShardingAttr>(state.argument, shardingAttrName);
  RankedTensorType stored = weight.getType(), local = state.local;
  int64_t rank = local.getRank();
  if (stored.getRank() != rank)
    return function.emitError("parameter '")
           << weight.getName().getValue() << "' has " << rank
           << " dims, its file has " << stored.getRank();
  Location loc = argument.getLoc();
  int64_t source = plan.addSource(weight);

  // The local dim that a stored dim becomes.
  SmallVector<int64_t> localDim(rank);
  for (int64_t d = 0; d < rank; ++d)
    localDim[d] = d;
  if (weight.getTransposed() && rank >= 2)
    std::swap(localDim[rank - 1], localDim[rank - 2]);

  plan::Origin origin;
  origin.path = builder.getStringAttr(weight.getName().getValue());
  origin.part = PartAttr::get(builder.getContext(), Part::forward);

  /// Elements [at, at + sizes) of the local tensor (local dims) into `out`,
  /// whose dim i is local dim order[i].
  auto slice = [&](Value out, ArrayRef<int64_t> at, ArrayRef<int64_t> sizes,
                   ArrayRef<int64_t> order) {
    SmallVector<Attribute> values = {plan.literal(source), plan.literal(rank)};
    for (int64_t d = 0; d < rank; ++d) {
      int64_t to = localDim[d], extent = local.getDimSize(to);
      ArrayRef<AxisRefAttr> axes;
      if (sharding)
        axes = sharding.getDims()[to].getAxes();
      values.push_back(plan.rankValue([&](int64_t r) {
        return (axes.empty() ? 0 : plan.getMesh().getIndexIn(r, axes)) *
                   extent +
               at[to];
      }));
    }
    for (int64_t d = 0; d < rank; ++d)
      values.push_back(plan.literal(sizes[localDim[d]]));
    for (int64_t i = 0; i < rank; ++i)
      for (int64_t d = 0; d < rank; ++d)
        if (localDim[d] == order[i])
          values.push_back(plan.literal(d));
    for (int64_t d = 0; d < rank; ++d)
      values.push_back(plan.literal(0));
    plan::createInstruction(builder, loc, InstructionKind::LOAD_SLICE, {{out}},
                            values, origin);
  };
  auto stateBuffer = [&](RankedTensorType type) {
    return createBuffer(builder, loc, state.name, state.index, state.size,
                        type);
  };
  SmallVector<int64_t> zeros(rank, 0), identity(rank);
  for (int64_t d = 0; d < rank; ++d)
    identity[d] = d;
  if (!state.packed) {
    slice(stateBuffer(local), zeros, local.getShape(), identity);
    return success();
  }

  const PackedForm &form = state.form;
  Value out = stateBuffer(local);
  int64_t width = bytesOf(local) / std::max<int64_t>(1, local.getNumElements());
  int64_t band =
      std::max<int64_t>(::dshard::cpu::gemmPanel, bandBytes / (form.k * width) /
                                                      ::dshard::cpu::gemmPanel *
                                                      ::dshard::cpu::gemmPanel);
  DenseMap<int64_t, Value> staging;
  for (int64_t column = 0; column < form.n; column += band) {
    int64_t count = std::min(band, form.n - column);
    Value &stage = staging[count];
    if (!stage) {
      auto type =
          RankedTensorType::get({form.k, count}, local.getElementType());
      stage = createBuffer(builder, loc, "staging", std::nullopt, bytesOf(type),
                           type);
    }
    if (form.transposed)
      slice(stage, {column, 0}, {count, form.k}, {1, 0});
    else
      slice(stage, {0, column}, {form.k, count}, {0, 1});
    plan::createInstruction(builder, loc, InstructionKind::PACK_RHS,
                            {{stage}, {out}},
                            {plan.literal(form.k), plan.literal(count),
                             plan.literal(column), plan.literal(form.n)},
                            origin);
  }
  return success();
}

LogicalResult Weights::buildLoad() {
  int64_t arena = 0;
  auto program =
      plan::ProgramOp::create(plan.b, function.getLoc(), "load", 0, 0, 0);
  Block *body = plan.b.createBlock(&program.getBody());
  OpBuilder builder = OpBuilder::atBlockEnd(body);
  plan.b.setInsertionPoint(program); // sources and tables come before
  for (const WeightState &state : states)
    if (failed(buildOne(builder, state)))
      return failure();
  for (auto buffer : body->getOps<plan::BufferOp>())
    if (!buffer.getState())
      arena = std::max<int64_t>(arena, buffer.getSize());
  program.setArenaSize(
      ::dshard::plan::alignTo(arena, ::dshard::plan::bufferAlignment));
  plan.b.setInsertionPointAfter(program);
  return success();
}
