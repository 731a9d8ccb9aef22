//===- Weights.cpp - States of parameters, and their loading --------------===//

#include "Weights.h"
#include "dshard/Dialect/DShard/IR/Interleave.h"
#include "dshard/Runtime/Cpu/Gemm.h"
#include "dshard/Transforms/Local/Calls.h"
#include "llvm/ADT/MapVector.h"

using namespace mlir;
using namespace mlir::dshard;

/// What is staged in the arena at a time.
static constexpr int64_t bandBytes = int64_t(4) << 20;

static ::dshard::plan::DataType gemmType(Type type) {
  return type.isF32()    ? ::dshard::plan::DataType::f32
         : type.isBF16() ? ::dshard::plan::DataType::bf16
                         : ::dshard::plan::DataType::f16;
}

/// The permutation of `op`, if it is a transpose of its one operand and a
/// reshape to [first dim, the others]: a convolution's weights as a matrix.
static ArrayRef<int64_t> detectMatrixOf(FusedOp op) {
  Block &body = op.getBody().front();
  if (op->getNumOperands() != 1 || op->getNumResults() != 1 ||
      llvm::range_size(body) != 3)
    return {};
  auto transpose = dyn_cast<TransposeOp>(body.front());
  auto reshape = body.getTerminator()->getOperand(0).getDefiningOp<ReshapeOp>();
  if (!transpose || !reshape || transpose.getInput() != body.getArgument(0) ||
      reshape.getInput() != transpose.getResult() ||
      transpose.getPermutation().front() != 0)
    return {};
  auto matrix = cast<RankedTensorType>(reshape.getType());
  return matrix.getRank() == 2 &&
                 matrix.getDimSize(0) ==
                     cast<RankedTensorType>(transpose.getType()).getDimSize(0)
             ? transpose.getPermutation()
             : ArrayRef<int64_t>();
}

/// How a use of a parameter can read a packed operand, if it can.
static std::optional<PackedForm> packedForm(OpOperand &use) {
  auto fused = dyn_cast<FusedOp>(use.getOwner());
  if (fused && !fused->hasAttr(callAttrName)) {
    ArrayRef<int64_t> permutation = detectMatrixOf(fused);
    if (permutation.empty() || !fused.getResult(0).hasOneUse())
      return std::nullopt;
    auto form = packedForm(*fused.getResult(0).use_begin());
    if (!form || !form->transposed || form->groups || !form->rows.empty())
      return std::nullopt;
    form->rows.assign(permutation.begin() + 1, permutation.end());
    return form;
  }
  if (fused && fused->getAttr(callAttrName) ==
                   StringAttr::get(fused.getContext(), "grouped_matmul")) {
    auto grouped = cast<GroupedMatMulOp>(fused.getBody().front().front());
    auto type = grouped.getWeights().getType();
    if (grouped.getWeights() !=
            fused.getBody().getArgument(use.getOperandNumber()) ||
        !grouped.getWeights().hasOneUse())
      return std::nullopt;
    bool transposed = grouped.getTransposeWeights();
    return PackedForm{type.getDimSize(transposed ? 2 : 1),
                      type.getDimSize(transposed ? 1 : 2),
                      transposed,
                      type.getDimSize(0),
                      {}};
  }
  if (!fused || fused->getAttr(callAttrName) !=
                    StringAttr::get(fused.getContext(), "matmul"))
    return std::nullopt;
  Block &body = fused.getBody().front();
  Value inside = body.getArgument(use.getOperandNumber());
  auto local = cast<RankedTensorType>(inside.getType());
  auto matmul = *body.getOps<MatMulOp>().begin();
  FailureOr<MatMulCall> call = matchMatMul(matmul);
  if (failed(call) || call->rhs.root != inside || call->lhs.root == inside ||
      !inside.hasOneUse() || call->batch != 1 || local.getRank() < 2)
    return std::nullopt;
  ArrayRef<int64_t> shape = local.getShape();
  PackedForm form{call->k, call->n, call->transposeRhs, 0, {}};
  if (local.getRank() > 2) {
    for (int64_t d = 1; d < local.getRank(); ++d)
      form.rows.push_back(d);
    bool suits = form.transposed && shape[0] == form.n &&
                 local.getNumElements() == form.n * form.k &&
                 (call->ldb == form.k || form.n == 1);
    return suits ? std::optional(form) : std::nullopt;
  }
  bool suits = form.transposed ? shape[0] == form.n && shape[1] == form.k &&
                                     (call->ldb == form.k || form.n == 1)
                               : shape[0] == form.k && shape[1] == form.n &&
                                     (call->ldb == form.n || form.k == 1);
  return suits ? std::optional(form) : std::nullopt;
}

