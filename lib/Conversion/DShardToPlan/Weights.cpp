//===- Weights.cpp - States of parameters, and their loading --------------===//

#include "Weights.h"
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
    if (names.contains(state.name) && !(packed && anyPlain))
      state.name += " (stage " + std::to_string(state.stage) + ")";
    if (packed && anyPlain)
      state.name = states.back().name + " (packed)";
    names.insert(state.name);
    state.size = bytesOf(local);
    if (packed) {
      state.form = *form;
      state.size = ::dshard::cpu::packedBytes(form->k, form->n,
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
      values.push_back(plan.shardBegin(axes, extent, at[to]));
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