static func::FuncOp functionOf(BlockArgument argument) {
  return dyn_cast<func::FuncOp>(argument.getOwner()->getParentOp());
}

StringRef Weights::nameOf(BlockArgument argument) {
  func::FuncOp function = functionOf(argument);
  if (!function)
    return "";
  unsigned number = argument.getArgNumber();
  if (auto state = function.getArgAttrOfType<StringAttr>(number, stateAttrName))
    return state.getValue();
  auto weight = function.getArgAttrOfType<WeightAttr>(number, weightAttrName);
  return weight ? weight.getName().getValue() : StringRef();
}

int64_t Weights::stageOf(BlockArgument argument) {
  func::FuncOp function = functionOf(argument);
  auto stage = function ? function->getAttrOfType<IntegerAttr>(stageAttrName)
                        : IntegerAttr();
  return stage ? stage.getInt() : -1;
}

/// What arguments that share a state have in common.
std::string Weights::keyOf(BlockArgument argument) {
  int64_t stage = stageOf(argument);
  return nameOf(argument).str() +
         (stage < 0 ? "" : '\0' + std::to_string(stage));
}

bool Weights::isState(Value value) {
  auto argument = dyn_cast<BlockArgument>(value);
  return argument && !nameOf(argument).empty();
}

int Weights::resultOf(BlockArgument argument) {
  func::FuncOp function = functionOf(argument);
  StringRef name = nameOf(argument);
  for (unsigned i = 0; i < function.getNumResults(); ++i)
    if (auto state = function.getResultAttrOfType<StringAttr>(i, stateAttrName))
      if (state.getValue() == name)
        return static_cast<int>(i);
  return -1;
}

/// What two entry points must agree on, of one argument.
static std::string describe(BlockArgument argument) {
  func::FuncOp function = functionOf(argument);
  unsigned number = argument.getArgNumber();
  std::string text;
  llvm::raw_string_ostream stream(text);
  auto global = function.getArgAttrOfType<TypeAttr>(number, globalAttrName);
  stream << (global ? global.getValue() : argument.getType());
  auto sharding =
      function.getArgAttrOfType<ShardingAttr>(number, shardingAttrName);
  if (sharding && !sharding.isReplicated())
    stream << " sharded " << sharding;
  if (Attribute order = function.getArgAttr(number, interleaveAttrName))
    stream << " interleaved " << order;
  return text;
}

LogicalResult Weights::addGroup(StringRef name, const Group &group) {
  BlockArgument first = group.arguments.front();
  func::FuncOp function = functionOf(first);
  unsigned number = first.getArgNumber();
  WeightAttr weight;
  bool isUsed = group.written;
  for (BlockArgument argument : group.arguments) {
    if (describe(argument) != describe(first) ||
        argument.getType() != first.getType())
      return functionOf(argument).emitError("[convert_to_plan_c2] stores '")
             << name << "' as " << describe(argument) << ", but '"
             << function.getName() << "' as " << describe(first)
             << "; all entry points share one state";
    auto here = functionOf(argument).getArgAttrOfType<WeightAttr>(
        argument.getArgNumber(), weightAttrName);
    if (weight && here && here != weight)
      return functionOf(argument).emitError("[convert_to_plan_c2] reads '")
             << name << "' from other bytes than '" << function.getName()
             << "'";
    weight = weight ? weight : here;
    isUsed |= !argument.use_empty();
  }
  if (!isUsed)
    return success();
  auto local = cast<RankedTensorType>(first.getType());
  auto globalAttr = function.getArgAttrOfType<TypeAttr>(number, globalAttrName);
  auto global =
      globalAttr ? cast<RankedTensorType>(globalAttr.getValue()) : local;
  auto sharding =
      function.getArgAttrOfType<ShardingAttr>(number, shardingAttrName);
  if (sharding && sharding.isPartial())
    return function.emitError("state '") << name << "' is partial";
  std::optional<PackedForm> form;
  bool anyPlain = group.written, anyPacked = false;
  if (!group.written)
    for (BlockArgument argument : group.arguments)
      for (OpOperand &use : argument.getUses()) {
        std::optional<PackedForm> here =
            plan.getGpu() ? std::nullopt : packedForm(use);
        bool same = weight && here && (!form || *form == *here);
        if (same)
          form = here;
        anyPacked |= same;
        anyPlain |= !same;
      }
  auto roleAttr = function.getArgAttrOfType<RoleAttr>(number, roleAttrName);
  Role role = roleAttr ? roleAttr.getValue() : Role::param;
  StringRef roleName = role == Role::grad              ? "gradient"
                       : role == Role::optimizer_state ? "optimizer_state"
                       : role == Role::cache           ? "cache"
                       : weight                        ? "parameter"
                                                       : "buffer";
  for (bool packed : {false, true}) {
    if (packed ? !anyPacked : !anyPlain)
      continue;
    WeightState state;
    state.argument = first;
    state.weight = weight;
    state.sharding = sharding;
    state.packed = packed;
    state.local = local;
    state.stage = stageOf(first);
    // Names are unique: a second stage that holds a parameter says so.
    state.name = name.str();
    // Not what the file has under this name.
    if (function.getArgAttr(number, interleaveAttrName))
      state.name += " (interleaved)";
    if (names.contains(state.name) && !(packed && anyPlain))
      state.name += " (stage " + std::to_string(state.stage) + ")";
    if (packed && anyPlain)
      state.name = states.back().name + " (packed)";
    names.insert(state.name);
    state.size = bytesOf(local);
    if (packed) {
      state.form = *form;
      state.size = std::max<int64_t>(form->groups, 1) *
                   ::dshard::cpu::packedBytes(form->k, form->n,
                                              gemmType(local.getElementType()));
    }
    state.index = plan.addState(
        first.getLoc(), state.name, roleName, weight ? "load" : "zero", packed,
        group.written, global, local, sharding, state.size, state.stage);
    byKey[keyOf(first)].push_back(states.size());
    states.push_back(state);
  }
  return success();
}

LogicalResult Weights::addStates() {
  llvm::MapVector<StringAttr, Group> groups; // by key
  for (func::FuncOp function : functions) {
    llvm::SmallPtrSet<Attribute, 8> mine;
    for (BlockArgument argument : function.getArguments()) {
      if (!isState(argument))
        continue;
      auto name = StringAttr::get(function.getContext(), nameOf(argument));
      if (!mine.insert(name).second)
        return function.emitError("[convert_to_plan_c2] has two arguments of "
                                  "the state ")
               << name;
      Group &group =
          groups[StringAttr::get(function.getContext(), keyOf(argument))];
      group.arguments.push_back(argument);
      int result = resultOf(argument);
      group.written |= result >= 0;
      if (result >= 0 &&
          function.getResultTypes()[result] != argument.getType())
        return function.emitError("[convert_to_plan_c2] writes the state ")
               << name << " as " << function.getResultTypes()[result]
               << ", but holds it as " << argument.getType();
    }
    for (unsigned i = 0; i < function.getNumResults(); ++i)
      if (auto name =
              function.getResultAttrOfType<StringAttr>(i, stateAttrName);
          name && !mine.insert(name).second) {
        for (unsigned j = 0; j < i; ++j)
          if (function.getResultAttrOfType<StringAttr>(j, stateAttrName) ==
              name)
            return function.emitError("[convert_to_plan_c2] has two results of "
                                      "the state ")
                   << name;
      } else if (name) {
        return function.emitError("[convert_to_plan_c2] writes the state ")
               << name << ", which is none of its arguments";
      }
  }
  for (auto &[key, group] : groups)
    if (failed(addGroup(nameOf(group.arguments.front()), group)))
      return failure();
  return success();
}

OpOperand *Weights::packedUse(OpOperand &operand) const {
  if (isReadOnly(operand.get()))
    return &operand;
  auto fused = operand.get().getDefiningOp<FusedOp>();
  if (!fused || fused->getNumOperands() != 1 ||
      !isReadOnly(fused->getOperand(0)))
    return nullptr;
  const WeightState *state = find(fused->getOpOperand(0));
  return state && state->packed ? &fused->getOpOperand(0) : nullptr;
}

const WeightState *Weights::find(OpOperand &use) const {
  auto argument = cast<BlockArgument>(use.get());
  auto found = byKey.find(keyOf(argument));
  if (found == byKey.end())
    return nullptr;
  std::optional<PackedForm> form = packedForm(use);
  for (size_t index : found->second)
    if (states[index].packed && form && *form == states[index].form)
      return &states[index];
  return findPlain(argument);
}

const WeightState *Weights::findPlain(BlockArgument argument) const {
  auto found = byKey.find(keyOf(argument));
  if (found != byKey.end())
    for (size_t index : found->second)
      if (!states[index].packed)
        return &states[index];
  return nullptr;
}

LogicalResult Weights::buildOne(OpBuilder &builder, const WeightState &state) {
  BlockArgument argument = state.argument;
  WeightAttr weight = state.weight;
  ShardingAttr sharding = state.sharding;
  RankedTensorType stored = weight.getType(), local = state.local;
  int64_t rank = local.getRank();
  if (stored.getRank() != rank)
    return functionOf(argument).emitError("parameter '")
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

  std::optional<Interleave> interleave =
      getInterleave(functionOf(argument), argument.getArgNumber());
  auto axesOf = [&](int64_t dim) {
    return sharding ? sharding.getDims()[dim].getAxes()
                    : ArrayRef<AxisRefAttr>();
  };
  /// The file's position of `at` of the local dim, for each rank.
  auto beginOf = [&](int64_t dim, int64_t at) {
    ArrayRef<AxisRefAttr> axes = axesOf(dim);
    int64_t extent = local.getDimSize(dim);
    if (!interleave || interleave->dim != dim)
      return plan.shardBegin(axes, extent, at);
    return plan.rankValue([&](int64_t rank) {
      int64_t index = axes.empty() ? 0 : plan.getMesh().getIndexIn(rank, axes);
      return interleave->getStored(index * extent + at);
    });
  };

  /// Elements [at, at + sizes) of the local tensor (local dims), which lie side
  /// by side in the file, to `to` of `out`, whose dim i is local dim order[i].
  auto sliceRun = [&](Value out, ArrayRef<int64_t> at, ArrayRef<int64_t> sizes,
                      ArrayRef<int64_t> order, ArrayRef<int64_t> to) {
    SmallVector<Attribute> values = {plan.literal(source), plan.literal(rank)};
    for (int64_t d = 0; d < rank; ++d) {
      int64_t own = localDim[d];
      values.push_back(beginOf(own, at[own]));
    }
    for (int64_t d = 0; d < rank; ++d)
      values.push_back(plan.literal(sizes[localDim[d]]));
    for (int64_t i = 0; i < rank; ++i)
      for (int64_t d = 0; d < rank; ++d)
        if (localDim[d] == order[i])
          values.push_back(plan.literal(d));
    for (int64_t i = 0; i < rank; ++i)
      values.push_back(plan.literal(to[order[i]]));
    plan::createInstruction(builder, loc, InstructionKind::LOAD_SLICE, {{out}},
                            values, origin);
  };
  /// The same of any elements, to the beginning of `out`.
  auto slice = [&](Value out, ArrayRef<int64_t> at, ArrayRef<int64_t> sizes,
                   ArrayRef<int64_t> order) {
    SmallVector<int64_t> begins(at), counts(sizes), to(rank, 0);
    if (!interleave)
      return sliceRun(out, begins, counts, order, to);
    int64_t dim = interleave->dim, extent = local.getDimSize(dim),
            end = at[dim] + sizes[dim], grain = interleave->getGrain(extent),
            shards = plan.getMesh().getSize(axesOf(dim));
    // Whether no rank has to jump in the file at the local position.
    auto goesOn = [&](int64_t position) {
      for (int64_t shard = 0; shard < shards; ++shard) {
        int64_t index = shard * extent + position;
        if (interleave->getStored(index) !=
            interleave->getStored(index - 1) + 1)
          return false;
      }
      return true;
    };
    for (int64_t begin = at[dim]; begin < end;) {
      int64_t next = (begin / grain + 1) * grain;
      while (next < end && goesOn(next))
        next += grain;
      next = std::min(next, end);
      begins[dim] = begin;
      counts[dim] = next - begin;
      to[dim] = begin - at[dim];
      sliceRun(out, begins, counts, order, to);
      begin = next;
    }
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
  int64_t panel = ::dshard::cpu::gemmPanel,
          padded = (form.n + panel - 1) / panel * panel;
  int64_t groups = std::max<int64_t>(form.groups, 1);
  int64_t total = (groups - 1) * padded + form.n;
  for (int64_t group = 0; group < groups; ++group)
    for (int64_t column = 0; column < form.n; column += band) {
      int64_t count = std::min(band, form.n - column);
      SmallVector<int64_t> shape = {form.k, count}, order = {0, 1},
                           at = {0, column}, sizes = {form.k, count};
      if (form.transposed) {
        order = {1, 0};
        at = {column, 0};
        sizes = {count, form.k};
      }
      if (!form.rows.empty()) {
        order = form.rows;
        shape.clear();
        sizes.assign(local.getShape().begin(), local.getShape().end());
        for (int64_t d : form.rows)
          shape.push_back(local.getDimSize(d));
        order.push_back(0);
        shape.push_back(count);
        at.assign(rank, 0);
        at[0] = column;
        sizes[0] = count;
      }
      if (form.groups) {
        order = {0, order[0] + 1, order[1] + 1};
        shape.insert(shape.begin(), 1);
        at.insert(at.begin(), group);
        sizes.insert(sizes.begin(), 1);
      }
      Value &stage = staging[count];
      if (!stage) {
        auto type = RankedTensorType::get(shape, local.getElementType());
        stage = createBuffer(builder, loc, "staging", std::nullopt,
                             bytesOf(type), type);
      }
      slice(stage, at, sizes, order);
      plan::createInstruction(
          builder, loc, InstructionKind::PACK_RHS, {{stage}, {out}},
          {plan.literal(form.k), plan.literal(count),
           plan.literal(group * padded + column), plan.literal(total)},
          origin);
    }
  return success();
}

LogicalResult Weights::buildLoad() {
  int64_t arena = 0;
  auto program = plan::ProgramOp::create(plan.b, functions.front().getLoc(),
                                         "load", 0, 0, 0);
  Block *body = plan.b.createBlock(&program.getBody());
  OpBuilder builder = OpBuilder::atBlockEnd(body);
  plan.b.setInsertionPoint(program);     // sources and tables come before
  std::map<int64_t, OpBuilder> builders; // by stage
  builders.try_emplace(-1, builder);
  for (const WeightState &state : states) {
    if (!state.weight)
      continue;
    auto [it, isNew] = builders.try_emplace(state.stage, builder);
    if (isNew) {
      // Only the ranks of the stage hold these bytes.
      AxisRefAttr pp = AxisRefAttr::get(builder.getContext(), "pp");
      auto branch = plan::IfOp::create(
          builder, functions.front().getLoc(), plan.rankValue([&](int64_t r) {
            return plan.getMesh().getIndexIn(r, {pp}) == state.stage;
          }));
      OpBuilder::InsertionGuard guard(builder);
      Block *then = builder.createBlock(&branch.getThenBody());
      builder.createBlock(&branch.getElseBody());
      it->second.setInsertionPointToEnd(then);
    }
    if (failed(buildOne(it->second, state)))
      return failure();
  }
  SmallVector<plan::BufferOp> buffers;
  body->walk([&](plan::BufferOp buffer) { buffers.push_back(buffer); });
  for (plan::BufferOp buffer : llvm::reverse(buffers)) {
    buffer->moveBefore(body, body->begin());
    if (!buffer.getState())
      arena = std::max<int64_t>(arena, buffer.getSize());
  }
  program.setArenaSize(::dshard::plan::alignTo(arena, plan.getAlignment()));
  plan.b.setInsertionPointAfter(program);
  return success();
}
